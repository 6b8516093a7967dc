package program

import (
	"bufio"
	"bytes"
	"context"
	"testing"
)

func TestConversation(t *testing.T) {
	var stderr bytes.Buffer
	p, err := Start(t.Context(), []string{"sh", "-c", "echo hello >&2; while read -r line; do echo \"<$line>\"; done; echo left over"}, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(p)
	for _, word := range []string{"one", "two"} {
		if _, err := p.Write([]byte(word + "\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadString('\n'); err != nil || got != "<"+word+">\n" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := p.Close(); err != nil || stderr.String() != "hello\n" {
		t.Errorf("%v, %q", err, stderr.String())
	}
}

func TestFailures(t *testing.T) {
	for _, command := range [][]string{nil, {"/nonexistent/program"}, {"no-such-program-anywhere"}} {
		if _, err := Start(t.Context(), command, nil); err == nil {
			t.Errorf("started %v", command)
		}
	}
	p, err := Start(t.Context(), []string{"sh", "-c", "exit 3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err == nil {
		t.Error("a failing program was reported as good")
	}
	// A program that never ends is killed with its context.
	ctx, cancel := context.WithCancel(t.Context())
	if p, err = Start(ctx, []string{"sleep", "1000"}, nil); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := p.Read(make([]byte, 1)); err == nil {
		t.Error("read from a killed program")
	}
	if err := p.Close(); err == nil {
		t.Error("a killed program was reported as good")
	}
}
