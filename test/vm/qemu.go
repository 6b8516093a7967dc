package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// quiet is the kernel's command line for every machine.
// Translated code is slow at odd moments: the kernel is told to believe its
// clocks all the same.
const quiet = "console=ttyS0 quiet panic=-1 apparmor=0 selinux=0 audit=0 tsc=reliable no_timer_check nmi_watchdog=0"

// agent is the program that runs a test's script; as process 1 it is the whole
// of userspace.
const bareInit = "init=/usr/lib/sealant-vm/agent"

// firmware is OVMF, as Debian's package ovmf installs it, with keys that a
// test can sign with.
const (
	firmware     = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
)

// machine is one run of qemu.
type machine struct {
	run     *exec.Cmd
	serial  io.WriteCloser // what the guest reads from its console
	console *console
	done    chan error
}

// defaultMemory is what a machine has, in MiB.
const defaultMemory = 1024

// patience is how long a machine may take to come up, or to run a script: it
// only ends what hangs, also on a host that has no time for it.
const patience = 20 * time.Minute

// maxTries is how often a machine is started whose boot misfires.
const maxTries = 4

// misfired says whether qemu, not the guest, was at fault: on a busy host it
// sometimes runs a breakpoint that the kernel puts where it patches its own
// code while booting, after the kernel has taken it away again.
func misfired(console string) bool { return strings.Contains(console, "Oops: int3") }

// ending is how a machine's run ended.
type ending struct {
	console string
	cut     bool
}

// hardware lists qemu's arguments for a machine with these disks. They must be
// the same when a machine is saved and when it goes on.
func hardware(memory int, root, exchange, data string, scratch bool) []string {
	disk := func(id, file string, scratch bool) []string {
		return []string{
			"-drive", fmt.Sprintf("if=none,id=%s,file=%s,format=raw,cache=unsafe,snapshot=%s", id, file, map[bool]string{true: "on", false: "off"}[scratch]),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", id, id),
		}
	}
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(memory), "-M", "q35",
		"-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio", "-device", "virtio-rng-pci",
	}
	args = append(args, disk("root", root, scratch)...)
	args = append(args, disk("xchg", exchange, false)...)
	if data != "" {
		args = append(args, disk("data", data, false)...)
	}
	return args
}

// start runs the machine to its end. Temporary files go into dir.
func (o Options) start(dir, exchange string) (ending, error) {
	m, image := &machine{}, o.Image
	kernel, initrd, memory := image.Kernel(), image.Initrd(), defaultMemory
	if o.Kernel != "" {
		kernel = o.Kernel
	}
	if o.Initrd != "" {
		initrd = o.Initrd
	}
	if o.Memory != 0 {
		memory = o.Memory
	}
	words := quiet + " " + o.Append
	if o.Boot == Bare {
		words += " " + bareInit
	}
	var args []string
	if o.Boot <= ResumedBare {
		saved := image.frozen(o.Boot)
		data := o.Data
		if data == "" {
			data = filepath.Join(dir, "data") // the saved machine has one
			if err := empty(data); err != nil {
				return ending{}, err
			}
		}
		args = append(hardware(memory, saved.root, exchange, data, true), "-incoming", "exec:cat "+saved.state)
		words = saved.words
	} else {
		root, scratch := image.rootDisk(), true
		if o.Disk != "" {
			root, scratch = o.Disk, false
		}
		args = hardware(memory, root, exchange, o.Data, scratch)
	}
	args = append(args, "-kernel", kernel, "-initrd", initrd, "-append", words)
	if o.TPM != "" {
		more, stop, err := tpm(o.TPM, dir)
		if err != nil {
			return ending{}, err
		}
		defer stop()
		args = append(args, more...)
	}
	if o.EFI != "" {
		if err := copyNew(firmwareVars, o.EFI); err != nil {
			return ending{}, err
		}
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+firmware, "-drive", "if=pflash,unit=1,format=raw,file="+o.EFI)
	}
	if err := m.start(append(args, o.Args...)); err != nil {
		return ending{}, err
	}
	defer m.kill()
	if o.Boot <= ResumedBare {
		go m.wake()
	}
	return m.wait(o)
}

