// Package vm runs tests in a virtual machine: Debian trixie with a kernel that
// has device-mapper, dm-verity, BPF LSM and IPE, systemd, and (by swtpm) a
// TPM. It needs no KVM: qemu translates the guest's code, so an exec in the
// guest costs some 60 ms where the host needs 2; keep guest scripts small.
//
// Build makes the machine once and keeps it in a cache outside the work tree.
// Run gives it files on an exchange disk and a script, and returns what the
// script said, how it ended and what it left in /x/out:
//
//	r := vm.Run(t, vm.Options{}, vm.Files{"sealant": program}, `
//		/x/sealant status
//		cp /run/sealant/boot.json out/
//	`)
//	r.Code, r.Out, r.File(t, "boot.json")
//
// The script is a shell script that runs as root in /x, where the files are.
// What it prints to /dev/ttyS0 comes at once, and Options.Cut can wait for it
// to cut the power. $DATA is the device of the data disk.
//
// There are four ways to start, from the cheapest:
//
//	Resumed      a saved, booted machine goes on: systemd runs, nothing else is booted (3 s)
//	ResumedBare  the same without systemd: the script is process 1's (2 s)
//	Bare         the kernel starts and runs the script as process 1 (8 s)
//	Cold         systemd boots (20 s)
//
// A machine has 2 processors, 1 GiB of memory, no network but loopback, a root
// disk that forgets what is written unless Options.Disk keeps it, and a data
// disk when Options.Data names one. As many machines run at a time on a host as
// it has processors: a script keeps one busy.
//
// Tests that use it carry the build tag "slow" and live below test/vm.
package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Boot is a way to start a machine.
type Boot int

// The ways to start a machine.
const (
	Resumed Boot = iota
	ResumedBare
	Bare
	Cold
)

// Options is what a machine is started with. The zero value resumes the saved
// machine.
type Options struct {
	Boot  Boot
	Image *Image // nil: the standard machine

	// Data is the file of a data disk that keeps what is written, also when
	// the power is cut; NewDisk makes one. For a resumed machine it has
	// DataSize bytes.
	Data string

	// These need a boot, Bare or Cold.
	Disk           string   // the root disk's file, which keeps what is written; Image.NewRoot makes one. "": a scratch copy
	Kernel, Initrd string   // others than the image's
	Append         string   // words for the kernel's command line
	TPM            string   // folder of a TPM's state: a TPM 2.0 by swtpm (tpm-crb); made when there is none
	EFI            string   // file of the firmware's variables: UEFI by OVMF; made when there is none
	Args           []string // more arguments for qemu
	Memory         int      // MiB; 0: 1024
	Cut            Cut      // when to cut the power
}

// Cut is a moment for a power cut: the machine is killed when the time After
// has passed since it first wrote the words At to its console (/dev/ttyS0).
// What it had not yet written to its disks is lost. A machine that has said the
// words and ends by itself counts as cut too.
type Cut struct {
	At    string
	After time.Duration
}

// Files is what the exchange disk holds: name below /x to file or folder on
// the host.
type Files map[string]string

// Result is what came of a script.
type Result struct {
	Code    int    // the script's exit code; -1: it did not end
	Out     string // what it printed
	Console string // what the machine said on its console
	Dir     string // what the script left in /x/out
	Took    time.Duration
	Cut     bool // the power was cut before the script ended
}

// File is the content of a file that the script left in /x/out.
func (r *Result) File(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, name))
	if err != nil {
		t.Fatalf("the script left no such file: %s\n%s", err, r.Out)
	}
	return data
}

// Line is what the script printed after "NAME: " on the last line that begins
// so.
func (r *Result) Line(name string) string {
	found := ""
	for line := range strings.Lines(r.Out) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			found = strings.TrimSpace(rest)
		}
	}
	return found
}

// Proves says what a test has shown, when it ends well: make test-all prints it.
func Proves(t testing.TB, what string) {
	t.Cleanup(func() {
		if !t.Failed() {
			t.Logf("proved: %s", what)
		}
	})
}

// Run starts a machine, runs the script in it and waits for its end. It ends
// the test when the machine does not work; how the script ends is for the
// caller to judge.
func Run(t testing.TB, o Options, files Files, script string) *Result {
	t.Helper()
	if o.Image == nil {
		o.Image = Build(t)
	}
	if o.Boot <= ResumedBare && (o.Disk != "" || o.Kernel != "" || o.Initrd != "" || o.Append != "" || o.TPM != "" || o.EFI != "" || o.Memory != 0) {
		t.Fatal("a resumed machine is as it was saved: boot one (Bare or Cold)")
	}
	dir := t.TempDir()
	exchange := filepath.Join(dir, "xchg")
	must(t, newExchange(exchange, filepath.Join(dir, "in"), files, script))
	r := &Result{Code: -1, Dir: filepath.Join(dir, "out")}

	if o.Boot <= ResumedBare {
		o.Image.freeze(t, o.Boot)
	}
	defer turn(t)()
	var end ending
	var err error
	for range maxTries {
		began := time.Now()
		end, err = o.start(dir, exchange)
		r.Took, r.Cut, r.Console = time.Since(began), end.cut, end.console
		if !misfired(end.console) {
			break
		}
	}
	if err != nil {
		t.Fatalf("%s\n--- console ---\n%s", err, end.console)
	}
	must(t, readExchange(exchange, r))
	if r.Code == -1 && !r.Cut {
		t.Fatalf("the machine ended without an end of the script\n--- script's output ---\n%s\n--- console ---\n%s", r.Out, r.Console)
	}
	return r
}

