package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// result is the verdict as --json prints it.
type result struct {
	Agree     bool    `json:"agree"`
	Members   int     `json:"members"` // of the first view
	Killed    int     `json:"killed"`
	Joined    int     `json:"joined"`
	Views     int     `json:"views"`
	Delivered uint64  `json:"delivered"` // messages of the group's whole life
	Seconds   float64 `json:"seconds"`
}

// errDisagree is the verdict when something is not as promised.
var errDisagree = errors.New("the members do not agree")

// judge compares the members' sums with each other and with the input, and prints the verdict.
func (p *parent) judge() error {
	reference := p.finals()
	if len(reference) == 0 {
		return errors.New("nobody summed up")
	}
	p.compare(reference)
	sum := reference[0].final
	totals, err := expected(p.input, p.shares, sum.Applied)
	if err != nil {
		p.fault("%v", err)
	} else if stock := stockOf(totals); stock != sum.Stock {
		p.fault("stock %s, the input gives %s", sum.Stock.short(), stock.short())
	}
	for _, k := range reference {
		if k.sending && sum.Applied[k.index] != k.rows {
			p.fault("%v multicast %d rows, %d were delivered", k, k.rows, sum.Applied[k.index])
		}
	}
	res := p.result(sum)
	res.Agree = len(p.faults) == 0
	p.verdict(&res, sum)
	p.printJSON(res)
	if !res.Agree {
		return errDisagree
	}
	return nil
}

// result returns what is known about the run, without an agreement. sum is nil when nobody summed up.
func (p *parent) result(sum *final) result {
	res := result{
		Members: p.o.Members, Joined: max(0, len(p.kids)-p.o.Members),
		Seconds: float64(time.Since(p.began).Milliseconds()) / 1000,
	}
	for id := range p.views {
		if sum == nil || id <= sum.View { // those of the departure do not count
			res.Views++
		}
	}
	if sum != nil {
		res.Delivered = sum.Count
	}
	for _, k := range p.kids {
		if k.killed {
			res.Killed++
		}
	}
	return res
}

// printJSON prints the result as the last line, when that was asked for.
func (p *parent) printJSON(res result) {
	if p.o.JSON {
		b, _ := json.Marshal(res) // a plain struct
		fmt.Fprintf(p.o.Stdout, "%s\n", b)
	}
}

// finals returns the members that summed up.
func (p *parent) finals() []*kid {
	var list []*kid
	for _, k := range p.kids {
		if k.final != nil {
			list = append(list, k)
		}
	}
	return list
}

// compare prints every member's sum and notes differences from the first.
func (p *parent) compare(kids []*kid) {
	first := kids[0].final
	p.screen.text("")
	p.screen.text("member  rank  view  delivered      own  order         stock (SHA-256)")
	for _, k := range kids {
		f := k.final
		p.screen.text("%-6v  %4d  %4d  %9d  %7d  %s  %x", k, f.Rank, f.View, f.Count, f.Own, f.Order.short(), f.Stock)
		if f.View != first.View || f.Count != first.Count || f.Order != first.Order || f.Stock != first.Stock {
			p.fault("%v differs from %v", k, kids[0])
		}
	}
	for _, k := range p.kids {
		if !k.killed {
			continue
		}
		n := first.Applied[k.index]
		if k.share.Rows >= 0 {
			p.screen.text("%v was killed: the first %d rows of its %d were delivered", k, n, k.share.Rows)
		} else {
			p.screen.text("%v was killed: %d rows of it were delivered, without a gap", k, n)
		}
	}
}

// verdict prints the last line.
func (p *parent) verdict(res *result, sum *final) {
	if res.Agree {
		p.screen.text("AGREE: %d members, %d messages in one order through %d views, %d killed, %d joined, %.1f s",
			len(p.finals()), sum.Count, res.Views, res.Killed, res.Joined, res.Seconds)
	} else {
		p.screen.text("DISAGREE: %d faults, first: %s", len(p.faults), p.faults[0])
	}
}
