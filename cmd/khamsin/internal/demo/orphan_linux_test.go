package demo

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"
)

var attachedLine = regexp.MustCompile(`attached in .*\((\d+):`) // immutable: a pattern

func TestChildrenDieWithTheirParent(t *testing.T) {
	if testing.Short() {
		t.Skip("short: starts processes")
	}
	cmd := exec.Command(os.Args[0], "demo")
	out, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	var children []string
	for s := bufio.NewScanner(out); len(children) < 4 && s.Scan(); {
		if m := attachedLine.FindStringSubmatch(s.Text()); m != nil {
			children = append(children, m[1])
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	if len(children) != 4 {
		t.Fatalf("%d children attached, want 4", len(children))
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range children {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("child %s outlives its parent", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// alive tells whether a process runs and is not just waiting to be buried.
func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	var number int
	var name string
	var state rune
	_, err = fmt.Sscanf(string(b), "%d %s %c", &number, &name, &state)
	return err != nil || state != 'Z'
}
