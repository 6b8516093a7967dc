// Package eprocess judges crashes: it holds the two anytime-valid tests of
// Sealant, the counting rule that makes real crashes fit them, and the
// simulator that shows how often they are wrong.
//
// Three parties look at crashes. A device compares an app with its own past
// (Counts). The fleet compares devices that were offered an improvement with
// devices that were not yet (Day). A person signs. This package computes and
// decides nothing by itself; spec/evidence.md is its text for second
// implementers, spec/vectors/evidence its check values.
//
// Both tests are e-processes: while the improvement is harmless, the expected
// value of E stays at or below 1 however often one looks, so the probability
// that E ever reaches a threshold c is at most 1/c (Ville's inequality). That
// allows a look at every crash, without a plan of how many looks there will be.
//
// E is computed and handed on as its natural logarithm, because E itself leaves
// the range of a float64 at a few hundred crashes.
//
// The package is pure: no files, no clock, no randomness but the one handed in.
// It is internal because both halves that must not know each other need it: the
// device (device/evidence) and the server (server/report).
package eprocess

import (
	"errors"
	"fmt"
	"math"
)

// Limits of what the tests accept. Both are far beyond any device or fleet;
// within them ln E is exact to at least six digits after the point.
const (
	MaxEvents = 100_000_000 // crashes, devices at risk, or first crashes in one number
	MaxHours  = 1e9         // hours of exposure in one arm, over 100 000 years
)

// Threshold is the smallest E at which a device recommends removal, when one
// app is on the vendor's list: a false alarm at most once in twenty devices
// under Poisson crashes, for ever. With k listed apps present it is k times that.
const Threshold = 20

// Minimums below which a device does not judge, whatever E says.
const (
	MinHours   = 5 // hours of use without the improvement
	MinCrashes = 2 // counted crashes with it
)

// E is the evidence against an improvement, as a natural logarithm.
type E struct{ log float64 }

// Log is ln E.
func (e E) Log() float64 { return e.log }

// Value is E itself; beyond the largest float64 it stays there, and Log is exact.
func (e E) Value() float64 {
	if e.log >= math.Log(math.MaxFloat64) {
		return math.MaxFloat64
	}
	return math.Exp(e.log)
}

// AtLeast reports whether E reaches the threshold, which must be positive.
func (e E) AtLeast(threshold float64) bool { return e.log >= math.Log(threshold) }

// mean is the mean of several E, given as logarithms, without overflow.
func mean(logs []float64) E {
	top := math.Inf(-1)
	for _, l := range logs {
		top = math.Max(top, l)
	}
	if math.IsInf(top, -1) {
		return E{top}
	}
	var sum float64
	for _, l := range logs {
		sum += math.Exp(l - top)
	}
	return E{top + math.Log(sum/float64(len(logs)))}
}

// Mean is the arithmetic mean of several E: again an e-process when they all
// are, however they depend on each other. The mean of none is 1.
func Mean(es []E) E {
	if len(es) == 0 {
		return E{}
	}
	logs := make([]float64, len(es))
	for i, e := range es {
		logs[i] = e.log
	}
	return mean(logs)
}

// ErrInput is in the chain of every refusal of a number that no count and no
// clock can give.
var ErrInput = errors.New("not a possible observation")

func checkCount(name string, n int64) error {
	if n < 0 || n > MaxEvents {
		return fmt.Errorf("%s = %d: %w (0 to %d)", name, n, ErrInput, MaxEvents)
	}
	return nil
}

func checkHours(name string, t float64) error {
	// The comparison is written so that NaN fails it.
	if !(t > 0 && t <= MaxHours) {
		return fmt.Errorf("%s = %v: %w (more than 0, up to %.0e hours)", name, t, ErrInput, float64(MaxHours))
	}
	return nil
}
