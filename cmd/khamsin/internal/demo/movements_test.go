package demo

import (
	"os"
	"strings"
	"testing"
)

func TestParseMovements(t *testing.T) {
	rows, err := ParseMovements(strings.NewReader("item,delta\nbolt,5\nnut,-3\n"), "stock.csv")
	if err != nil || len(rows) != 2 || rows[1] != (Movement{Item: "nut", Delta: -3}) {
		t.Fatalf("%v, %v", rows, err)
	}
	if rows, err := ParseMovements(strings.NewReader("bolt,5\n"), "stock.csv"); err != nil || len(rows) != 1 {
		t.Fatalf("without a heading: %v, %v", rows, err)
	}
	for _, c := range []struct{ in, want string }{
		{"", "stock.csv: no rows"},
		{"item,delta\n", "stock.csv: no rows"},
		{"item,delta\nbolt,5\nnut,many\n", `stock.csv:3: delta "many" is not a whole number`},
		{"bolt,1\nnut,2.5\n", `stock.csv:2: delta "2.5"`},
		{"bolt,1\n\n\nnut,2,3\n", "stock.csv:4: "},
		{"bolt\n", "stock.csv:1: "},
		{",1\n", "stock.csv:1: item of 0 bytes"},
		{strings.Repeat("x", itemMax+1) + ",1\n", "stock.csv:1: item of 201 bytes"},
		{"bolt,99999999999999999999\n", `stock.csv:1: delta "99999999999999999999"`},
		{"a\"b,1\n", "stock.csv:1: "},
	} {
		_, err := ParseMovements(strings.NewReader(c.in), "stock.csv")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
	}
}

func TestBuiltInMovements(t *testing.T) {
	b, err := os.ReadFile("../../data/movements.csv")
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := load("", b); err != nil || len(rows) < 1000 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
}

func FuzzParseMovements(f *testing.F) {
	f.Add("item,delta\nbolt,5\n")
	f.Add("bolt,-5\n\"a,b\",7\n")
	f.Fuzz(func(t *testing.T, in string) {
		rows, err := ParseMovements(strings.NewReader(in), "f")
		if err == nil && len(rows) == 0 {
			t.Fatal("neither rows nor an error")
		}
	})
}
