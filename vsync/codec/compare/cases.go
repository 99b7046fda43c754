package main

import "github.com/khamsin-io/khamsin/vsync/codec"

// Trade is a small struct of the usual fields.
type Trade struct {
	ID     int64
	Symbol string
	Price  float64
	Count  int32
	Buy    bool
	Tags   []string
}

// benchCase is one kind of value.
type benchCase struct {
	name    string
	measure func() []result
}

func cases() []benchCase {
	r := codec.NewRegistry()
	check(codec.Register[Trade](r, 1))
	tags := []string{"open", "limit"}
	trade := Trade{ID: 1234567890, Symbol: "KHMS", Price: 103.25, Count: 500, Buy: true, Tags: tags}
	celsius := codec.Pair[string, int]{Key: "temperature", Value: -40000}
	return []benchCase{
		{"a struct of six fields", func() []result { return measure(r, trade) }},
		{"a pair of a string and an int", func() []result { return measure(r, celsius) }},
		{"10³ int32", func() []result { return measure(r, numbers(1e3)) }},
		{"10⁶ int32", func() []result { return measure(r, numbers(1e6)) }},
	}
}

// numbers are n numbers of all magnitudes.
func numbers(n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(uint32(i)*2654435761) >> (i % 32)
	}
	return list
}
