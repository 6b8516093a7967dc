// Package localapi is how the programs of one device speak with its agent: HTTP
// over a Unix socket, JSON in, JSON lines out. spec/localapi.md is the
// specification.
//
// Parties: the agent serves, as root; anybody on the device may ask. Who asks
// is what the kernel says about the socket's other end (SO_PEERCRED), nothing
// that the other end says itself. Reads are open to all, changes are for
// root, or for whom Method.Allow lets in.
//
// A call is POST /v1/NAME with a JSON object of at most 64 KiB. The answer is
// a sequence of lines, each one JSON object:
//
//	{"event":{…}}    any number: progress
//	{"result":{…}}   or
//	{"error":{"message":"cannot …","reason":"busy","hint":"…"}}
//
// The last line is always a result or an error; an answer without it was cut
// off. A caller that hangs up cancels what it asked for.
package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Limits, in bytes.
const (
	MaxParams = 64 << 10
	maxLine   = 8 << 20 // of an answer: a history can be long
)

// Limits that keep those who ask from each other's way, and from the lock that a
// journey may hold while it tells of its progress.
const (
	Each     = 16               // connections of one user other than root
	All      = 64               // of all of them
	slowest  = 30 * time.Second // for a caller to send its parameters, or to take a line of the answer
	idleTime = 30 * time.Second
)

// Peer is who asks, as the kernel knows it.
type Peer struct {
	UID, GID uint32
	PID      int32
	Bus      string // its name on the system's bus, if it asks there; "" on the socket
	Silent   bool   // nobody may be asked for a password on its behalf
}

// Root says whether the peer may do anything.
func (p Peer) Root() bool { return p.UID == 0 }

// Method is one thing that the agent does on request.
type Method struct {
	// Allow refuses a peer before anything is done; nil lets all in.
	Allow func(context.Context, Peer) error
	// Handle does it. emit sends an event and may be called until Handle
	// returns, by one goroutine at a time.
	Handle func(ctx context.Context, peer Peer, params json.RawMessage, emit func(event any)) (result any, err error)
}

type line struct {
	Event  json.RawMessage `json:"event,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

type failure struct {
	Message string `json:"message"`
	Reason  string `json:"reason"` // a name of internal/fault
	Hint    string `json:"hint,omitempty"`
}

// Listen makes the agent's socket, open to everybody on the device. A socket
// that a dead agent left is replaced; one that answers is fault.Busy.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fault.New(fault.Busy, "cannot start the agent: another one answers at %s", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot start the agent: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot start the agent: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot start the agent: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot start the agent: %w", err)
	}
	return l, nil
}

// door lets in those for whom there is room; others are hung up on.
type door struct {
	net.Listener
	crowd linux.Crowd
}

// guest is a connection that was let in.
type guest struct {
	*net.UnixConn
	peer  Peer
	leave func()
}

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if u, ok := c.(*net.UnixConn); ok {
			if peer, err := peerOf(u); err == nil {
				if leave, ok := d.crowd.Enter(int(peer.UID)); ok {
					return &guest{u, peer, leave}, nil
				}
			}
		}
		c.Close()
	}
}

func (g *guest) Close() error {
	defer g.leave()
	return g.UnixConn.Close()
}

type peerKey struct{}

// Serve answers on l until ctx ends; calls under way are then cancelled.
func Serve(ctx context.Context, l net.Listener, methods map[string]Method) error {
	srv := &http.Server{
		Handler:           handler{methods, slowest},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*guest).peer)
		},
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(&door{Listener: l, crowd: linux.Crowd{Each: Each, All: All}}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve: %w", err)
	}
	return nil
}

func peerOf(u *net.UnixConn) (Peer, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *syscall.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if cerr != nil {
		return Peer{}, cerr
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

type handler struct {
	methods map[string]Method
	slowest time.Duration
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	m, known := h.methods[name]
	peer, trusted := r.Context().Value(peerKey{}).(Peer)
	out := &writer{w: w, flush: http.NewResponseController(w), slowest: h.slowest}
	switch {
	case !trusted:
		http.Error(w, "who asks is unknown", http.StatusForbidden)
		return
	case !ok || !known || r.Method != http.MethodPost:
		w.WriteHeader(http.StatusNotFound)
		out.fail(fault.New(fault.Usage, "cannot do %q: this agent does not know it", r.URL.Path).Hint("is the agent older than the command? restart it"))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	if m.Allow != nil {
		if err := m.Allow(r.Context(), peer); err != nil {
			out.fail(err)
			return
		}
	}
	_ = out.flush.SetReadDeadline(time.Now().Add(h.slowest))
	params, err := io.ReadAll(io.LimitReader(r.Body, MaxParams+1))
	if err != nil {
		return // the caller hung up, or makes us wait
	}
	_ = out.flush.SetReadDeadline(time.Time{})
	if len(params) > MaxParams || !json.Valid(params) {
		out.fail(fault.New(fault.Usage, "cannot do %s: the parameters are not JSON of at most %d bytes", name, MaxParams))
		return
	}
	result, err := m.Handle(r.Context(), peer, params, out.event)
	if err != nil {
		out.fail(err)
		return
	}
	out.result(result)
}

// writer writes the lines of one answer.
type writer struct {
	mu      sync.Mutex
	w       io.Writer
	flush   *http.ResponseController
	slowest time.Duration
}

func (o *writer) write(l line) {
	data, err := json.Marshal(l)
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// A caller that takes no lines is as one that hung up: the journey is cancelled.
	_ = o.flush.SetWriteDeadline(time.Now().Add(o.slowest))
	o.w.Write(append(data, '\n'))
	o.flush.Flush()
}

func (o *writer) event(v any) {
	if data, err := json.Marshal(v); err == nil {
		o.write(line{Event: data})
	}
}

func (o *writer) result(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		o.fail(err)
		return
	}
	o.write(line{Result: data})
}

func (o *writer) fail(err error) {
	o.write(line{Error: &failure{Message: err.Error(), Reason: fault.KindOf(err).String(), Hint: fault.HintOf(err)}})
}

// ErrNoAgent says that no agent answers.
var ErrNoAgent = errors.New("no agent answers")

// Client speaks to an agent.
type Client struct{ http *http.Client }

// Dial finds the agent that answers at a socket; ErrNoAgent if none does.
func Dial(path string) (*Client, error) {
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	if err != nil {
		return nil, fmt.Errorf("%w at %s (%w)", ErrNoAgent, path, err)
	}
	c.Close()
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}, nil
}

// Call asks the agent for one thing, hands every event to the given function
// (which may be nil), and decodes the result into result. A failure has the
// kind and hint that it had in the agent.
func (c *Client) Call(ctx context.Context, name string, params any, event func(json.RawMessage), result any) error {
	body, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("cannot ask the agent: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("cannot ask the agent: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("cannot ask the agent: %w", err)
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	for sc.Scan() {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			return fmt.Errorf("cannot understand the agent: %w", err)
		}
		switch {
		case l.Error != nil:
			e := fault.New(fault.Parse(l.Error.Reason), "%s", l.Error.Message)
			if l.Error.Hint != "" {
				e.Hint("%s", l.Error.Hint)
			}
			return e
		case l.Result != nil:
			if err := json.Unmarshal(l.Result, result); err != nil {
				return fmt.Errorf("cannot understand the agent: %w", err)
			}
			return nil
		case l.Event != nil && event != nil:
			event(l.Event)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.New(fault.Failed, "cannot know how it ended: the agent's answer was cut off").Hint("sealant status shows what holds now")
}
