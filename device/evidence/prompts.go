package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/device/wording"
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

// Text is the question in English, without its answers (keep, remove and restart).
func (n Notice) Text() string { return n.In(wording.English()) }

// In is the question in a language.
func (n Notice) In(l *wording.Language) string {
	flaws := make([]string, len(n.Opens))
	for i, flaw := range n.Opens {
		if id, ok := strings.CutSuffix(flaw, Exploited); ok {
			flaw = id + " (" + l.Say("exploited") + ")"
		}
		flaws[i] = flaw
	}
	return l.Say("advice-crashes", "app", n.Name, "times", l.Times(n.Crashes), "label", n.Label, "before", l.Times(n.Before), "span", l.Span(n.Days)) +
		" " + l.Say("advice-return", "n", len(flaws), "back", n.Back, "flaws", strings.Join(flaws, ", "))
}

// Exploited ends a flaw of Opens that has known attacks.
const Exploited = " (exploited)"

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
