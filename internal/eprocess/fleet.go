package eprocess

import (
	"fmt"
	"math"
)

// Day is one UTC day of one app in one stratum (OS build and architecture) of
// the fleet: only devices that opted in, each with at most its first crash since
// the rollout began, by the arm it was offered.
type Day struct {
	Stratum string // names the stratum; the test itself only keeps them apart
	F1, F0  int64  // first crashes today, offered and not offered
	R1, R0  int64  // devices still at risk this morning, offered and not offered
}

// The fleet's test looks for smaller rises than a device can.
var fleetRises = [...]float64{1.25, 1.5, 2, 3, 5, 10, 20}

// Actions of the fleet.
const (
	PauseAt         = 10   // the mean of E over the apps that pauses a rollout by itself
	ListLevel       = 0.05 // an app is proposed at E ≥ K/0.05 for K watched apps
	ListMinDevices  = 10   // … from at least so many distinct offered devices that crashed
	ListMinRiseRate = 1.5  // … and at least this rate ratio
)

// Logrank is the evidence that an app crashes more often on devices that were
// offered the improvement:
//
//	E = mean over r of  Π over days and strata of  r^f1 · ((R0+R1) / (R0 + r·R1))^(f0+f1)
//
// The order of the days does not matter. A day with nobody at risk, or without a
// first crash, changes nothing.
func Logrank(days []Day) (E, error) {
	var running logrank
	for i, d := range days {
		if err := running.add(d); err != nil {
			return E{}, fmt.Errorf("day %d: %w", i+1, err)
		}
	}
	return running.e(), nil
}

// logrank is the product over the days so far, for each rise.
type logrank [len(fleetRises)]float64

func (l *logrank) add(d Day) error {
	if err := d.check(); err != nil {
		return err
	}
	if d.F0+d.F1 == 0 {
		return nil
	}
	share := float64(d.R1) / float64(d.R0+d.R1)
	for i, r := range fleetRises {
		l[i] += float64(d.F1)*math.Log(r) - float64(d.F0+d.F1)*math.Log1p((r-1)*share)
	}
	return nil
}

func (l *logrank) e() E { return mean(l[:]) }

func (d Day) check() error {
	for _, err := range []error{
		checkCount("f1", d.F1), checkCount("f0", d.F0),
		checkCount("r1", d.R1), checkCount("r0", d.R0),
	} {
		if err != nil {
			return err
		}
	}
	if d.F1 > d.R1 || d.F0 > d.R0 {
		return fmt.Errorf("more first crashes than devices at risk (f1 %d of %d, f0 %d of %d): %w", d.F1, d.R1, d.F0, d.R0, ErrInput)
	}
	return nil
}

// Rise estimates how many times more often offered devices crash first (the
// Mantel-Haenszel rate ratio over days and strata). It is 0 without a crash among
// the offered, and +Inf when only they crash.
func Rise(days []Day) float64 {
	var offered, others float64
	for _, d := range days {
		r0, r1 := float64(d.R0), float64(d.R1)
		if r0+r1 == 0 {
			continue
		}
		offered += float64(d.F1) * r0 / (r0 + r1)
		others += float64(d.F0) * r1 / (r0 + r1)
	}
	if offered == 0 {
		return 0
	}
	return offered / others
}

// Proposes reports whether an app of `watched` apps is to be proposed for the
// vendor's list: enough evidence, from enough distinct devices (a device has at
// most one first crash), and a rise large enough to matter.
func Proposes(e E, days []Day, watched int) bool {
	var devices int64
	for _, d := range days {
		devices += d.F1
	}
	return e.AtLeast(float64(max(watched, 1))/ListLevel) && devices >= ListMinDevices && Rise(days) >= ListMinRiseRate
}

// Pauses reports whether a rollout is to pause by itself, given the evidence of
// every watched app. It is the mean, not the maximum: with many apps some E is
// large by chance, their mean is not.
func Pauses(apps []E) bool { return Mean(apps).AtLeast(PauseAt) }
