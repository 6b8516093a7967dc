package vm

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A frozen machine is one that has booted, was stopped while its agent waited
// for a word on the console, and is saved: its memory in one file and its root
// disk, as it was then, in another.

// freezing is the word on the kernel's command line that makes the agent wait.
const freezing = "sealant-vm.freeze"

type frozen struct {
	root, state, words string
}

func (m *Image) frozen(b Boot) frozen {
	name, words := "systemd", quiet+" "+freezing
	if b == ResumedBare {
		name, words = "bare", words+" "+bareInit
	}
	// What was saved with other hardware or other words is another machine.
	sum := sha256.Sum256(fmt.Appendln(nil, words, hardware(defaultMemory, "", "", "x", false)))
	base := filepath.Join(m.dir, fmt.Sprintf("%s-%x", name, sum[:4]))
	return frozen{base + ".ext4", base + ".state", words}
}

// freeze boots the machine and saves it, unless that has been done.
func (m *Image) freeze(t testing.TB, b Boot) {
	t.Helper()
	defer lock(t, m.dir+".lock")()
	saved := m.frozen(b)
	if _, err := os.Stat(saved.state); err == nil {
		return
	}
	defer turn(t)()
	for tries := 1; ; tries++ {
		console, err := m.freezeOnce(t, saved)
		if err == nil {
			return
		}
		if tries == maxTries || !misfired(console) {
			t.Fatal(err)
		}
	}
}

func (m *Image) freezeOnce(t testing.TB, saved frozen) (said string, err error) {
	began := time.Now()
	dir := t.TempDir()
	exchange, data, control := filepath.Join(dir, "xchg"), filepath.Join(dir, "data"), filepath.Join(dir, "qmp")
	if err := errors.Join(copySparse(m.rootDisk(), saved.root), newExchange(exchange, filepath.Join(dir, "in"), nil, ""), empty(data)); err != nil {
		return "", err
	}
	var run machine
	args := append(hardware(defaultMemory, saved.root, exchange, data, false),
		"-kernel", m.Kernel(), "-initrd", m.Initrd(), "-append", saved.words, "-qmp", "unix:"+control+",server=on,wait=off")
	if err := run.start(args); err != nil {
		return "", err
	}
	defer func() {
		run.kill()
		said = run.console.text()
	}()
	select {
	case <-run.console.said("sealant-vm: frozen"):
	case err := <-run.done:
		run.done <- err
		return "", fmt.Errorf("the machine ended while booting (%v)\n%s", err, run.console.text())
	case <-time.After(patience):
		return "", fmt.Errorf("the machine did not come up\n%s", run.console.text())
	}
	if err := save(control, saved.state+".new"); err != nil {
		return "", fmt.Errorf("cannot save the machine: %w\n%s", err, run.console.text())
	}
	t.Logf("saved a booted machine in %.0f s", time.Since(began).Seconds())
	return "", os.Rename(saved.state+".new", saved.state)
}

// save asks qemu, over its control socket (QMP), to write a machine's memory
// into a file and to end.
func save(control, state string) error {
	conn, err := net.Dial("unix", control)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	in := json.NewDecoder(bufio.NewReader(conn))
	ask := func(command string, arguments any) (json.RawMessage, error) {
		request := map[string]any{"execute": command}
		if arguments != nil {
			request["arguments"] = arguments
		}
		if err := json.NewEncoder(conn).Encode(request); err != nil {
			return nil, err
		}
		for {
			var answer struct {
				Return json.RawMessage `json:"return"`
				Error  *struct {
					Desc string `json:"desc"`
				} `json:"error"`
			}
			if err := in.Decode(&answer); err != nil {
				return nil, err
			}
			switch {
			case answer.Error != nil:
				return nil, fmt.Errorf("%s: %s", command, answer.Error.Desc)
			case answer.Return != nil:
				return answer.Return, nil
			}
			// A greeting or an event.
		}
	}
	if _, err := ask("qmp_capabilities", nil); err != nil {
		return err
	}
	if _, err := ask("migrate-set-parameters", map[string]any{"max-bandwidth": 100 << 30}); err != nil {
		return err
	}
	if _, err := ask("migrate", map[string]any{"uri": "exec:cat>" + state}); err != nil {
		return err
	}
	for {
		answer, err := ask("query-migrate", nil)
		if err != nil {
			return err
		}
		var now struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(answer, &now); err != nil {
			return err
		}
		switch now.Status {
		case "completed":
			_, err := ask("quit", nil)
			return err
		case "failed", "cancelled":
			return fmt.Errorf("migration %s", now.Status)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
