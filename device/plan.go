package device

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/journal"
)

// Notice is how long before a restart by policy the person is told: nothing restarts
// a device without that.
const Notice = 15 * time.Minute

const (
	planSchema = "sealant.restart-plan/1"
	maxPlan    = 4 << 10
)

// restartPlan is a restart that policy asked for. It stands in /run: a restart by
// anybody is the end of it.
type restartPlan struct {
	Schema string    `json:"schema"`
	At     time.Time `json:"at"`
	Owner  string    `json:"owner"` // who set the policy, "" if it does not say
}

// planRestart announces a restart by policy, Notice from now, once: a plan that
// stands is left alone. The caller restarts when it is due.
func (d *Device) planRestart() (restartPlan, error) {
	if p, ok := d.plannedRestart(); ok {
		return p, nil
	}
	owner, _ := d.Config.Managed("activate.restart")
	p := restartPlan{planSchema, d.Now().Add(Notice).UTC().Truncate(time.Second), owner}
	data, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	if err := os.MkdirAll(d.Store.RunDir(), 0o755); err != nil {
		return p, err
	}
	if err := store.WriteFile(d.Store.RestartPlanPath(), append(data, '\n'), 0o644); err != nil {
		return p, err
	}
	e := journal.Entry{Event: journal.RestartPlanned, Actor: string(ByPolicy), Text: "policy restarts this device at " + p.At.Local().Format("15:04")}
	if set, err := d.Store.Slot(store.Next); err == nil {
		e.Release, e.To = set.Release, setName(set)
	}
	_ = d.journal().Send(e)
	return p, nil
}

// plannedRestart is the restart that was announced, if one was. What does not read is
// no plan: a restart then waits for a new announcement.
func (d *Device) plannedRestart() (restartPlan, bool) {
	var p restartPlan
	data, err := store.ReadFile(d.Store.RestartPlanPath(), maxPlan)
	if err != nil || json.Unmarshal(data, &p) != nil || p.Schema != planSchema {
		return restartPlan{}, false
	}
	// One that is long overdue was given up, or made by a clock that was wrong.
	if late := d.Now().Sub(p.At); late > Notice || late < -Notice {
		return restartPlan{}, false
	}
	return p, true
}

// cancelRestart takes the announcement back: what was staged is no longer.
func (d *Device) cancelRestart() error {
	err := os.Remove(d.Store.RestartPlanPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
