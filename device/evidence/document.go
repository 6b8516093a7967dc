package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/eprocess"
)

const observationsSchema = "sealant.observations/1"

// Limits of one app's document. With maxApps documents the store stays below
// 10 MB.
const (
	maxDocument = 72 << 10 // bytes
	maxRows     = 1024     // days, over all series
	maxSeries   = 64
	maxName     = 255 // bytes of an app id, version, release or digest
)

// document is what is known of one app. Its series are sorted, their days too.
type document struct {
	Schema string   `json:"schema"`
	App    string   `json:"app"`
	Series []series `json:"series"`
}

// series is one app in one arm, version and scope.
type series struct {
	Arm
	Version string      `json:"version"`
	Scope   string      `json:"scope"`
	Last    *lastCrash  `json:"last,omitempty"`
	Days    []dayCounts `json:"days"`

	quiet eprocess.Quiet // on the clock of boot; Last is its memory
	boot  string         // the boot that quiet is on; "" before the first use
	part  time.Duration  // exposure below a millisecond, not yet in Days
}

// lastCrash is the last counted crash, on all clocks, so that the refractory time
// goes on over a restart.
type lastCrash struct {
	Wall time.Time `json:"wall"`
	Mono int64     `json:"mono_ms"`
	Boot string    `json:"boot"`
}

// dayCounts is one UTC day of a series.
type dayCounts struct {
	Day     string `json:"day"`     // 2026-11-23
	Crashes int64  `json:"crashes"` // counted
	Seen    int64  `json:"seen"`    // all, bursts included
	Used    int64  `json:"ms"`      // exposure in milliseconds
}

func (s *series) key() string {
	return fmt.Sprintf("%s\x00%s\x00%06d\x00%s\x00%s", s.Base, s.Release, s.Level, s.Version, s.Scope)
}

// find returns the series, making it if it is not there; the pointer is good
// until the next call. In a full document the series used longest ago makes room.
func (d *document) find(arm Arm, version, scope string) *series {
	want := series{Arm: arm, Version: version, Scope: scope}
	i, found := slices.BinarySearchFunc(d.Series, want.key(), func(s series, key string) int { return strings.Compare(s.key(), key) })
	if !found {
		if len(d.Series) == maxSeries {
			oldest := slices.MinFunc(d.Series, func(a, b series) int { return strings.Compare(a.newest(), b.newest()) })
			j := slices.IndexFunc(d.Series, func(s series) bool { return s.key() == oldest.key() })
			d.Series = slices.Delete(d.Series, j, j+1)
			if j < i {
				i--
			}
		}
		d.Series = slices.Insert(d.Series, i, want)
	}
	return &d.Series[i]
}

func (s *series) newest() string {
	if len(s.Days) == 0 {
		return ""
	}
	return s.Days[len(s.Days)-1].Day
}

// on returns the counts of a day, making them if they are not there.
func (s *series) on(day string) *dayCounts {
	i, found := slices.BinarySearchFunc(s.Days, day, func(c dayCounts, day string) int { return strings.Compare(c.Day, day) })
	if !found {
		s.Days = slices.Insert(s.Days, i, dayCounts{Day: day})
	}
	return &s.Days[i]
}

// newest is the last day that the document knows, "" if none.
func (d *document) newest() (day string) {
	for i := range d.Series {
		day = max(day, d.Series[i].newest())
	}
	return day
}

const dayLayout = "2006-01-02"

// earliest is a day before which no Sealant ran: a clock that says less is wrong.
const earliest = "2026-01-01"

// dayOf is the day to count under. A clock that is obviously wrong counts under
// the last day known.
func (d *document) dayOf(wall time.Time) string {
	if day := wall.UTC().Format(dayLayout); day >= earliest && len(day) == len(dayLayout) {
		return day
	}
	return max(d.newest(), earliest)
}

// trim makes the document fit to be written: beyond maxRows the oldest days go.
// Days of a clock that was wrong are left as they are: they are real use, and a
// rule that moved them could move the right ones by a wrong clock.
func (d *document) trim() {
	rows := 0
	for i := range d.Series {
		rows += len(d.Series[i].Days)
	}
	for ; rows > maxRows; rows-- {
		d.dropOldest()
	}
	d.Series = slices.DeleteFunc(d.Series, func(s series) bool { return len(s.Days) == 0 })
}

// dropOldest forgets the oldest day and reports whether there was one.
func (d *document) dropOldest() bool {
	oldest := -1
	for i := range d.Series {
		if s := &d.Series[i]; len(s.Days) > 0 && (oldest < 0 || s.Days[0].Day < d.Series[oldest].Days[0].Day) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	d.Series[oldest].Days = d.Series[oldest].Days[1:]
	return true
}

func addDays(day string, n int) string {
	t, err := time.Parse(dayLayout, day)
	if err != nil {
		return day // never: every day was checked or made here
	}
	return t.AddDate(0, 0, n).Format(dayLayout)
}

func (d *document) encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(d)
	return append(data, '\n'), err
}

// parseDocument reads what encode wrote, and nothing else.
func parseDocument(data []byte) (*document, error) {
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(data), maxDocument)
	}
	var d document
	if err := decodeStrictly(data, &d); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return &d, nil
}

// decodeStrictly reads one JSON document of known fields.
func decodeStrictly(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more bytes after the document")
	}
	return nil
}

func (d *document) check() error {
	if d.Schema != observationsSchema {
		return fmt.Errorf("schema %q, want %q", d.Schema, observationsSchema)
	}
	if err := checkName("app", d.App, false); err != nil {
		return err
	}
	if len(d.Series) > maxSeries {
		return fmt.Errorf("%d series, at most %d", len(d.Series), maxSeries)
	}
	rows := 0
	for i := range d.Series {
		s := &d.Series[i]
		if i > 0 && d.Series[i-1].key() >= s.key() {
			return errors.New("series out of order")
		}
		if err := s.check(); err != nil {
			return err
		}
		rows += len(s.Days)
	}
	if rows > maxRows {
		return fmt.Errorf("%d days, at most %d", rows, maxRows)
	}
	return nil
}

func (s *series) check() error {
	for what, name := range map[string]string{"base": s.Base, "release": s.Release, "version": s.Version} {
		if err := checkName(what, name, true); err != nil {
			return err
		}
	}
	if s.Scope != ScopeMain && s.Scope != ScopeAny {
		return fmt.Errorf("scope %q", s.Scope)
	}
	if s.Level < 0 || s.Level > 999_999 || (s.Level == 0) != (s.Release == "") {
		return fmt.Errorf("level %d of release %q", s.Level, s.Release)
	}
	if s.Last != nil {
		if err := checkName("boot", s.Last.Boot, true); err != nil {
			return err
		}
	}
	for i, c := range s.Days {
		if t, err := time.Parse(dayLayout, c.Day); err != nil || t.Format(dayLayout) != c.Day || c.Day < earliest {
			return fmt.Errorf("day %q", c.Day)
		}
		if i > 0 && s.Days[i-1].Day >= c.Day {
			return errors.New("days out of order")
		}
		if c.Crashes < 0 || c.Seen < c.Crashes || c.Seen > eprocess.MaxEvents || c.Used < 0 || c.Used > 1<<50 {
			return fmt.Errorf("counts of %s out of range", c.Day)
		}
	}
	return nil
}

func checkName(what, name string, empty bool) error {
	if name == "" && !empty || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return fmt.Errorf("%s %q", what, name)
	}
	return nil
}
