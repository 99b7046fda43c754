// Gendata writes the demo's input: the stock movements of a wholesaler, one per line, as CSV with the columns item and
// delta. A positive delta is a delivery, a negative one a sale. Popularity falls with an item's place as in Zipf's law,
// an item is delivered again when it runs low, and no item's stock ever falls below zero, in the order of the file.
//
// The same seed gives the same bytes everywhere: the generator uses whole numbers only, and its own source of them.
//
//	go run ./tools/gendata [-rows n] [-items n] [-seed n] [-out file]
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
)

// The data that the repository holds is made with these.
const (
	defaultRows  = 60_000
	defaultItems = 400
	defaultSeed  = 2026
	defaultOut   = "cmd/khamsin/data/movements.csv"
)

func main() {
	rows := flag.Int("rows", defaultRows, "movements to write")
	items := flag.Int("items", defaultItems, "different items, at most "+fmt.Sprint(itemsMax))
	seed := flag.Uint64("seed", defaultSeed, "seed of the generator")
	out := flag.String("out", defaultOut, "file to write")
	flag.Parse()
	if err := writeFile(*out, *rows, *items, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "gendata:", err)
		os.Exit(1)
	}
	fmt.Printf("gendata: %d movements of %d items in %s\n", *rows, *items, *out)
}

// writeFile writes the movements to a file.
func writeFile(path string, rows, items int, seed uint64) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	return write(file, rows, items, seed)
}

// write writes a header and then rows movements. Each item opens with a delivery.
func write(out io.Writer, rows, items int, seed uint64) error {
	if items < 1 || items > itemsMax || rows < items {
		return fmt.Errorf("%d movements of %d items: want 1 to %d items and a movement for each", rows, items, itemsMax)
	}
	buf := bufio.NewWriter(out)
	fmt.Fprintln(buf, "item,delta")
	w := newWarehouse(items, seed)
	for range rows {
		item, delta := w.move()
		fmt.Fprintf(buf, "%s,%d\n", item, delta)
	}
	return buf.Flush()
}
