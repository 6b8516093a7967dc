// Watch is what a test runs in a virtual machine: it follows the journal of
// systemd-coredump, has a program crash in a mount namespace of its own, and prints
// what it was told.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/sealant-os/sealant/internal/exits"
	"github.com/sealant-os/sealant/internal/linux"
)

func main() {
	dumps, err := exits.OpenDumps()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	time.Sleep(3 * time.Second) // until journalctl follows
	// Somebody who is no systemd-coredump claims a crash.
	exec.Command("sh", "-c", "printf 'MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1\\nCOREDUMP_PID=1\\nCOREDUMP_SIGNAL=11\\nCOREDUMP_TIMESTAMP=1\\nMESSAGE=no\\n' | logger --journald").Run()
	began := linux.Monotonic()
	cmd := exec.Command("unshare", "-m", "sh", "-c", "mkdir -p /tmp/seen; mount -t tmpfs here /tmp/seen; kill -SEGV $$")
	crash := cmd.Run()
	e, err := dumps.Read()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	out, err := json.Marshal(map[string]any{
		"crash": fmt.Sprint(crash), "same": e.PID == cmd.Process.Pid, "signal": e.Signal.String(), "exe": e.Dump.Executable,
		"mounts": e.Dump.Mounts, "late": (e.At - began).Seconds(), "lost": dumps.Lost(),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(out))
}
