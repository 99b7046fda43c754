package main

import (
	"bytes"
	"encoding/csv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// generate returns the movements that the repository holds.
func generate(t *testing.T, seed uint64) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := write(&out, defaultRows, defaultItems, seed); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCommitted compares the committed file with a fresh one.
func TestCommitted(t *testing.T) {
	committed, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(defaultOut)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, generate(t, defaultSeed)) {
		t.Errorf("%s is not what the generator makes: run `make generate`", defaultOut)
	}
	if bytes.Equal(committed, generate(t, defaultSeed+1)) {
		t.Error("another seed gives the same movements")
	}
}

// TestMovements checks that the data has the shape that the demo is about.
func TestMovements(t *testing.T) {
	text := generate(t, defaultSeed)
	if len(text) > 1_500_000 {
		t.Errorf("%d bytes, want at most 1.5 MB", len(text))
	}
	lines := csv.NewReader(bytes.NewReader(text))
	if header, err := lines.Read(); err != nil || !slices.Equal(header, []string{"item", "delta"}) {
		t.Fatalf("header %v, %v", header, err)
	}
	stock, moves := map[string]int{}, map[string]int{}
	deliveries, sales := 0, 0
	for {
		line, err := lines.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		delta, err := strconv.Atoi(line[1])
		if err != nil || delta == 0 {
			t.Fatalf("movement %v: %v", line, err)
		}
		name := line[0]
		stock[name] += delta
		moves[name]++
		if stock[name] < 0 {
			t.Fatalf("stock of %s fell to %d", name, stock[name])
		}
		if delta > 0 {
			deliveries++
		} else {
			sales++
		}
	}
	if deliveries+sales != defaultRows || deliveries < defaultRows/100 || sales < 4*deliveries {
		t.Errorf("%d deliveries and %d sales, want %d together and far more sales", deliveries, sales, defaultRows)
	}
	if len(stock) != defaultItems {
		t.Errorf("%d items, want %d", len(stock), defaultItems)
	}
	var counts []int
	for _, n := range moves {
		counts = append(counts, n)
	}
	slices.Sort(counts)
	if top, middle := counts[len(counts)-1], counts[len(counts)/2]; top < 10*middle {
		t.Errorf("the most popular item moves %d times and the middle one %d: not a popularity that falls", top, middle)
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, tt := range []struct{ rows, items int }{{10, 0}, {10, 11}, {itemsMax + 2, itemsMax + 1}} {
		if err := write(io.Discard, tt.rows, tt.items, 1); err == nil {
			t.Errorf("%d movements of %d items were accepted", tt.rows, tt.items)
		}
	}
	if err := write(io.Discard, itemsMax, itemsMax, 1); err != nil {
		t.Errorf("as many items as there are names: %v", err)
	}
}
