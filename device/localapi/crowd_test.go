package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/linux"
)

// One user can't take the agent away from the others: not by its threads, of which
// systemd lets it have some, nor by its descriptors.
func TestOneUserHasItsShareOfConnections(t *testing.T) {
	name := "@sealant-test-" + filepath.Base(t.TempDir()) + t.Name()
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Serve(ctx, l, map[string]Method{"who": {Handle: func(_ context.Context, p Peer, _ json.RawMessage, _ func(any)) (any, error) { return p, nil }}})
	}()
	defer func() { cancel(); <-done }()

	// who calls on a new connection as a user, and keeps it open.
	who := func(uid int) (c net.Conn, answer string) {
		t.Helper()
		err := linux.Isolated(func() (err error) {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				return errno
			}
			c, err = net.Dial("unix", name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		// A connection that was refused may be closed before this is written.
		_, _ = c.Write([]byte("POST /v1/who HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\n\r\n{}"))
		b := make([]byte, 1<<10)
		for !strings.Contains(answer, "}\n") {
			n, err := c.Read(b)
			if answer += string(b[:n]); err != nil {
				break
			}
		}
		return c, answer
	}
	var last net.Conn
	for range Each {
		c, answer := who(4711)
		if !strings.Contains(answer, `"UID":4711`) {
			t.Fatalf("%q", answer)
		}
		last = c
	}
	if _, answer := who(4711); answer != "" {
		t.Errorf("one more than its share: %q", answer)
	}
	for _, other := range []int{4712, 0} {
		if _, answer := who(other); !strings.Contains(answer, `"UID"`) {
			t.Errorf("user %d is kept out: %q", other, answer)
		}
	}
	last.Close()
	for { // the agent notices it in a moment
		if _, answer := who(4711); answer != "" {
			break
		}
		time.Sleep(time.Millisecond)
	}
}

// A caller that does not read can't keep a journey, and the lock that it holds, from
// its end.
func TestACallerThatDoesNotRead(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	h := handler{map[string]Method{"tell": {Handle: func(ctx context.Context, _ Peer, _ json.RawMessage, emit func(any)) (any, error) {
		for ctx.Err() == nil {
			emit(strings.Repeat("x", 64<<10))
		}
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}}, 20 * time.Millisecond}
	srv := &http.Server{Handler: h, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, Peer{})
	}}
	go srv.Serve(l)
	defer srv.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("POST /v1/tell HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\n\r\n{}")); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
