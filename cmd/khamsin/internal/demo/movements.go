package demo

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Movement is one row of the input: so many pieces of an item came in (positive) or went out.
type Movement struct {
	Item  string
	Delta int64
}

// itemMax is the longest name of an item in bytes.
const itemMax = 200

// ParseMovements reads rows "item,delta". A first row "item,delta" is a heading. Faults name the file and the line.
func ParseMovements(r io.Reader, file string) ([]Movement, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = 2
	c.ReuseRecord = true
	var rows []Movement
	for first := true; ; first = false {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			return nil, fmt.Errorf("%s:%d: %w", file, parse.Line, parse.Err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if first && record[0] == "item" && record[1] == "delta" {
			continue
		}
		row, err := parseMovement(record)
		if err != nil {
			line, _ := c.FieldPos(0)
			return nil, fmt.Errorf("%s:%d: %w", file, line, err)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s: no rows", file)
	}
	return rows, nil
}

func parseMovement(record []string) (Movement, error) {
	item := record[0]
	if item == "" || len(item) > itemMax {
		return Movement{}, fmt.Errorf("item of %d bytes, want 1 to %d", len(item), itemMax)
	}
	delta, err := strconv.ParseInt(record[1], 10, 64)
	if err != nil {
		return Movement{}, fmt.Errorf("delta %q is not a whole number", record[1])
	}
	return Movement{Item: item, Delta: delta}, nil
}
