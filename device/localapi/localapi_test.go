package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

type word struct {
	Word string `json:"word"`
}

func serve(t *testing.T, methods map[string]Method) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, methods) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestCall(t *testing.T) {
	path := serve(t, map[string]Method{
		"echo": {Handle: func(_ context.Context, peer Peer, params json.RawMessage, emit func(any)) (any, error) {
			var w word
			if err := json.Unmarshal(params, &w); err != nil {
				return nil, err
			}
			if int(peer.UID) != os.Getuid() || int(peer.PID) != os.Getpid() {
				t.Errorf("peer %+v", peer)
			}
			for _, r := range w.Word {
				emit(word{string(r)})
			}
			return word{strings.ToUpper(w.Word)}, nil
		}},
		"refuse": {Handle: func(context.Context, Peer, json.RawMessage, func(any)) (any, error) {
			return nil, fault.New(fault.Recalled, "cannot install: recalled").Hint("wait")
		}},
		"root": {
			Allow: func(context.Context, Peer) error { return fault.New(fault.Policy, "cannot remove: policy forbids it") },
			Handle: func(context.Context, Peer, json.RawMessage, func(any)) (any, error) {
				t.Error("handled")
				return word{}, nil
			},
		},
	})
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	var got word
	var events []string
	err = c.Call(t.Context(), "echo", word{"abc"}, func(e json.RawMessage) {
		var w word
		json.Unmarshal(e, &w)
		events = append(events, w.Word)
	}, &got)
	if err != nil || got.Word != "ABC" || strings.Join(events, "") != "abc" {
		t.Errorf("%v %v %v", got, events, err)
	}
	if err := c.Call(t.Context(), "refuse", word{}, nil, &got); fault.KindOf(err) != fault.Recalled || fault.HintOf(err) != "wait" || err.Error() != "cannot install: recalled" {
		t.Errorf("%v", err)
	}
	if err := c.Call(t.Context(), "root", word{}, nil, &got); fault.KindOf(err) != fault.Policy {
		t.Errorf("%v", err)
	}
	if err := c.Call(t.Context(), "../x", word{}, nil, &got); fault.KindOf(err) != fault.Usage {
		t.Errorf("%v", err)
	}
	if err := c.Call(t.Context(), "echo", word{strings.Repeat("x", MaxParams)}, nil, &got); fault.KindOf(err) != fault.Usage {
		t.Errorf("%v", err)
	}
}

func TestHangingUpCancels(t *testing.T) {
	ended := make(chan error, 1)
	begun := make(chan bool)
	path := serve(t, map[string]Method{"wait": {Handle: func(ctx context.Context, _ Peer, _ json.RawMessage, _ func(any)) (any, error) {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}})
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if err := c.Call(ctx, "wait", word{}, nil, &word{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the call goes on")
	}
}

func TestListen(t *testing.T) {
	path := serve(t, nil)
	if _, err := Listen(path); fault.KindOf(err) != fault.Busy {
		t.Errorf("a second agent: %v", err)
	}
	if _, err := Dial(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNoAgent) {
		t.Errorf("%v", err)
	}
	// A socket left by an agent that was killed.
	dead := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(dead)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dead)
	if err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	again.Close()
}

// TestCutOff: an answer without a last line is no success.
func TestCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"event":{}}` + "\n"))
	})}
	go srv.Serve(l)
	defer srv.Close()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "x", word{}, nil, &word{}); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("%v", err)
	}
}
