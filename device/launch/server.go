package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// requestTime is how long a caller may take to say what it wants.
const requestTime = 10 * time.Second

// Limits of what is done at once: of one user, and of all but root.
const (
	userLaunches, maxLaunches = 512, 4096 // programs that are watched
	userRequests, maxRequests = 32, 128   // requests that are heard and carried out
)

// Server launches programs for ordinary users. It is part of the agent.
type Server struct {
	Store *store.Store
	// Apps is the present configuration.
	Apps func() ([]policy.App, error)
	// Confine makes programs strict apps'.
	Confine Confine
	// Self are program and arguments by which this program calls Child, without root;
	// nil means: this program, with ChildCommand.
	Self []string
	// Idle ends Serve when nothing that it started has run and nobody has asked
	// for this long; 0 means never.
	Idle time.Duration

	spare spare

	launches, requests linux.Crowd
	counting           sync.Mutex // of the records
	mostRecords        int        // 0 for maxRecords

	orderTime time.Duration // of one launch, 0 for orderTime
}

// ChildCommand is the hidden command of sealant that calls Child.
const ChildCommand = "launch-child"

// Status is how a program ended.
type Status struct {
	Code   int // exit code, 0 if a signal ended it
	Signal int // 0 if it exited
}

// ExitCode is the status as a shell has it: 128 + the signal's number.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + s.Signal
	}
	return s.Code
}

// Listen opens the socket for launches; everybody may connect.
func Listen(st *store.Store) (*net.UnixListener, error) {
	path := st.LaunchSocketPath()
	if err := os.MkdirAll(st.RunDir(), 0o755); err != nil {
		return nil, fmt.Errorf("cannot listen for launches: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot listen for launches: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for launches: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot listen for launches: %w", err)
	}
	return l, nil
}

// inheritedFD is the first descriptor that systemd hands over (sd_listen_fds(3)).
const inheritedFD = 3

// Inherited is the socket for launches that systemd listens on for this process.
func Inherited() (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, fault.New(fault.Usage, "cannot listen for launches: no socket was handed over").Hint("systemctl start sealant-launch.socket")
	}
	f := os.NewFile(inheritedFD, "launch.sock")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for launches: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fault.New(fault.Usage, "cannot listen for launches: what was handed over is no Unix socket")
	}
	// systemd made the socket and takes it away.
	u.SetUnlinkOnClose(false)
	return u, nil
}

// Serve answers launches until ctx ends. What was launched goes on.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	if s.mostRecords == 0 {
		s.mostRecords = maxRecords
	}
	if s.orderTime == 0 {
		s.orderTime = orderTime
	}
	s.launches.Each, s.launches.All = userLaunches, maxLaunches
	s.requests.Each, s.requests.All = userRequests, maxRequests
	defer s.spare.end()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		if s.Idle > 0 {
			if err := l.SetDeadline(time.Now().Add(s.Idle)); err != nil {
				return fmt.Errorf("cannot accept a launch: %w", err)
			}
		}
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if s.launches.Empty() {
				return nil
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot accept a launch: %w", err)
		}
		peer, err := linux.PeerOf(conn)
		if err != nil {
			conn.Close()
			continue
		}
		leave, ok := s.launches.Enter(peer.User.UID)
		if !ok {
			peer.Close()
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer leave()
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			s.handle(ctx, conn, peer)
		})
	}
}

// handle serves one caller. Errors go to the caller, who asked.
func (s *Server) handle(ctx context.Context, conn *net.UnixConn, peer *linux.Peer) {
	child, detached, err := s.launch(ctx, conn, peer)
	if err != nil {
		f := describe(err)
		_ = say(conn, answer{Failed: &f})
		return
	}
	// What was asked for goes first; it may have ended before there is time for more.
	fill := time.AfterFunc(fillTime, func() { s.spare.fill(s) })
	if err := say(conn, answer{Started: child.cmd.Process.Pid}, child.handle.File()); err != nil && !detached {
		child.hangUp()
	}
	// Only now, with the handle handed over, may the end of the program close it.
	ended := make(chan Status, 1)
	go func() {
		defer child.handle.Close()
		ended <- child.wait()
	}()
	// The caller says nothing more; if it is gone its program is told, as it
	// would be by a terminal.
	go func() {
		var b [1]byte
		_, err := conn.Read(b[:])
		if err != nil && !detached && !errors.Is(err, net.ErrClosed) {
			child.hangUp()
		}
	}()
	select {
	case status := <-ended:
		_ = say(conn, answer{Ended: &status})
		fill.Reset(restTime)
	case <-ctx.Done():
	}
}

// say sends an answer.
func say(conn linux.Conn, a answer, files ...*os.File) error {
	data, err := a.message()
	if err != nil {
		return err
	}
	return linux.Send(conn, data, files...)
}

