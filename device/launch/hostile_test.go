package launch

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// takeTerminal asks for a program whose controlling terminal is one that this
// process may only write to.
func takeTerminal(st *store.Store) error {
	user, program, err := linux.OpenTerminal()
	if err != nil {
		return err
	}
	defer user.Close()
	name := program.Name()
	program.Close()
	writable, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	data, err := request{Args: []string{"/bin/true"}, Dir: "/", Terminal: 1}.message()
	if err != nil {
		return err
	}
	conn, err := dial(st)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := linux.Send(conn, data, os.Stdin, writable, os.Stderr); err != nil {
		return err
	}
	_, _, err = hear(conn)
	return err
}

// A controlling terminal can be read by /dev/tty. So who may only write to a terminal
// must not get it as one, by the agent neither.
func TestTerminalThatMayNotBeRead(t *testing.T) {
	d, _ := booted(t)
	agent(t, d)
	text, code := output(t, nobody(as("take-terminal", d)))
	if code != 200 || !strings.Contains(text, "cannot take the terminal") {
		t.Errorf("%d %q", code, text)
	}
}

// A caller can make the process that is to become its program stand still: by a frozen
// control group, or a file system of its own that does not answer. Such a launch is
// given up.
func TestChildThatStandsStill(t *testing.T) {
	d, _ := booted(t)
	s := &Server{Apps: func() ([]policy.App, error) { return nil, nil }, orderTime: 100 * time.Millisecond}
	s.Confine = func(program linux.Pidfd, _ bool, _ linux.Pidfd) error { return program.Signal(syscall.SIGSTOP) }
	stop := serve(t, d, s)
	text, code := output(t, nobody(as("run-by-agent", d, "/bin/true")))
	if code != 200 || !strings.Contains(text, "did not become the program in time") {
		t.Errorf("%d %q", code, text)
	}
	s.orderTime = time.Hour
	cmd := nobody(as("run-by-agent", d, "/bin/true"))
	must(t, cmd.Start())
	defer cmd.Wait()
	eventually(t, "its request is carried out", func() bool { return !s.requests.Empty() })
	stop() // returns
	if list, err := List(d.Store); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
}
