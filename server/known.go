package server

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/trust/identity"
)

// device is a device's row with its public key read from it.
type device struct {
	row store.Device
	key *ecdsa.PublicKey
}

// known remembers the rows of devices that asked lately, which saves a query
// for each ticket on a kept connection. What is remembered may be out of date:
// another server, or an operator, changes rows at any time. That is harmless,
// because it decides nothing by itself. A ticket leaves only when the database
// has recorded it, which it refuses for a device that is blocked, unknown or of
// another product by then (store.DB.Record); and a device is refused only by a
// row that was read for its request (Server.issue). A device's key can't be out
// of date: its id is the hash of it.
type known struct {
	db *store.DB

	mu   sync.Mutex
	kept memory[identity.ID, device]
}

// How long a device that asks nothing is remembered at least, and how many are:
// twice as many take some 100 MB.
const (
	knownLife = 10 * time.Minute
	maxKnown  = 1 << 17
)

func newKnown(db *store.DB) *known {
	return &known{db: db, kept: memory[identity.ID, device]{most: maxKnown}}
}

// recall finds a device, in memory if it is there.
func (k *known) recall(ctx context.Context, id identity.ID, at time.Time) (d device, remembered bool, err error) {
	k.mu.Lock()
	k.kept.turn(at, knownLife)
	d, ok := k.kept.get(id)
	k.mu.Unlock()
	if ok {
		return d, true, nil
	}
	d, err = k.read(ctx, id, at)
	return d, false, err
}

// read reads a device's row and remembers it.
func (k *known) read(ctx context.Context, id identity.ID, at time.Time) (device, error) {
	row, err := k.db.Device(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.kept.now, id)
		delete(k.kept.old, id)
		return device{}, problem(signing.UnknownDevice, "this device is not enrolled")
	} else if err != nil {
		return device{}, err
	}
	public, err := identity.ParsePublic(row.Key)
	if err != nil {
		return device{}, err
	}
	if own, err := identity.IDOf(public); err != nil {
		return device{}, err
	} else if own != id {
		return device{}, fmt.Errorf("cannot believe the database: the key of the device %s is another one's", id)
	}
	row.Key = nil
	d := device{row, public}
	k.keep(d, at)
	return d, nil
}

// keep remembers a device's row as it is now.
func (k *known) keep(d device, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept.turn(at, knownLife)
	k.kept.now[d.row.ID] = d
}
