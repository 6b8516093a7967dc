package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Stop ends signing of a release at once, in every server on this database: no
// ticket for it is recorded after Stop returned. Stopping it twice keeps the
// first reason.
func (db *DB) Stop(ctx context.Context, release, reason string, now time.Time) error {
	return db.race(ctx, func(tx *sql.Tx) error {
		if err := db.alone(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO stops (release, reason, stopped) VALUES ($1, $2, $3) ON CONFLICT (release) DO NOTHING",
			release, reason, micros(now))
		return err
	})
}

// Stop is one release that is signed no more.
type Stop struct {
	Release string
	Reason  string
	At      time.Time
}

// Stops lists the releases that are signed no more.
func (db *DB) Stops(ctx context.Context) ([]Stop, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT release, reason, stopped FROM stops ORDER BY release")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Stop
	for rows.Next() {
		var s Stop
		var at int64
		if err := rows.Scan(&s.Release, &s.Reason, &at); err != nil {
			return nil, err
		}
		s.At = instant(at)
		list = append(list, s)
	}
	return list, rows.Err()
}

// Pause keeps a rollout from getting wider; Resume ends that. Both may be
// repeated.
func (db *DB) Pause(ctx context.Context, release string, now time.Time) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO pauses (release, paused) VALUES ($1, $2) ON CONFLICT (release) DO NOTHING", release, micros(now))
		return err
	})
}

// Resume undoes Pause.
func (db *DB) Resume(ctx context.Context, release string) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM pauses WHERE release = $1", release)
		return err
	})
}

// Paused is since when a rollout is paused; zero if it is not.
func (db *DB) Paused(ctx context.Context, release string) (time.Time, error) {
	var at int64
	err := db.read.QueryRowContext(ctx, "SELECT paused FROM pauses WHERE release = $1", release).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return instant(at), err
}

// Event is one thing an operator did. The events are a chain: each hash covers
// the event and the hash before it, so that none can be changed, dropped or
// put between without all later ones changing too.
type Event struct {
	Seq    int64 // 1, 2, 3, …
	At     time.Time
	Actor  string // who: user name, or "server"
	Action string // what: "rollout.start", "recall", "device.block", …
	Target string // to what: release id, device id, token id
	Detail string // in words
	Hash   [32]byte
}

// chain is the hash of the event after one with the hash before: SHA-256 over
// the hash before, sequence number and microseconds (8 bytes each, big endian)
// and the four texts, each after its length in 4 bytes, big endian.
func (e Event) chain(before [32]byte) [32]byte {
	b := append([]byte("sealant event 1\n"), before[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(micros(e.At)))
	for _, text := range []string{e.Actor, e.Action, e.Target, e.Detail} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	return sha256.Sum256(b)
}

// Note adds an event at the end of the chain; Seq and Hash are set by it.
func (db *DB) Note(ctx context.Context, e Event) error {
	return db.race(ctx, func(tx *sql.Tx) error {
		var before [32]byte
		var hash []byte
		e.Seq = 0
		err := tx.QueryRowContext(ctx, "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").Scan(&e.Seq, &hash)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		copy(before[:], hash)
		e.Seq++
		e.Hash = e.chain(before)
		_, err = tx.ExecContext(ctx, `INSERT INTO events (seq, at, actor, action, target, detail, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			e.Seq, micros(e.At), e.Actor, e.Action, e.Target, e.Detail, e.Hash[:])
		return err
	})
}

// Events reads the whole chain, oldest first, and checks it. It returns the
// events that are proven and, if the chain is broken, an error that says where.
func (db *DB) Events(ctx context.Context) ([]Event, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT seq, at, actor, action, target, detail, hash FROM events ORDER BY seq")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Event
	var before [32]byte
	for rows.Next() {
		var e Event
		var at int64
		var hash []byte
		if err := rows.Scan(&e.Seq, &at, &e.Actor, &e.Action, &e.Target, &e.Detail, &hash); err != nil {
			return nil, err
		}
		e.At = instant(at)
		e.Hash = e.chain(before)
		if e.Seq != int64(len(list)+1) || string(hash) != string(e.Hash[:]) {
			return list, fmt.Errorf("cannot vouch for the operators' log: it was changed at or before event %d", e.Seq)
		}
		list = append(list, e)
		before = e.Hash
	}
	return list, rows.Err()
}
