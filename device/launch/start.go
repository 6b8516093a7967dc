package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// process is a child that this program must wait for.
type process = exec.Cmd

// start runs this program again, which becomes what the order says. When it
// returns without an error the program has been executed.
func start(self []string, o order, streams [3]*os.File, caller []*os.File) (*child, error) {
	if err := o.Program.check(); err != nil {
		return nil, err
	}
	if self == nil {
		self = []string{"/proc/self/exe", ChildCommand}
	}
	data, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	paper, err := linux.Memory("order", data)
	if err != nil {
		return nil, err
	}
	defer paper.Close()
	status, told, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	defer status.Close()
	defer told.Close()

	cmd := exec.Command(self[0], self[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams[0], streams[1], streams[2]
	cmd.ExtraFiles = append([]*os.File{paper, told}, caller...)
	cmd.Env = []string{} // nothing of the agent's, and nothing of the caller's yet
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	told.Close()
	c := &child{cmd: cmd}
	if c.handle, err = linux.OpenPidfd(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	// The other end closes when the program is executed.
	said, err := io.ReadAll(io.LimitReader(status, maxRecord))
	if err == nil && len(said) == 0 {
		return c, nil
	}
	defer c.handle.Close()
	if err != nil {
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait()
	_ = os.Remove(filepath.Join(store.Below(o.Root).LaunchDir(), recordName(cmd.Process.Pid)))
	var f failure
	if err == nil {
		if err = json.Unmarshal(said, &f); err == nil {
			return nil, f.err()
		}
	}
	return nil, fmt.Errorf("cannot launch: the child did not say why it failed: %w", err)
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
func Start(st *store.Store, self []string, p Program) (*Started, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot launch: %w", err)
	}
	defer null.Close()
	c, err := start(self, order{Root: st.Root(), Program: p, Session: true, Terminal: -1}, [3]*os.File{null, null, null}, nil)
	if err != nil {
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
