package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
)

// device is a pretend device kept in a folder:
//
//	os/       its operating system: os/usr is laid over this machine's /usr
//	etc/      laid over /etc; etc/sealant is the device's configuration
//	var/      laid over /var/lib, only to have a place for state/ to stand
//	state/    /var/lib/sealant
//	work/     what overlayfs wants for itself
//	init.pid  the process that holds the namespaces while the device is up
//	console   what the device printed while it booted
type device struct{ dir string }

// mark is the environment variable by which the device's processes are known,
// wherever they were started from.
const mark = "SEALANT_LAB"

func openDevice(dir string) (*device, error) {
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Failed, "cannot run a pretend device: it needs root (mount namespaces)").Hint("run it with sudo")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &device{dir: abs}, nil
}

func (d *device) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// make lays out a new device's folder around the operating system in
// d.path("os"), and configures its server.
func (d *device) make(hostname, server string) error {
	for _, sub := range []string{"os/usr/lib/cryptexes", "etc/sealant", "var/sealant", "state", "work/etc", "work/var"} {
		if err := os.MkdirAll(d.path(sub), 0o755); err != nil {
			return fmt.Errorf("cannot make the device: %w", err)
		}
	}
	files := map[string]string{
		"etc/hostname":   hostname + "\n",
		"etc/os-release": "NAME=ExampleOS\nID=exampleos\nVERSION_ID=42.3\nPRETTY_NAME=\"ExampleOS 42.3\"\n",
	}
	if server != "" {
		files["etc/sealant/agent.toml"] = fmt.Sprintf("[server]\nurl = %q\n", server)
	}
	for path, text := range files {
		if err := os.WriteFile(d.path(path), []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot make the device: %w", err)
		}
	}
	return nil
}

// pid is the init process of a device that is up, 0 if it is down.
func (d *device) pid() int {
	raw, err := os.ReadFile(d.path("init.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || !d.owns(pid) {
		return 0
	}
	return pid
}

// owns says whether a process belongs to this device.
func (d *device) owns(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"="+d.dir+"\x00"))
}

// processes lists every living process of the device but its init.
func (d *device) processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() && pid != d.pid() && d.owns(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// boot starts the device and returns when it has come up, with what it printed.
func (d *device) boot() (string, error) {
	if d.pid() != 0 {
		return "", fault.New(fault.Busy, "cannot boot %s: it is up", d.dir).Hint("sealant-lab down %s", d.dir)
	}
	console, err := os.Create(d.path("console"))
	if err != nil {
		return "", fmt.Errorf("cannot boot: %w", err)
	}
	defer console.Close()
	ready, told, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer ready.Close()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self, "init", d.dir)
	cmd.Env = d.environ()
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{told}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS, Setsid: true}
	err = cmd.Start()
	told.Close()
	if err != nil {
		return "", fmt.Errorf("cannot boot: %w", err)
	}
	go cmd.Wait() // reaps init when it ends before this program does
	if err := os.WriteFile(d.path("init.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return "", err
	}
	line, _ := bufio.NewReader(ready).ReadString('\n')
	printed, _ := os.ReadFile(d.path("console"))
	if strings.TrimSpace(line) != "up" {
		return string(printed), fault.New(fault.Failed, "the device did not come up: %s", strings.TrimSpace(line)).Hint("see %s", d.path("console"))
	}
	return string(printed), nil
}

// down ends every process of the device, as a power switch would after a
// moment's grace; its mounts go with the last of them.
func (d *device) down() error {
	init := d.pid()
	for _, pid := range d.processes() {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	deadline := time.Now().Add(3 * time.Second)
	for len(d.processes()) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	d.cut()
	if init != 0 {
		syscall.Kill(init, syscall.SIGKILL)
	}
	for init != 0 && syscall.Kill(init, 0) == nil && d.owns(init) {
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.Remove(d.path("init.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// cut kills the device's processes at once: a power cut.
func (d *device) cut() {
	for _, pid := range d.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for len(d.processes()) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// command prepares a command to run on the device, as root at its console.
func (d *device) command(args ...string) (*exec.Cmd, error) {
	pid := d.pid()
	if pid == 0 {
		return nil, fault.New(fault.Failed, "cannot run on %s: it is down", d.dir).Hint("sealant-lab boot %s", d.dir)
	}
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(pid), "--mount", "--uts", "--"}, args...)...)
	cmd.Env = d.environ()
	cmd.Dir = "/"
	return cmd, nil
}

func (d *device) environ() []string {
	self, _ := os.Executable()
	env := []string{
		mark + "=" + d.dir,
		"PATH=" + filepath.Dir(self) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "USER=root",
	}
	if term := os.Getenv("TERM"); term != "" {
		env = append(env, "TERM="+term)
	}
	return env
}

// copyTree copies a folder with everything in it, keeping modes and links.
func copyTree(from, to string) error {
	out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot copy %s: %s", from, bytes.TrimSpace(out))
	}
	return nil
}