// turn waits until one machine more may run on this host; the result gives the
// place back.
func turn(t testing.TB) func() {
	t.Helper()
	for {
		for n := range runtime.NumCPU() {
			f, err := os.OpenFile(filepath.Join(Cache(), fmt.Sprintf("turn-%d.lock", n)), os.O_RDWR|os.O_CREATE, 0o644)
			must(t, err)
			if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				return func() { f.Close() }
			}
			f.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// exchangeSize is the size of an exchange disk, in bytes. It is sparse.
const exchangeSize = 1 << 30

// newExchange makes the exchange disk.
func newExchange(path, staging string, files Files, script string) error {
	if err := os.MkdirAll(staging, 0o755); err != nil {
		return err
	}
	for name, from := range files {
		to := filepath.Join(staging, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		// Links where it can: programs and images are large.
		if out, err := exec.Command("cp", "-aL", "--reflink=auto", from, to).CombinedOutput(); err != nil {
			return fmt.Errorf("cannot copy %s: %w: %s", from, err, out)
		}
	}
	if !strings.HasPrefix(script, "#!") {
		script = "#!/bin/sh\n" + script
	}
	if err := os.WriteFile(filepath.Join(staging, "run.sh"), []byte(script), 0o755); err != nil {
		return err
	}
	if err := ext4(path, staging, exchangeSize); err != nil {
		return err
	}
	return os.RemoveAll(staging)
}

// readExchange takes the script's results from the exchange disk.
func readExchange(path string, r *Result) error {
	dir := filepath.Dir(r.Dir)
	commands := fmt.Sprintf("dump out.txt %[1]s/out.txt\ndump rc %[1]s/rc\nrdump out %[1]s\n", dir)
	run := exec.Command("debugfs", "-f", "-", path)
	run.Stdin = strings.NewReader(commands)
	if out, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot read the exchange disk: %w: %s", err, out)
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil { // when there is nothing
		return err
	}
	out, err := os.ReadFile(filepath.Join(dir, "out.txt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.Out = string(out)
	code, err := os.ReadFile(filepath.Join(dir, "rc"))
	if errors.Is(err, fs.ErrNotExist) || len(code) == 0 {
		return nil
	} else if err != nil {
		return err
	}
	r.Code, err = strconv.Atoi(strings.TrimSpace(string(code)))
	return err
}

// DataSize is the size of a data disk, in bytes. It is sparse.
const DataSize = 1 << 30

// NewDisk makes a data disk: an ext4 file system with the content of a folder;
// "" makes an empty one. A test reads it back with Extract.
func NewDisk(t testing.TB, path, tree string) {
	t.Helper()
	must(t, ext4(path, tree, DataSize))
}

// Extract copies a folder of a disk, after e2fsck has replayed its journal on
// a copy of the disk, into a new folder, and returns that.
func Extract(t testing.TB, disk, folder string) string {
	t.Helper()
	dir := t.TempDir()
	copied := filepath.Join(dir, "disk")
	must(t, copySparse(disk, copied))
	// 1: the journal was replayed or something small was put right.
	if out, err := exec.Command("e2fsck", "-fy", copied).CombinedOutput(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() > 1 {
			t.Fatalf("the disk is damaged: %s\n%s", err, out)
		}
	}
	to := filepath.Join(dir, "tree")
	must(t, os.MkdirAll(to, 0o755))
	if out, err := exec.Command("debugfs", "-R", fmt.Sprintf("rdump %s %s", folder, to), copied).CombinedOutput(); err != nil {
		t.Fatalf("cannot read the disk: %s\n%s", err, out)
	}
	must(t, os.Remove(copied))
	return filepath.Join(to, filepath.Base(folder))
}

// Furnish puts what runs the tests' scripts into a tree with systemd that becomes a
// root disk by other means than Make's.
func Furnish(t testing.TB, tree string) {
	t.Helper()
	must(t, errors.Join(furnish(tree), os.MkdirAll(filepath.Join(tree, "x"), 0o755)))
}

// NewRoot makes a root disk for Options.Disk: the machine's, and its own from
// then on.
func (m *Image) NewRoot(t testing.TB, path string) {
	t.Helper()
	must(t, copySparse(m.rootDisk(), path))
}

// Put writes files and folders of this machine into a disk: path in the disk's
// file system to path here. What is there already stays.
func Put(t testing.TB, disk string, files Files) {
	t.Helper()
	var commands strings.Builder
	folders := map[string]bool{"/": true}
	var folder func(path string)
	folder = func(path string) {
		if !folders[path] {
			folders[path] = true
			folder(filepath.Dir(path))
			fmt.Fprintf(&commands, "mkdir %s\n", path)
		}
	}
	for to, from := range files {
		must(t, filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			at := filepath.Join("/", to, strings.TrimPrefix(path, from))
			switch {
			case entry.IsDir():
				folder(at)
				return nil
			case entry.Type() == fs.ModeSymlink:
				text, err := os.Readlink(path)
				folder(filepath.Dir(at))
				fmt.Fprintf(&commands, "symlink %s %s\n", at, text)
				return err
			}
			folder(filepath.Dir(at))
			fmt.Fprintf(&commands, "write %s %s\n", path, at)
			return nil
		}))
	}
	run := exec.Command("debugfs", "-w", "-f", "-", disk)
	run.Stdin = strings.NewReader(commands.String())
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("cannot write to %s: %s\n%s", disk, err, out)
	}
}

func copySparse(from, to string) error {
	if out, err := exec.Command("cp", "--sparse=always", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy %s: %w: %s", from, err, out)
	}
	return nil
}
