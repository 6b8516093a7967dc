package launch

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Request is what an ordinary user asks the agent to launch.
type Request struct {
	App      string   // id in apps.d, "" for a plain command
	Args     []string // see Resolve
	Env      []string
	Dir      string // absolute
	Detached bool   // without input and output; it goes on when the caller ends
}

// forwarded are the signals that a caller passes on to its program.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGWINCH,
}

// Through launches a program through the agent and stays with it to its end:
// standard streams, signals and the terminal's size reach the program as if it
// were this process, whose own signals are caught from then on. A detached program is
// only started.
//
// Terminals: the agent's child can't have this process's controlling terminal,
// so it gets a pseudo terminal of its own, whose other side is shown here. In
// the background, and where no stream is a terminal, the streams are handed on
// as they are.
func Through(ctx context.Context, st *store.Store, r Request) (pid int, status Status, err error) {
	conn, err := dial(st)
	if err != nil {
		return 0, Status{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { linux.HangUp(conn) })
	defer stop()

	f, err := newFront(r.Detached)
	if err != nil {
		return 0, Status{}, err
	}
	defer f.restore()
	data, err := request{App: r.App, Dir: r.Dir, Terminal: f.terminal, Detached: r.Detached, Args: r.Args, Env: r.Env}.message()
	if err != nil {
		return 0, Status{}, err
	}
	if err := linux.Send(conn, data, f.streams[:]...); err != nil {
		return 0, Status{}, err
	}
	// While the agent is at work: it takes some time. A signal that comes before ends
	// this process, as it would a program that has only begun; the agent then hangs up
	// on the program. One that comes after waits until there is a program.
	if !r.Detached {
		signal.Notify(f.signals, forwarded...)
	}
	f.handOver()
	first, files, err := hear(conn)
	if err != nil {
		return 0, Status{}, err
	}
	if first.Started == 0 || len(files) != 1 {
		return 0, Status{}, errors.New("cannot launch: the agent's answer makes no sense")
	}
	handle := linux.PidfdOf(files[0])
	defer handle.Close()
	if r.Detached {
		return first.Started, Status{}, nil
	}
	go f.forward(handle)
	f.relay()
	last, _, err := hear(conn)
	if errors.Is(err, io.EOF) || err == nil && last.Ended == nil {
		return first.Started, Status{}, f.orphaned(ctx, handle)
	}
	if err != nil {
		return first.Started, Status{}, err
	}
	f.drain()
	return first.Started, *last.Ended, nil
}

func dial(st *store.Store) (*os.File, error) {
	conn, err := linux.Connect(st.LaunchSocketPath())
	if err != nil {
		return nil, fault.New(fault.Failed, "cannot launch: the agent doesn't answer (%w)", err).
			Hint("sudo systemctl start sealant-launch.socket")
	}
	return conn, nil
}

func hear(conn linux.Conn) (answer, []*os.File, error) {
	data, files, err := linux.Receive(conn, maxRecord)
	if err != nil {
		return answer{}, nil, err
	}
	a, err := readAnswer(data)
	if err == nil && a.Failed != nil {
		err = a.Failed.err()
	}
	return a, files, err
}

// front is the side of a launch that the person sees.
type front struct {
	streams  [3]*os.File
	terminal int // which stream is the program's terminal, -1 if none

	real  [3]*os.File // this process's own
	user  *os.File    // our side of the pseudo terminal, nil if there is none
	state *term.State // of the real terminal before
	shown chan struct{}

	signals chan os.Signal
}

func newFront(detached bool) (*front, error) {
	f := &front{terminal: -1, real: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, signals: make(chan os.Signal, 16)}
	f.streams = f.real
	if detached {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		f.streams = [3]*os.File{null, null, null}
		return f, nil
	}
	for i, s := range f.real {
		if f.terminal < 0 && linux.Terminal(s) && linux.Foreground(s) {
			f.terminal = i
		}
	}
	if f.terminal < 0 {
		return f, nil
	}
	user, program, err := linux.OpenTerminal()
	if err != nil {
		return nil, err
	}
	f.user, f.shown = user, make(chan struct{})
	_ = linux.CopyTerminalSize(f.real[f.terminal], user)
	for i, s := range f.real {
		if linux.Terminal(s) {
			f.streams[i] = program
		}
	}
	return f, nil
}

// handOver closes our copies of what the program alone should hold.
func (f *front) handOver() {
	closed := map[*os.File]bool{f.real[0]: true, f.real[1]: true, f.real[2]: true}
	for _, s := range f.streams {
		if !closed[s] {
			closed[s] = true
			s.Close()
		}
	}
}

// relay shows what the program writes to its terminal, and types what is typed.
func (f *front) relay() {
	if f.user == nil {
		return
	}
	if in := f.real[0]; linux.Terminal(in) {
		// From now on every key is the program's, also those that make signals.
		f.state, _ = term.MakeRaw(int(in.Fd()))
		go func() { _, _ = io.Copy(f.user, in) }()
	}
	out := f.real[1]
	if !linux.Terminal(out) {
		out = f.real[2]
	}
	go func() {
		defer close(f.shown)
		// It ends with an error when the last process lets go of the terminal.
		_, _ = io.Copy(out, f.user)
	}()
}

// drainTime is how long what the program wrote last may take to be shown, if
// its children keep the terminal open.
const drainTime = 200 * time.Millisecond

func (f *front) drain() {
	if f.user == nil {
		return
	}
	select {
	case <-f.shown:
	case <-time.After(drainTime):
	}
}

func (f *front) restore() {
	if f.state != nil {
		_ = term.Restore(int(f.real[0].Fd()), f.state)
	}
	if f.user != nil {
		f.user.Close()
	}
}

// forward passes signals on to the program.
func (f *front) forward(handle linux.Pidfd) {
	for sig := range f.signals {
		f.pass(sig.(syscall.Signal), handle)
	}
}

func (f *front) pass(sig syscall.Signal, handle linux.Pidfd) {
	switch {
	case sig == syscall.SIGWINCH && f.user != nil:
		_ = linux.CopyTerminalSize(f.real[f.terminal], f.user)
	case sig == syscall.SIGTSTP:
		// The program has no parent in its session that could wake it from a
		// stop by the terminal, so it gets one that it can't refuse.
		_ = handle.Signal(syscall.SIGSTOP)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	default:
		_ = handle.Signal(sig)
	}
}

// orphaned waits for a program whose agent has gone.
func (f *front) orphaned(ctx context.Context, handle linux.Pidfd) error {
	if err := handle.Wait(ctx); err != nil {
		return err
	}
	f.drain()
	return fault.New(fault.Undetermined, "the program has ended, but not how is known: the agent was restarted meanwhile")
}
