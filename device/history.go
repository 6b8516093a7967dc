package device

import (
	"context"

	"github.com/sealant-os/sealant/device/store"
)

// Told is the device's history.
type Told struct {
	Records []store.Record `json:"records"` // the oldest first
	Whole   bool           `json:"whole"`   // every record's chain is unbroken
	Broken  string         `json:"broken,omitempty"`
}

// History is what happened on this device, why, and by whom.
func (d *Device) History(context.Context) (Told, error) {
	records, err := d.Store.History()
	t := Told{Records: records, Whole: err == nil}
	if records == nil {
		t.Records = []store.Record{}
	}
	if err != nil {
		t.Broken = err.Error()
	}
	return t, nil
}
