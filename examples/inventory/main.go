// Command inventory is a price list that several processes keep together, behind an HTTP server at each of them. Prices
// are read where one asks, from memory, and set everywhere in one order; a process that joins gets the whole list. Any
// replica answers any request.
//
//	go run ./examples/inventory
//
// It starts three replicas in one process, sets and reads prices through different ones, and asks for a count of what
// all of them have together. A replica has three requests:
//
//	PUT /price/{product}    the body is the price; it returns when every replica has it
//	GET /price/{product}    the price as this replica knows it
//	GET /count              asks all replicas: "n returns: | ... | Total processors: ..."
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/khamsin-io/khamsin/vsync"
)

// The codes.
const (
	codeSet   vsync.Code = 0 // a product and its price
	codeCount vsync.Code = 1 // how many processors a replica has
)

const replicas = 3

// Replica is one process's copy of the list.
type Replica struct {
	group *vsync.Group

	mu     sync.RWMutex
	prices map[string]float64
}

// NewReplica makes a process a replica, with the list as it is.
func NewReplica(ctx context.Context, sys *vsync.System) (*Replica, error) {
	r := &Replica{group: sys.NewGroup("inventory"), prices: map[string]float64{}}
	g := r.group
	err := errors.Join(
		g.Handle(codeSet, func(product string, price float64) error { r.set(product, price); return nil }),
		g.Handle(codeCount, func(id int, keywords string) int { return runtime.NumCPU() }),
		g.OnMakeState(func(_ context.Context, _ *vsync.View, w *vsync.StateWriter) error { return r.save(w) }),
		g.OnLoadState(r.set),
	)
	if err != nil {
		return nil, err
	}
	return r, g.Join(ctx)
}

func (r *Replica) set(product string, price float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prices[product] = price
}

func (r *Replica) get(product string) (float64, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	price, ok := r.prices[product]
	return price, ok
}

func (r *Replica) save(w *vsync.StateWriter) error {
	for product, price := range r.prices { // only handlers change them, and this is one
		if err := w.Put(product, price); err != nil {
			return err
		}
	}
	return nil
}

// Handler serves a replica's requests.
func (r *Replica) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /price/{product}", r.put)
	mux.HandleFunc("GET /price/{product}", r.show)
	mux.HandleFunc("GET /count", r.count)
	return mux
}

// put sets a price at all replicas. It is a query, though nobody has anything to say: its replies mean that all have
// handled the message, so that the client may read the price wherever it likes. OrderedSend and Flush would be quicker,
// and mean that all hold the message, so that no crash can make it forgotten.
func (r *Replica) put(w http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(io.LimitReader(req.Body, 64))
	price, errNumber := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err = errors.Join(err, errNumber); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	target := r.group.OnTimeout(vsync.TimeoutAbort)
	product := req.PathValue("product")
	_, err = vsync.OrderedQuery[vsync.Nothing](req.Context(), target, vsync.All, codeSet, product, price)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// show reads a price here, without a message. A replica that the others have given up knows no news any more.
func (r *Replica) show(w http.ResponseWriter, req *http.Request) {
	if err := r.group.Err(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	price, ok := r.get(req.PathValue("product"))
	if !ok {
		http.NotFound(w, req)
		return
	}
	fmt.Fprintln(w, price)
}

// count asks all replicas.
func (r *Replica) count(w http.ResponseWriter, req *http.Request) {
	counts, err := vsync.Query[int](req.Context(), r.group, vsync.All, codeCount, 1, "Query")
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	total := 0
	fmt.Fprintf(w, "%d returns: ", counts.Len())
	for _, n := range counts.Values() {
		total += n
		fmt.Fprintf(w, "| %d ", n)
	}
	fmt.Fprintf(w, "| Total processors: %d\n", total)
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "inventory:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opts ...vsync.Option) error {
	var addresses []string
	for range replicas {
		sys, err := vsync.Start(ctx, opts...)
		if err != nil {
			return err
		}
		defer sys.Close()
		r, err := NewReplica(ctx, sys)
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: r.Handler()}
		go server.Serve(listener) // ends with Close
		defer server.Close()
		addresses = append(addresses, "http://"+listener.Addr().String())
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, step := range []struct{ replica, method, path, body string }{
		{addresses[0], "PUT", "/price/bolt", "0.25"}, {addresses[2], "PUT", "/price/nut", "0.10"},
		{addresses[1], "GET", "/price/bolt", ""}, {addresses[1], "GET", "/price/gear", ""},
		{addresses[2], "GET", "/count", ""},
	} {
		answer, err := request(ctx, client, step.method, step.replica+step.path, step.body)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintln(step.method, step.path, step.body, "->", answer)))
	}
	return nil
}

// request sends one request and returns the answer's status and text.
func request(ctx context.Context, c *http.Client, method, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text))), err
}
