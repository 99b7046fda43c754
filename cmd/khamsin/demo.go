package main

import (
	"context"
	_ "embed"
	"math/rand/v2"
	"os"
	"time"

	"github.com/khamsin-io/khamsin/cmd/khamsin/internal/demo"
)

// movements is the built-in input of the demo. immutable: embedded
//
//go:embed data/movements.csv
var movements []byte

type demoCommand struct {
	Members   int           `default:"5" help:"Members of the group, 3 to 32."`
	Transport string        `default:"udp" enum:"udp,mem,rdma" help:"udp: processes over IP multicast on loopback; mem: Systems of one process; rdma: processes over RDMA, on the interface that ISIS_NETWORK_INTERFACES names."`
	Input     string        `type:"existingfile" placeholder:"FILE" help:"Stock movements, CSV with rows item,delta; default: a built-in file."`
	Seed      uint64        `help:"Decides who is killed and when; default: random."`
	Suspect   time.Duration `name:"suspect-after" placeholder:"DURATION" help:"Silence that counts as death; default: by the number of members."`
	JSON      bool          `name:"json" help:"Print the result as one JSON object on the last line of stdout, all else on stderr."`
	KeepGoing time.Duration `placeholder:"DURATION" help:"Keep the traffic going for so long, with random kills and joins."`
}

// Run runs the demo.
func (c *demoCommand) Run(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1e6)
	}
	return demo.Run(ctx, demo.Options{
		Members: c.Members, Transport: c.Transport, Input: c.Input, BuiltIn: movements, Seed: c.Seed,
		Suspect: c.Suspect, KeepGoing: c.KeepGoing, JSON: c.JSON, Program: program,
		Stdout: os.Stdout, Stderr: os.Stderr,
	})
}

type memberCommand struct{}

// Run is a member's process.
func (memberCommand) Run(ctx context.Context) error {
	return demo.Member(ctx, os.Stdin, os.Stdout, movements)
}
