package change

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

// The world of these tests: each task "put" makes a file in two halves, so
// that a kill between them leaves half its work. The final task "commit"
// replaces the file "state".

func world(root string, pause func()) Steps {
	file := func(args map[string]string) string { return filepath.Join(root, args["file"]) }
	return Steps{
		"put": {
			Do: func(_ context.Context, c *Change, args map[string]string) error {
				pause()
				if err := os.WriteFile(file(args)+".half", nil, 0o644); err != nil {
					return err
				}
				pause()
				if err := os.WriteFile(file(args), nil, 0o644); err != nil {
					return err
				}
				c.Vars[args["file"]] = "made"
				pause()
				return nil
			},
			Undo: func(_ context.Context, _ *Change, args map[string]string) error {
				pause()
				if err := os.RemoveAll(file(args)); err != nil {
					return err
				}
				pause()
				return os.RemoveAll(file(args) + ".half")
			},
		},
		"fail": {Do: func(context.Context, *Change, map[string]string) error {
			return fault.New(fault.Seal, "cannot go on")
		}},
		"commit": {
			Do: func(_ context.Context, c *Change, _ map[string]string) error {
				pause()
				if c.Vars["b"] != "made" {
					return errors.New("vars of an earlier task are lost")
				}
				if err := os.WriteFile(filepath.Join(root, "state.new"), []byte("new"), 0o644); err != nil {
					return err
				}
				if err := os.Rename(filepath.Join(root, "state.new"), filepath.Join(root, "state")); err != nil {
					return err
				}
				pause()
				return nil
			},
			Undo: func(context.Context, *Change, map[string]string) error {
				return os.WriteFile(filepath.Join(root, "state"), []byte("old"), 0o644)
			},
			Happened: func(*Change, map[string]string) bool {
				state, _ := os.ReadFile(filepath.Join(root, "state"))
				return string(state) == "new"
			},
		},
		"tidy": {Do: func(context.Context, *Change, map[string]string) error {
			pause()
			return os.RemoveAll(filepath.Join(root, "trash"))
		}},
	}
}

func plan(fail bool) *Change {
	c := &Change{ID: "1", Journey: "install", Actor: "auto", Tasks: []Task{
		{Kind: "put", Args: map[string]string{"file": "a"}},
		{Kind: "put", Args: map[string]string{"file": "b"}},
		{Kind: "commit", Final: true},
		{Kind: "tidy"},
	}}
	if fail {
		c.Tasks = append(c.Tasks[:2:2], append([]Task{{Kind: "fail"}}, c.Tasks[2:]...)...)
	}
	return c
}

func newRoot(t *testing.T) (*store.Store, string) {
	t.Helper()
	root := t.TempDir()
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"state": "old", "trash": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s, root
}

// look says which state a root is in: "old", "new", or what is wrong.
func look(s *store.Store, root string) string {
	if _, err := s.Journal(); !errors.Is(err, store.ErrEmpty) {
		return "a journal is left"
	}
	has := func(name string) bool { _, err := os.Stat(filepath.Join(root, name)); return err == nil }
	state, _ := os.ReadFile(filepath.Join(root, "state"))
	switch {
	case string(state) == "old" && !has("a") && !has("a.half") && !has("b") && !has("b.half") && has("trash"):
		return "old"
	case string(state) == "new" && has("a") && has("b") && !has("trash"):
		return "new"
	}
	return fmt.Sprintf("state %q a %v b %v trash %v", state, has("a"), has("b"), has("trash"))
}

func nothing() {}

// TestFinalStepIsNotTakenBack: once the final step was visible to others, a
// crash before it was written down is answered by finishing.
func TestFinalStepIsNotTakenBack(t *testing.T) {
	s, root := newRoot(t)
	n := 0
	steps := world(root, func() {
		if n++; n == 8 { // after the final step, before it is marked
			panic("power cut")
		}
	})
	func() {
		defer func() { _ = recover() }()
		Run(t.Context(), s, steps, plan(false))
	}()
	if _, outcome, err := Recover(t.Context(), s, world(root, nothing)); outcome != Finished || err != nil || look(s, root) != "new" {
		t.Errorf("%v %v: %s", outcome, err, look(s, root))
	}
}

