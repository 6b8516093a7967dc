package eprocess

import "time"

// The counting rule. Real crashes come in bursts; a Poisson test needs them
// apart. Times lie on one timeline that does not run while the device sleeps;
// only differences matter.
const (
	Refractory = 4 * time.Hour   // after a counted crash neither crashes nor exposure count
	Floor      = 1 * time.Minute // a run that ends in a counted crash counts as at least so long
)

// Quiet is the state of the counting rule for one series of crashes: one app in
// one arm. The zero value has seen no crash.
type Quiet struct {
	Crashed bool          // whether a crash was ever counted
	Until   time.Duration // the end of the refractory time after it
}

// Exposure is the part of the use from..to that counts.
func (q Quiet) Exposure(from, to time.Duration) time.Duration {
	if q.Crashed {
		from = max(from, q.Until)
	}
	return max(0, to-from)
}

// Crash reports whether a crash at that time counts, and if so starts the
// refractory time.
func (q *Quiet) Crash(at time.Duration) bool {
	if q.Crashed && at < q.Until {
		return false
	}
	q.Crashed, q.Until = true, at+Refractory
	return true
}

// TopUp is what the floor adds to the exposure of a run that was used for so
// long and ended in a counted crash.
func TopUp(used time.Duration) time.Duration { return max(0, Floor-used) }
