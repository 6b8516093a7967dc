package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestExitCodes(t *testing.T) {
	want := map[Kind]int{
		Failed: 1, Usage: 2, Available: 10, Relaunch: 11, Restart: 12, NotEligible: 20, Policy: 21,
		Waiting: 22, Refused: 30, Ticket: 31, Seal: 32, Stale: 33, Unreachable: 40, Recalled: 41,
		Undetermined: 42, Busy: 50,
	}
	for _, k := range Kinds() {
		if k.ExitCode() != want[k] {
			t.Errorf("%v: exit code %d, want %d", k, k.ExitCode(), want[k])
		}
		if Parse(k.String()) != k {
			t.Errorf("Parse(%q) = %v", k.String(), Parse(k.String()))
		}
		if k.Text() == "" {
			t.Errorf("%v has no text", k)
		}
	}
	if len(want) != len(Kinds()) {
		t.Errorf("%d kinds, want %d", len(Kinds()), len(want))
	}
	if ExitCode(nil) != 0 || ExitCode(errors.New("x")) != 1 || Parse("from the future") != Failed {
		t.Error("nil, plain and unknown errors must be 0, 1 and Failed")
	}
}

func TestKindAndHintSurviveWrapping(t *testing.T) {
	cause := errors.New("root hash differs")
	inner := New(Seal, "cannot attach web: %w", cause).Hint("run: sealant verify")
	outer := fmt.Errorf("cannot boot: %w", inner)
	if KindOf(outer) != Seal || HintOf(outer) != "run: sealant verify" || !errors.Is(outer, cause) {
		t.Errorf("lost in wrapping: %v, %q", KindOf(outer), HintOf(outer))
	}
	again := New(Failed, "cannot go on: %w", inner)
	if KindOf(again) != Failed || HintOf(again) != "run: sealant verify" {
		t.Errorf("the outermost kind and the first hint count: %v, %q", KindOf(again), HintOf(again))
	}
}