func TestRunAndFail(t *testing.T) {
	s, root := newRoot(t)
	if err := Run(t.Context(), s, world(root, nothing), plan(true)); fault.KindOf(err) != fault.Seal {
		t.Fatalf("the task's own error is lost: %v", err)
	}
	if got := look(s, root); got != "old" {
		t.Error(got)
	}
	if err := Run(t.Context(), s, world(root, nothing), plan(false)); err != nil {
		t.Fatal(err)
	}
	if got := look(s, root); got != "new" {
		t.Error(got)
	}
}

func TestCancelUndoes(t *testing.T) {
	s, root := newRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := Run(ctx, s, world(root, func() {
		if n++; n == 4 {
			cancel()
		}
	}), plan(false))
	if !errors.Is(err, context.Canceled) || look(s, root) != "old" {
		t.Errorf("%v: %s", err, look(s, root))
	}
}

// TestKill kills a process at each pause of a change, then the process that
// recovers at each of its pauses, and so on until one comes through.
func TestKill(t *testing.T) {
	for _, fail := range []bool{false, true} {
		old, new := 0, 0
		for first := 1; ; first++ {
			s, root := newRoot(t)
			if !child(t, root, "run", fail, first) {
				break // more pauses than the change has
			}
			for again := 1; child(t, root, "recover", fail, again); again++ {
			}
			switch got := look(s, root); got {
			case "old":
				old++
			case "new":
				new++
			default:
				t.Errorf("killed at pause %d: %s", first, got)
			}
		}
		if old < 6 || !fail && new < 1 || fail && new > 0 {
			t.Errorf("fail %v: %d ended old, %d new", fail, old, new)
		}
	}
}

// child runs this test binary as a process that kills itself at the n-th
// pause; it reports whether it did.
func child(t *testing.T, root, what string, fail bool, n int) (killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$")
	cmd.Env = append(os.Environ(), "CHANGE_ROOT="+root, "CHANGE_DO="+what, "CHANGE_FAIL="+strconv.FormatBool(fail), "CHANGE_KILL="+strconv.Itoa(n))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return false
}

func TestKilledChild(t *testing.T) {
	root := os.Getenv("CHANGE_ROOT")
	if root == "" {
		return // only a child of TestKill has something to do
	}
	at, _ := strconv.Atoi(os.Getenv("CHANGE_KILL"))
	fail := os.Getenv("CHANGE_FAIL") == "true"
	n := 0
	steps := world(root, func() {
		if n++; n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	s, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("CHANGE_DO") == "run" {
		if err := Run(t.Context(), s, steps, plan(fail)); (err != nil) != fail {
			t.Fatal(err)
		}
		return
	}
	if _, _, err := Recover(t.Context(), s, steps); err != nil {
		t.Fatal(err)
	}
}

func TestSecondChangeWaitsForRecovery(t *testing.T) {
	s, root := newRoot(t)
	if err := s.WriteJournal([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), s, world(root, nothing), plan(false)); fault.KindOf(err) != fault.Busy {
		t.Errorf("%v", err)
	}
}

func TestJournalIsReadStrictly(t *testing.T) {
	for name, journal := range map[string]string{
		"empty":         ``,
		"newer":         `{"schema":"sealant.change/2"}`,
		"no tasks":      `{"schema":"sealant.change/1","tasks":[]}`,
		"unknown task":  `{"schema":"sealant.change/1","tasks":[{"kind":"format-disk","state":"todo"}]}`,
		"unknown state": `{"schema":"sealant.change/1","tasks":[{"kind":"put","state":"perhaps"}]}`,
		"unknown field": `{"schema":"sealant.change/1","tasks":[{"kind":"put","state":"todo"}],"x":1}`,
		"trailing":      `{"schema":"sealant.change/1","tasks":[{"kind":"put","state":"todo"}]}x`,
	} {
		s, root := newRoot(t)
		if err := s.WriteJournal([]byte(journal)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Recover(t.Context(), s, world(root, nothing)); err == nil || !strings.Contains(err.Error(), "journal") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, root := newRoot(t)
	if c, outcome, err := Recover(t.Context(), s, world(root, nothing)); c != nil || outcome != Nothing || err != nil {
		t.Errorf("%v %v %v", c, outcome, err)
	}
}
