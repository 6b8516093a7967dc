package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/eprocess"
	"github.com/sealant-os/sealant/internal/fault"
)

// Between is the least time between two questions about one improvement.
const Between = 7 * 24 * time.Hour

const (
	promptsSchema = "sealant.prompts/1"
	maxPrompts    = 64 << 10 // bytes
	maxAsked      = 32
)

// Notice is the question that a person is asked: an app crashes, and removing all
// improvements may help.
type Notice struct {
	App     string    `json:"app"`
	Name    string    `json:"name"`    // of the app, for people
	Release string    `json:"release"` // SI-2026-0008
	Label   string    `json:"label"`   // (b)
	Back    string    `json:"back"`    // what removing returns to: "ExampleOS 42.3"
	Crashes int64     `json:"crashes"` // counted since the improvement
	Before  int64     `json:"before"`  // counted before it
	Days    int       `json:"days"`    // over which the ones before were counted
	Hours0  float64   `json:"hours_before"`
	Hours1  float64   `json:"hours_since"`
	LogE    float64   `json:"log_e"`
	Opens   []string  `json:"opens"` // the flaws that removing opens again; exploited ones say so
	Time    time.Time `json:"time"`
}

// NoticeOf makes the question from a judgement.
func NoticeOf(j Judgement, at time.Time) Notice {
	return Notice{
		App: j.App, Name: j.App, Release: j.Arm.Release,
		Crashes: j.Counts.X1, Before: j.Counts.X0, Days: j.Days0, Hours0: j.Counts.T0, Hours1: j.Counts.T1,
		LogE: j.E.Log(), Opens: []string{}, Time: at.UTC().Truncate(time.Second),
	}
}

// Text is the question in words, without its answers (keep, remove and restart).
func (n Notice) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s closed unexpectedly %s since improvement %s; before, %s in %s. The improvement may be contributing. ",
		n.Name, times(n.Crashes), n.Label, times(n.Before), span(n.Days))
	fmt.Fprintf(&b, "You can remove all improvements and return to %s; ", n.Back)
	switch len(n.Opens) {
	case 0:
		b.WriteString("this reopens no known flaw.")
	case 1:
		fmt.Fprintf(&b, "this reopens 1 fixed flaw: %s.", n.Opens[0])
	default:
		fmt.Fprintf(&b, "this reopens %d fixed flaws: %s.", len(n.Opens), strings.Join(n.Opens, ", "))
	}
	return b.String()
}

