package release

import (
	"fmt"
	"time"
)

// RecallSchema names the form of RecallList.
const RecallSchema = "sealant.recall/1"

// Limits of a recall list.
const (
	MaxRecallList = 1 << 20 // bytes of the document
	MaxRecalls    = 1000
	MaxRevoked    = 1000 // leaves
)

// RecallList names the improvements that the vendor took back. Entries are
// never dropped while a device may still have the improvement: the list is the
// only thing that keeps an old improvement from being installed again.
type RecallList struct {
	Schema  string   `json:"schema"`
	Version int64    `json:"version"` // rises with every change
	Product string   `json:"product"`
	Entries []Recall `json:"entries"` // sorted by release

	// Leaves are certificates of signing services that must not be believed
	// any more; absent when there are none, sorted by id.
	Leaves []RevokedLeaf `json:"leaves,omitempty"`
}

// RevokedLeaf takes back the certificate of a signing service, whose key got
// into the wrong hands. Tickets that it signed are not staged any more; sets
// that are in force stay, for they were compared with the catalog.
type RevokedLeaf struct {
	ID     Hash      `json:"id"`     // SHA-256 of the leaf's public key (SPKI, DER)
	Reason string    `json:"reason"` // one line
	Date   time.Time `json:"date"`
}

// Recall takes one improvement back.
type Recall struct {
	Release string    `json:"release"`
	To      string    `json:"to"`     // the improvement before it, "" for the baseline
	Reason  string    `json:"reason"` // one line, shown to people
	Text    string    `json:"text"`   // more about it, may be ""
	Date    time.Time `json:"date"`
}

// ParseRecallList reads the canonical bytes of a recall list.
func ParseRecallList(data []byte) (RecallList, error) {
	var l RecallList
	if err := parse("the recall list", MaxRecallList, data, &l); err != nil {
		return RecallList{}, err
	}
	return l, nil
}

// Encode validates the list and returns its canonical bytes.
func (l RecallList) Encode() ([]byte, error) {
	return encode("the recall list", MaxRecallList, &l)
}

// Digest is the SHA-384 of the canonical bytes.
func (l RecallList) Digest() Digest { return digestOf(&l) }

// Find returns the recall of an improvement.
func (l RecallList) Find(id string) (Recall, bool) {
	for _, e := range l.Entries {
		if e.Release == id {
			return e, true
		}
	}
	return Recall{}, false
}

// Landing is where a device with improvement id ends: id itself if it is not
// recalled, else the first one before it that is not, else "" for the baseline.
func (l RecallList) Landing(id string) string {
	landing, _ := l.follow(id)
	return landing
}

// follow walks from recall to recall; ok is false if they lead in a circle.
func (l RecallList) follow(id string) (landing string, ok bool) {
	for range len(l.Entries) + 1 {
		e, recalled := l.Find(id)
		if !recalled {
			return id, true
		}
		id = e.To
	}
	return "", false
}

// With returns the list with one more recall, or with that release's recall
// replaced, under the next version.
func (l RecallList) With(e Recall) RecallList {
	l.Entries = insert(l.Entries, e, func(r Recall) string { return r.Release })
	l.Version++
	return l
}

// WithLeaf returns the list with one more revoked leaf, or with that leaf's
// entry replaced, under the next version.
func (l RecallList) WithLeaf(e RevokedLeaf) RecallList {
	l.Leaves = insert(l.Leaves, e, func(r RevokedLeaf) string { return r.ID.String() })
	l.Version++
	return l
}

// Revoked lists the revoked leaves' ids, as a ticket's verification wants them.
func (l RecallList) Revoked() [][32]byte {
	var ids [][32]byte
	for _, e := range l.Leaves {
		ids = append(ids, e.ID)
	}
	return ids
}

// insert returns a copy of sorted entries with e in its place.
func insert[T any](entries []T, e T, key func(T) string) []T {
	out := make([]T, 0, len(entries)+1)
	placed := false
	for _, old := range entries {
		if !placed && key(old) >= key(e) {
			out, placed = append(out, e), true
		}
		if key(old) != key(e) {
			out = append(out, old)
		}
	}
	if !placed {
		out = append(out, e)
	}
	return out
}

func (l *RecallList) validate() error {
	if err := checkSchema(l.Schema, RecallSchema); err != nil {
		return err
	}
	if err := checkList(l.Version, l.Product); err != nil {
		return err
	}
	if l.Entries == nil || len(l.Entries) > MaxRecalls {
		return fmt.Errorf("entries must be a list of at most %d: %w", MaxRecalls, errTooMany)
	}
	for _, e := range l.Entries {
		if err := e.validate(); err != nil {
			return err
		}
	}
	if err := checkOrder("entries", len(l.Entries), func(i int) string { return l.Entries[i].Release }); err != nil {
		return err
	}
	for _, e := range l.Entries {
		if _, ok := l.follow(e.Release); !ok {
			return fmt.Errorf("the recall of %s leads back to itself", e.Release)
		}
	}
	if len(l.Leaves) > MaxRevoked {
		return fmt.Errorf("leaves must be a list of at most %d: %w", MaxRevoked, errTooMany)
	}
	for _, e := range l.Leaves {
		if err := e.validate(); err != nil {
			return err
		}
	}
	return checkOrder("leaves", len(l.Leaves), func(i int) string { return l.Leaves[i].ID.String() })
}

func (e *RevokedLeaf) validate() error {
	if e.ID == (Hash{}) {
		return fmt.Errorf("a revoked leaf has an id of zeros")
	}
	if e.Reason == "" {
		return fmt.Errorf("the leaf %s is revoked without a reason", e.ID)
	}
	if err := checkLine("the reason", e.Reason, MaxTitle); err != nil {
		return err
	}
	return checkTime("the date", e.Date)
}

func (e *Recall) validate() error {
	if err := CheckID(e.Release); err != nil {
		return err
	}
	if e.To != "" {
		if err := CheckID(e.To); err != nil {
			return fmt.Errorf("to: %w", err)
		}
	}
	if e.To == e.Release {
		return fmt.Errorf("%s is taken back to itself", e.Release)
	}
	if e.Reason == "" {
		return fmt.Errorf("%s is taken back without a reason", e.Release)
	}
	if err := checkLine("the reason", e.Reason, MaxTitle); err != nil {
		return err
	}
	if err := checkText("the text", e.Text, MaxText); err != nil {
		return err
	}
	return checkTime("the date", e.Date)
}

// checkList checks what every list begins with.
func checkList(version int64, product string) error {
	if version < 1 || version > maxInteger {
		return fmt.Errorf("version %d is not 1 to %d", version, int64(maxInteger))
	}
	return CheckProduct(product)
}
