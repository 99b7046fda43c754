package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Names of the phases.
const (
	phasePaced = "paced"     // one message a millisecond, nothing else: every wait ends in a sleep
	phasePing  = "ping-pong" // the next message as soon as the answer to the last one is here
	phaseLoad  = "load"      // paced, while both sides also multicast in the background
)

// outcome is what one cell gave in one run.
type outcome struct {
	Own, Remote map[string]spread // by phase
	RTT         spread            // of the ping-pong
	Throughput  float64           // messages a second delivered at one end when both multicast as many as go
}

// payloadBytes is the size of every message.
const payloadBytes = 64

// pacedEvery is the pause between paced messages.
const pacedEvery = time.Millisecond

// measure runs all cells and prints the table.
func (c *cli) measure(ctx context.Context) error {
	results := make(map[string][]outcome)
	var order []cell
	for _, x := range cells() {
		if strings.Contains(x.String(), c.Only) {
			order = append(order, x)
		}
	}
	for run := range c.Runs {
		for _, x := range order {
			fmt.Fprintf(os.Stderr, "run %d: %v\n", run+1, x)
			o, err := c.one(ctx, x)
			if err != nil {
				return fmt.Errorf("%v: %w", x, err)
			}
			results[x.String()] = append(results[x.String()], o)
		}
	}
	printTable(os.Stdout, order, results)
	return nil
}

// one measures one cell.
func (c *cli) one(ctx context.Context, x cell) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second+4*c.Phase)
	defer cancel()
	other, err := startChild(ctx, x)
	if err != nil {
		return outcome{}, err
	}
	defer other.stop()
	if x.Raw != "" {
		return c.raw(x, other)
	}
	return c.group(ctx, x, other)
}