func times(n int64) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// span is a number of days in words, whole weeks from two weeks on.
func span(days int) string {
	small := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	n, unit := max(days, 1), "day"
	if n >= 14 {
		n, unit = n/7, "week"
	}
	if n != 1 {
		unit += "s"
	}
	if n < len(small) {
		return small[n] + " " + unit
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// Answer is what a person said to a Notice.
type Answer string

// The answers.
const (
	Keep   Answer = "keep"
	Remove Answer = "remove"
)

// Prompts is what the person was asked and has answered, on disk.
type Prompts struct {
	store *Store
	doc   promptsDocument
}

type promptsDocument struct {
	Schema  string  `json:"schema"`
	Pending *Notice `json:"pending,omitempty"`
	Damage  *Damage `json:"damage,omitempty"`
	Asked   []asked `json:"asked"` // the last ones, oldest first
}

// Damage is a crash of an app whose content does not have its seal.
type Damage struct {
	App     string    `json:"app"`
	Release string    `json:"release"` // "" for the baseline
	Time    time.Time `json:"time"`
}

type asked struct {
	Release string    `json:"release"`
	App     string    `json:"app"`
	Time    time.Time `json:"time"`
	Answer  Answer    `json:"answer,omitempty"`
}

// Prompts reads what was asked. A file that does not read counts as none: the
// worst of it is one question too many.
func (s *Store) Prompts() (*Prompts, error) {
	p := &Prompts{store: s, doc: promptsDocument{Schema: promptsSchema, Asked: []asked{}}}
	data, err := store.ReadFile(s.path(promptsAt), maxPrompts)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	var doc promptsDocument
	if err == nil {
		err = decodeStrictly(data, &doc)
	}
	if err == nil && (doc.Schema != promptsSchema || len(doc.Asked) > maxAsked) {
		err = fmt.Errorf("not a document of %s", promptsSchema)
	}
	if err != nil {
		return p, fmt.Errorf("cannot read what was asked: %w", err)
	}
	p.doc = doc
	return p, nil
}

// Due reports whether the person may be asked about an improvement now: not while
// a question waits, and not within Between of the last one. A clock that jumped
// back by more than that does not silence it.
func (p *Prompts) Due(release string, now time.Time) bool {
	if p.doc.Pending != nil && p.doc.Pending.Release == release {
		return false
	}
	for _, a := range p.doc.Asked {
		if since := now.Sub(a.Time); a.Release == release && since.Abs() < Between {
			return false
		}
	}
	return true
}

// Ask writes a question down; it waits until it is answered or withdrawn.
func (p *Prompts) Ask(n Notice) error {
	p.doc.Pending = &n
	p.doc.Asked = append(p.doc.Asked, asked{Release: n.Release, App: n.App, Time: n.Time})
	p.doc.Asked = p.doc.Asked[max(0, len(p.doc.Asked)-maxAsked):]
	return p.save()
}

// Pending is the question that waits for an answer.
func (p *Prompts) Pending() (Notice, bool) {
	if p.doc.Pending == nil {
		return Notice{}, false
	}
	return *p.doc.Pending, true
}

// Damaged writes down that content is damaged, so that a person is told to repair
// it; nil says that it is whole again.
func (p *Prompts) Damaged(d *Damage) error {
	if p.doc.Damage == nil && d == nil {
		return nil
	}
	p.doc.Damage = d
	return p.save()
}

// Damage is what was found damaged last, nil if nothing.
func (p *Prompts) Damage() *Damage { return p.doc.Damage }

// Answer takes the person's answer and returns the question. What "remove" asks
// for is the caller's to do, as the normal removal.
func (p *Prompts) Answer(a Answer) (Notice, error) {
	n, ok := p.Pending()
	if !ok {
		return n, fault.New(fault.Failed, "cannot take the answer: nothing was asked").Hint("sealant evidence")
	}
	if a != Keep && a != Remove {
		return n, fault.New(fault.Usage, "cannot take the answer %q: it is neither keep nor remove", a)
	}
	for i := range p.doc.Asked {
		if q := &p.doc.Asked[i]; q.Release == n.Release && q.App == n.App && q.Time.Equal(n.Time) {
			q.Answer = a
		}
	}
	p.doc.Pending = nil
	return n, p.save()
}

// Withdraw takes a question back whose improvement is no longer active.
func (p *Prompts) Withdraw() error {
	if p.doc.Pending == nil {
		return nil
	}
	p.doc.Pending = nil
	return p.save()
}

func (p *Prompts) save() error {
	data, err := json.Marshal(p.doc)
	if err == nil && len(data) > maxPrompts {
		err = fmt.Errorf("%d bytes, the limit is %d", len(data), maxPrompts)
	}
	if err == nil {
		err = store.WriteFile(p.store.path(promptsAt), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep what was asked: %w", err)
	}
	return nil
}

// Asks decides what becomes of a judgement at a new crash: whether the person is
// asked now. It returns the verdict to tell.
func (p *Prompts) Asks(j Judgement, c Crash, now time.Time) (bool, eprocess.Verdict) {
	switch {
	case c.Broken:
		return false, Repair
	case c.Arm != j.Arm || c.Version != j.Version || j.Scope == ScopeMain && !c.Main || j.Scope == ScopeAny && !c.Any:
		return false, j.Verdict // another content's crash, or one of a burst
	case j.Verdict == eprocess.RecommendRemoval && !p.Due(j.Arm.Release, now):
		return false, NotAsked
	}
	return j.Verdict == eprocess.RecommendRemoval, j.Verdict
}