// launch hears what the caller wants, and starts it.
func (s *Server) launch(ctx context.Context, conn *net.UnixConn, peer *linux.Peer) (c *child, detached bool, err error) {
	defer peer.Close()
	leave, ok := s.requests.Enter(peer.User.UID)
	if !ok {
		return nil, false, fault.New(fault.Busy, "cannot launch: too many programs are being launched").Hint("try again")
	}
	defer leave()
	if err := conn.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return nil, false, err
	}
	data, files, err := linux.Receive(conn, maxRequest)
	if err != nil {
		return nil, false, fmt.Errorf("cannot hear the request: %w", err)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, err
	}
	r, err := readRequest(data)
	if err != nil {
		return nil, false, err
	}
	who, h, err := examine(peer)
	if err != nil {
		return nil, false, err
	}
	defer h.close()
	if len(files) != 3 {
		return nil, false, fault.New(fault.Usage, "cannot launch: three standard streams must come with the request")
	}
	apps, err := s.Apps()
	if err != nil {
		return nil, false, err
	}
	p, err := Resolve(apps, r.App, r.Args)
	if err != nil {
		return nil, false, err
	}
	p.Env, p.Dir = r.Env, r.Dir
	if err := s.makeRoom(); err != nil {
		return nil, false, err
	}
	o := order{Program: p, Session: true, Terminal: r.Terminal, Caller: who}
	c, err = s.start(ctx, o, [3]*os.File(files), h)
	return c, r.Detached, err
}

// settled is how old a record is at least that is given up before its time: at the
// moment at which a program takes over its process, that looks like one that ended.
const settled = 10 * time.Second

// makeRoom keeps the records of launches from filling /run, whoever launches however
// often. Those of programs that have ended are given up before their time.
func (s *Server) makeRoom() error {
	s.counting.Lock()
	defer s.counting.Unlock()
	for _, again := range []bool{true, false} {
		n, err := count(s.Store)
		if err != nil || n < s.mostRecords {
			return err
		}
		if !again {
			break
		}
		if err := Prune(s.Store, time.Now().Add(-settled)); err != nil {
			return err
		}
	}
	return fault.New(fault.Busy, "cannot launch: the records of %d that run are all that there is room for", s.mostRecords)
}

// refuse is the answer to a caller whose confinement can't be handed on.
func refuse(why string) error {
	return fault.New(fault.Policy, "cannot launch for this caller: %s", why).
		Hint("start the app from outside the sandbox, or restart the device")
}

// examine asks the kernel who the caller is and what confines it. Whoever is
// confined by something that can't be handed on would escape it by launching:
// so it is refused.
//
// The namespaces are opened before the process is looked at: one that is
// ordinary after that was in them with no more rights than it has now. In the
// other order it could, in between, let a set-user-id sandbox build a namespace
// for it, in which no set-user-id program must ever run.
func examine(peer *linux.Peer) (*caller, *held, error) {
	p, err := linux.OpenProcess(peer.PID)
	if err != nil {
		return nil, nil, err
	}
	defer p.Close()
	h := &held{handle: peer.Handle()}
	if h.spaces, err = p.OpenNamespaces(); err != nil {
		return nil, nil, err
	}
	c, err := h.examine(p, peer)
	if err != nil {
		h.close()
		return nil, nil, err
	}
	return c, h, nil
}

// close gives the namespaces back; the handle is the peer's.
func (h *held) close() {
	for _, f := range h.spaces {
		f.Close()
	}
}

func (h *held) examine(p *linux.Process, peer *linux.Peer) (*caller, error) {
	st, err := ordinary(p, peer.User)
	if err != nil {
		return nil, err
	}
	same, err := p.SameNamespaces("user", "pid")
	if err != nil {
		return nil, err
	}
	if !same || st.InnerNamespace {
		return nil, refuse("it lives in a container")
	}
	label, err := nextLabel(p)
	if err != nil {
		return nil, err
	}
	// What was read by number was the caller's if the caller still lives.
	if h.handle.Ended() {
		return nil, refuse("it has ended")
	}
	return &caller{PID: peer.PID, User: peer.User, Bounding: st.Bounding, Umask: st.Umask, Label: label}, nil
}

// ordinary says whether the process runs as the user and nobody else, and is
// not sandboxed. (Landlock and unprivileged system call filters imply
// no_new_privs.)
func ordinary(p *linux.Process, user linux.User) (linux.Status, error) {
	st, err := p.Status()
	u, g := user.UID, user.GID
	switch {
	case err != nil:
		return st, err
	case st.UID != [4]int{u, u, u, u} || st.GID != [4]int{g, g, g, g}:
		return st, refuse("its user or group is in transition")
	case st.NoNewPrivs:
		return st, refuse("it is sandboxed (no_new_privs)")
	case st.Seccomp:
		return st, refuse("it is sandboxed (a system call filter)")
	}
	return st, nil
}

// nextLabel is the label to take on for the caller. An SELinux label can be
// handed on; a caller under an AppArmor profile is refused.
func nextLabel(p *linux.Process) (string, error) {
	label, err := p.Label()
	if err != nil || label == "" {
		return "", err
	}
	if strings.Count(label, ":") >= 3 {
		return label, nil
	}
	return "", refuse("it is confined by " + label)
}

func (c *child) hangUp() {
	_ = c.handle.Signal(syscall.SIGHUP)
	_ = c.handle.Signal(syscall.SIGCONT)
}
