package device

import (
	"encoding/hex"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/journal"
	"github.com/sealant-os/sealant/trust/ticket"
)

// journal is the system's journal of the machine that this device is.
func (d *Device) journal() journal.Journal { return journal.At(d.Store.Root()) }

// tellJournal tells the system's journal what the history was told, with what the
// set is made of.
func (d *Device) tellJournal(r store.Record) {
	e := journal.Entry{
		Event: journal.Event(r.Event), Text: r.Text, Release: r.Release, App: r.App, Reason: r.Reason, Actor: r.Actor,
	}
	if !d.began.IsZero() {
		e.Duration = d.Now().Sub(d.began)
	}
	if set, err := d.Store.SetByID(r.Set); err == nil && r.Set != "" {
		e.From, e.To = setName(d.bootedSet()), setName(set)
		for _, c := range set.Cryptexes {
			e.Cryptex, e.Seal = append(e.Cryptex, c.Name), append(e.Seal, c.Seal.Root.String())
		}
		if t, err := ticket.Parse(set.Ticket); err == nil {
			id := t.ID()
			e.Ticket = hex.EncodeToString(id[:])
		}
	}
	_ = d.journal().Send(e) // the history has it; the journal is a copy
}
