package device

import (
	"context"
	"errors"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

const preferencesSchema = "sealant.preferences/1"

// preferences are the person's own choices.
type preferences struct {
	Schema    string `json:"schema"`
	Automatic *bool  `json:"automatic,omitempty"` // "Automatically Install"; on unless said
}

// automaticOn is the person's switch. What can't be read is off: a choice
// against it must not get lost.
func (d *Device) automaticOn() bool {
	var p preferences
	err := d.Store.ReadDocument("preferences", preferencesSchema, &p)
	if errors.Is(err, store.ErrEmpty) {
		return true
	}
	return err == nil && (p.Automatic == nil || *p.Automatic)
}

// AutomaticOptions switch it.
type AutomaticOptions struct {
	On bool `json:"on"`
}

// Automatic is the person's switch "Automatically Install". If off, this
// device gets improvements with a later software update, or when a person
// installs them.
func (d *Device) Automatic(_ context.Context, o AutomaticOptions, actor Actor, _ Report) (AutomaticOptions, error) {
	if word := d.Config.Policy.InstallAutomatic; word != "user" {
		owner, _ := d.Config.Managed("install.automatic")
		if owner == "" {
			owner = "policy"
		}
		return o, fault.New(fault.Policy, "cannot switch: %s set install.automatic to %q", owner, word).Hint("sealant policy --effective names the file")
	}
	if _, err := d.enrolled(); err != nil {
		return o, err
	}
	lock, err := d.Store.Lock()
	if err != nil {
		return o, err
	}
	defer lock.Unlock()
	if err := d.Store.WriteDocument("preferences", preferences{preferencesSchema, &o.On}); err != nil {
		return o, err
	}
	event := "automatic-off"
	if o.On {
		event = "automatic-on"
	}
	return o, d.Store.Append(store.Record{Time: d.Now(), Event: event, Reason: "asked", Actor: string(actor)})
}
