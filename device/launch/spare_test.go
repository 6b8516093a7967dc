package launch

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/device/policy"
)

// spareOf waits for the server's spare child.
func spareOf(t *testing.T, s *Server) (pid int) {
	t.Helper()
	eventually(t, "a child waits", func() bool {
		s.spare.mu.Lock()
		defer s.spare.mu.Unlock()
		if s.spare.child != nil {
			pid = s.spare.child.cmd.Process.Pid
		}
		return pid != 0
	})
	return pid
}

// Launches are carried out by the child that waits, one at a time, each followed by
// the next; and by another one where somebody has ended it.
func TestSpare(t *testing.T) {
	d, _ := booted(t)
	s := &Server{Apps: func() ([]policy.App, error) { return nil, nil }, Confine: free}
	stop := serve(t, d, s)
	self := func() int {
		t.Helper()
		text, code := output(t, nobody(as("run-by-agent", d, "/bin/sh", "-c", "echo $$")))
		pid, err := strconv.Atoi(strings.TrimSpace(text))
		if code != 0 || err != nil {
			t.Fatalf("%d %q", code, text)
		}
		return pid
	}
	self()
	for range 3 {
		pid := spareOf(t, s)
		// Started is told while exec still sets the program up: until then it has none.
		eventually(t, "it waits with its own environment", func() bool {
			env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
			return err == nil && string(env) == "GOMAXPROCS=1\x00"
		})
		if got := self(); got != pid {
			t.Errorf("%d became the program, %d waited", got, pid)
		}
	}
	pid := spareOf(t, s)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	if got := self(); got == pid {
		t.Error("a process that was killed became the program")
	}
	pid = spareOf(t, s)
	stop()
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("it still waits when the server has ended: %v", err)
	}
}
