package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Device is one enrolled device.
type Device struct {
	ID       [32]byte
	Key      []byte   // its public key: SubjectPublicKeyInfo, DER
	Product  string   // what it said it is when it enrolled
	Baseline [48]byte // of its latest request
	Release  string   // the latest release a ticket was issued for; "" is the baseline
	Token    string   // id of the token it enrolled with, or tpm: and first digits of the TPM's id
	Enrolled time.Time
	Seen     time.Time // latest ticket, or the enrolment

	Blocked     time.Time // zero: not blocked
	BlockReason string

	Diverged    time.Time // when a dead nonce last came back; zero: never
	Divergences int64     // how often
}

const deviceColumns = `id, public_key, product, baseline, release, token, enrolled, seen, blocked, block_reason, diverged, divergences`

type scanner interface{ Scan(...any) error }

func scanDevice(row scanner) (Device, error) {
	var d Device
	var id, baseline []byte
	var enrolled, seen, blocked, diverged int64
	err := row.Scan(&id, &d.Key, &d.Product, &baseline, &d.Release, &d.Token,
		&enrolled, &seen, &blocked, &d.BlockReason, &diverged, &d.Divergences)
	if err != nil {
		return Device{}, err
	}
	if len(id) != len(d.ID) || len(baseline) != len(d.Baseline) {
		return Device{}, fmt.Errorf("cannot read a device: its row is damaged")
	}
	copy(d.ID[:], id)
	copy(d.Baseline[:], baseline)
	d.Enrolled, d.Seen, d.Blocked, d.Diverged = instant(enrolled), instant(seen), instant(blocked), instant(diverged)
	return d, nil
}

// Device finds a device by its id; ErrNotFound if it never enrolled.
func (db *DB) Device(ctx context.Context, id [32]byte) (Device, error) {
	row := db.recorder.device.QueryRowContext(ctx, id[:])
	d, err := scanDevice(row)
	if errors.Is(err, sql.ErrNoRows) {
		return Device{}, ErrNotFound
	}
	return d, err
}

// Filter chooses devices. Its zero value chooses all.
type Filter struct {
	Prefix  []byte // first bytes of the device id
	Product string
	Release string // latest ticket is for this release
	Blocked bool   // only blocked ones
	Cloned  bool   // only ones whose nonces diverged
	Limit   int    // at most so many; 0: no limit
}

// Devices lists devices in the order of their ids.
func (db *DB) Devices(ctx context.Context, f Filter) ([]Device, error) {
	var list []Device
	err := db.EachDevice(ctx, f, func(d Device) error {
		list = append(list, d)
		return nil
	})
	return list, err
}

// EachDevice calls do for every chosen device, in the order of their ids,
// without holding them all in memory. It stops at the first error.
func (db *DB) EachDevice(ctx context.Context, f Filter, do func(Device) error) error {
	query := "SELECT " + deviceColumns + " FROM devices WHERE 1 = 1"
	var args []any
	where := func(clause string, arg any) {
		args = append(args, arg)
		query += fmt.Sprintf(" AND "+clause, len(args))
	}
	if len(f.Prefix) > 0 {
		where("id >= $%d", f.Prefix)
		if end := after(f.Prefix); end != nil {
			where("id < $%d", end)
		}
	}
	if f.Product != "" {
		where("product = $%d", f.Product)
	}
	if f.Release != "" {
		where("release = $%d", f.Release)
	}
	if f.Blocked {
		query += " AND blocked <> 0"
	}
	if f.Cloned {
		query += " AND diverged <> 0"
	}
	query += " ORDER BY id"
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		d, err := scanDevice(rows)
		if err != nil {
			return err
		}
		if err := do(d); err != nil {
			return err
		}
	}
	return rows.Err()
}

// after is the first byte string that sorts after every one that starts with
// prefix, nil if there is none.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}

// Block stops all signing for a device, from the next ticket on.
func (db *DB) Block(ctx context.Context, id [32]byte, reason string, now time.Time) error {
	return db.setBlocked(ctx, id, micros(now), reason)
}

// Unblock undoes Block.
func (db *DB) Unblock(ctx context.Context, id [32]byte) error {
	return db.setBlocked(ctx, id, 0, "")
}

func (db *DB) setBlocked(ctx context.Context, id [32]byte, at int64, reason string) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE devices SET blocked = $1, block_reason = $2 WHERE id = $3", at, reason, id[:])
		return exactlyOne(res, err)
	})
}

// exactlyOne turns the result of an update into ErrNotFound if no row was hit.
func exactlyOne(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrNotFound
	}
	return nil
}

// Counts says how many devices there are, and how many are blocked.
func (db *DB) Counts(ctx context.Context) (all, blocked int64, err error) {
	err = db.read.QueryRowContext(ctx,
		"SELECT COUNT(*), COALESCE(SUM(CASE WHEN blocked <> 0 THEN 1 ELSE 0 END), 0) FROM devices").Scan(&all, &blocked)
	return all, blocked, err
}
