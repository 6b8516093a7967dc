package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// process is a child that this program must wait for.
type process = exec.Cmd

// child is a process that waits for its order or, having had it, is a program.
type child struct {
	cmd     *process
	handle  linux.Pidfd
	channel *net.UnixConn // nil when it has had its order
}

// prepare runs this program again, as a process that waits for its order. It has
// nothing of a caller's, and nothing of ours but the rights of root.
func prepare(st *store.Store, self []string) (*child, error) {
	if self == nil {
		self = []string{"/proc/self/exe", ChildCommand}
	}
	ours, theirs, err := channelPair()
	if err != nil {
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	defer theirs.Close()
	cmd := exec.Command(self[0], append(slices.Clone(self[1:]), st.Root())...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = []string{"GOMAXPROCS=1"} // it does one thing; the program gets its own environment
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	c := &child{cmd: cmd, channel: ours}
	if c.handle, err = linux.OpenPidfd(cmd.Process.Pid); err != nil {
		c.channel.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return c, nil
}

// channelPair is a child's channel: our end, and the one that it gets.
func channelPair() (ours *net.UnixConn, theirs *os.File, err error) {
	a, b, err := linux.SocketPair()
	if err != nil {
		return nil, nil, err
	}
	defer a.Close() // the connection has a descriptor of its own
	conn, err := net.FileConn(a)
	if err != nil {
		b.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), b, nil
}

// errUnheard is the end of a child that has not heard its order.
var errUnheard = errors.New("cannot launch: the process that was to become the program has ended")

// orderTime is how long a child may take to become the program. The caller's control
// group, and the file systems that its program and folder are on, can make it stand
// still.
const orderTime = 30 * time.Second

// order makes a child the program. When it returns without an error the program has
// been executed; else the child has ended, or is about to where it stands still when
// ctx ends.
func (c *child) order(ctx context.Context, st *store.Store, o order, confine Confine, streams [3]*os.File, h *held) error {
	stop := context.AfterFunc(ctx, func() { _ = c.channel.SetDeadline(time.Unix(1, 0)) })
	err := c.give(o, confine, streams, h)
	stop()
	c.channel.Close()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		go c.end(st)
		return errors.New("cannot launch: the process did not become the program in time")
	}
	c.end(st)
	return err
}

// end ends a child that failed, and takes away what it may have left.
func (c *child) end(st *store.Store) {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.handle.Close()
	_ = os.Remove(filepath.Join(st.LaunchDir(), recordName(c.cmd.Process.Pid)))
}

func (c *child) give(o order, confine Confine, streams [3]*os.File, h *held) error {
	if err := o.Program.check(); err != nil {
		return err
	}
	data, err := o.message()
	if err != nil {
		return err
	}
	files := streams[:]
	var caller linux.Pidfd
	if h != nil {
		caller = h.handle
		files = append(append(files, h.handle.File()), h.spaces...)
	}
	// Before the child can execute anything.
	if err := confine(c.handle, o.Program.Strict, caller); err != nil {
		return err
	}
	if err := linux.Send(c.channel, data, files...); err != nil {
		return errors.Join(errUnheard, err)
	}
	said, _, err := linux.Receive(c.channel, maxRecord)
	switch {
	case errors.Is(err, io.EOF): // the other end closes when the program is executed
		return nil
	case errors.Is(err, syscall.ECONNRESET): // it was there still when the child ended
		return errors.Join(errUnheard, err)
	case err != nil:
		return fmt.Errorf("cannot launch: %w", err)
	}
	a, err := readAnswer(said)
	if err == nil && a.Failed == nil {
		err = errors.New("it was to say why it failed")
	}
	if err != nil {
		return fmt.Errorf("cannot launch: %w", err)
	}
	return a.Failed.err()
}

// dismiss ends a child that was not asked to become anything.
func (c *child) dismiss() {
	c.channel.Close()
	_ = c.cmd.Wait()
	c.handle.Close()
}

// wait waits for the program's end.
func (c *child) wait() Status {
	_ = c.cmd.Wait()
	ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return Status{Code: 1}
	case ws.Signaled():
		return Status{Signal: int(ws.Signal())}
	}
	return Status{Code: ws.ExitStatus()}
}

// Started is a program that goes on by itself.
type Started struct {
	PID   int
	ended chan Status
}

// Start launches a program in the background, as root: in a session of its
// own, without input and output. self is as in Server.
func Start(st *store.Store, self []string, confine Confine, p Program) (*Started, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	defer null.Close()
	c, err := prepare(st, self)
	if err != nil {
		return nil, err
	}
	o := order{Program: p, Session: true, Terminal: -1}
	ctx, cancel := context.WithTimeout(context.Background(), orderTime)
	defer cancel()
	if err := c.order(ctx, st, o, confine, [3]*os.File{null, null, null}, nil); err != nil {
		return nil, err
	}
	s := &Started{c.cmd.Process.Pid, make(chan Status, 1)}
	go func() {
		defer c.handle.Close()
		s.ended <- c.wait()
	}()
	return s, nil
}

// settleTime is how long a program that was started in the background is
// watched: one that fails at once is a failed launch.
const settleTime = 300 * time.Millisecond

// Settled watches a started program for a moment and says how it ended if it
// failed in that time.
func (s *Started) Settled(ctx context.Context) error {
	select {
	case status := <-s.ended:
		if status == (Status{}) {
			return nil
		}
		if status.Signal != 0 {
			return fmt.Errorf("cannot launch: the program was ended at once by signal %d (%v)", status.Signal, syscall.Signal(status.Signal))
		}
		return fmt.Errorf("cannot launch: the program ended at once with exit code %d", status.Code)
	case <-time.After(settleTime):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