// wait waits for the machine's end, or for the moment of a power cut.
func (m *machine) wait(o Options) (ending, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	var cut <-chan time.Time
	said := m.console.said(o.Cut.At)
	if o.Cut.At == "" {
		said = nil
	}
	for {
		select {
		case err := <-m.done:
			m.done <- err
			if err != nil {
				return ending{console: m.console.text()}, fmt.Errorf("qemu failed: %w", err)
			}
			text := m.console.text()
			return ending{console: text, cut: o.Cut.At != "" && strings.Contains(text, strings.TrimSpace(o.Cut.At))}, nil
		case <-said:
			said, cut = nil, time.After(o.Cut.After)
		case <-cut:
			m.kill()
			return ending{console: m.console.text(), cut: true}, nil
		case <-timeout.C:
			m.kill()
			return ending{console: m.console.text()}, fmt.Errorf("the machine did not end within %s", patience)
		}
	}
}

func (m *machine) start(args []string) error {
	m.console, m.done = &console{}, make(chan error, 1)
	m.run = exec.Command("qemu-system-x86_64", args...)
	m.run.Stdout, m.run.Stderr = m.console, m.console
	var err error
	if m.serial, err = m.run.StdinPipe(); err != nil {
		return err
	}
	return bound(m.run, func(err error) { m.done <- err })
}

// bound starts a program that ends with this process, however that ends, and
// tells when it has.
func bound(run *exec.Cmd, ended func(error)) error {
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes at the end of the thread that started the program.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := run.Start()
		started <- err
		if err == nil {
			ended(run.Wait())
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cannot start %s: %w", run.Path, err)
	}
	return nil
}

// wake tells a saved machine that goes on the time of day, until it has heard.
func (m *machine) wake() {
	heard := m.console.said("sealant-vm: goes on")
	for {
		if _, err := fmt.Fprintf(m.serial, "go %d on\n", time.Now().Unix()); err != nil {
			return // it has ended
		}
		select {
		case <-heard:
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// kill cuts the power.
func (m *machine) kill() {
	_ = m.run.Process.Kill()
	err := <-m.done
	m.done <- err
}

// tpm starts a TPM that keeps its state in a folder, and returns qemu's
// arguments for it.
func tpm(state, dir string) (args []string, stop func(), err error) {
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, nil, err
	}
	socket := filepath.Join(dir, "tpm")
	run := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var said bytes.Buffer
	run.Stdout, run.Stderr = &said, &said
	ended := make(chan struct{})
	if err := bound(run, func(error) { close(ended) }); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = run.Process.Kill()
		<-ended
	}
	for range 100 {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			// swtpm serves one connection after the other.
			return []string{"-chardev", "socket,id=tpm,path=" + socket, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"}, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return nil, nil, fmt.Errorf("swtpm does not answer: %s", said.Bytes())
}

// empty makes a sparse file of DataSize bytes.
func empty(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(DataSize), f.Close())
}

// copyNew copies a file unless there is one.
func copyNew(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("cannot read the firmware (Debian's package ovmf): %w", err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// console collects what a machine says and tells who waits for words.
type console struct {
	mu    sync.Mutex
	all   bytes.Buffer
	waits []wait
}

type wait struct {
	words string
	heard chan struct{}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.Write(p)
	c.tell()
	return len(p), nil
}

func (c *console) tell() {
	open := c.waits[:0]
	for _, w := range c.waits {
		if bytes.Contains(c.all.Bytes(), []byte(w.words)) {
			close(w.heard)
		} else {
			open = append(open, w)
		}
	}
	c.waits = open
}

// said is closed when the machine has said the words.
func (c *console) said(words string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := wait{words, make(chan struct{})}
	c.waits = append(c.waits, w)
	c.tell()
	return w.heard
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(c.all.String(), "\r", "")
}
