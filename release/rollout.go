package release

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// RolloutSchema names the form of Rollout.
const RolloutSchema = "sealant.rollout/1"

// Limits of a rollout list.
const (
	MaxRollout = 1 << 20 // bytes of the document
	MaxRings   = 10_000
)

// Rollout says to how many devices each improvement is offered. An improvement
// without an entry is offered to nobody.
type Rollout struct {
	Schema  string `json:"schema"`
	Version int64  `json:"version"` // rises with every change
	Product string `json:"product"`
	Entries []Ring `json:"entries"` // sorted by release
}

// Ring is the share of devices that one improvement is offered to.
type Ring struct {
	Release string `json:"release"`
	Percent int    `json:"percent"` // 0 to 100
	Salt    string `json:"salt"`    // 32 hexadecimal characters, so that no device is always first
	Halted  bool   `json:"halted"`  // offered to nobody new; whoever has it keeps it
}

// ParseRollout reads the canonical bytes of a rollout list.
func ParseRollout(data []byte) (Rollout, error) {
	var r Rollout
	if err := parse("the rollout list", MaxRollout, data, &r); err != nil {
		return Rollout{}, err
	}
	return r, nil
}

// Encode validates the list and returns its canonical bytes.
func (r Rollout) Encode() ([]byte, error) { return encode("the rollout list", MaxRollout, &r) }

// Digest is the SHA-384 of the canonical bytes.
func (r Rollout) Digest() Digest { return digestOf(&r) }

// Find returns the ring of an improvement.
func (r Rollout) Find(release string) (Ring, bool) {
	for _, e := range r.Entries {
		if e.Release == release {
			return e, true
		}
	}
	return Ring{}, false
}

// With returns the list with one more ring, or that release's ring replaced,
// under the next version.
func (r Rollout) With(e Ring) Rollout {
	r.Entries = insert(r.Entries, e, func(e Ring) string { return e.Release })
	r.Version++
	return r
}

// Offers reports whether a device is offered an improvement now.
func (r Rollout) Offers(device [32]byte, release string) bool {
	e, ok := r.Find(release)
	return ok && !e.Halted && InRollout(device, release, e.Salt, e.Percent)
}

// InRollout reports whether a device is among the given percent of devices for
// an improvement. The answer depends on nothing else, so device and signing
// service agree; and it is monotonic: who is in at 5 percent is in at 50.
//
// The device's place is the first 4 bytes, big endian, of
// SHA-256("sealant rollout 1" ‖ 0 ‖ release ‖ 0 ‖ salt ‖ 0 ‖ device id); it is
// in if place · 100 < percent · 2³².
func InRollout(device [32]byte, release, salt string, percent int) bool {
	h := sha256.New()
	h.Write([]byte("sealant rollout 1\x00" + release + "\x00" + salt + "\x00"))
	h.Write(device[:])
	place := binary.BigEndian.Uint32(h.Sum(nil))
	return percent > 0 && uint64(place)*100 < uint64(min(percent, 100))<<32
}

func (r *Rollout) validate() error {
	if err := checkSchema(r.Schema, RolloutSchema); err != nil {
		return err
	}
	if err := checkList(r.Version, r.Product); err != nil {
		return err
	}
	if r.Entries == nil || len(r.Entries) > MaxRings {
		return fmt.Errorf("entries must be a list of at most %d: %w", MaxRings, errTooMany)
	}
	for _, e := range r.Entries {
		if err := CheckID(e.Release); err != nil {
			return err
		}
		if e.Percent < 0 || e.Percent > 100 {
			return fmt.Errorf("%s: %d percent", e.Release, e.Percent)
		}
		if err := match("salt", saltPattern, e.Salt); err != nil {
			return fmt.Errorf("%s: %w", e.Release, err)
		}
	}
	return checkOrder("entries", len(r.Entries), func(i int) string { return r.Entries[i].Release })
}
