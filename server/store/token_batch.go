package store

import (
	"context"
	"database/sql"
	"errors"
)

// Why a token is not given, or not taken.
var (
	ErrBatchTaken = errors.New("the device was given its tokens for this day already")
	ErrSpent      = errors.New("the token was spent already")
)

// Spent is the token that a report spends.
type Spent struct {
	Nonce [32]byte
	Day   string // UTC, "2026-11-23"
}

// TakeBatch notes that a device is given its tokens for a day; ErrBatchTaken if
// it was before, by any server on this database. What is older than the day
// oldest is forgotten: who was given tokens then can't matter any more.
func (db *DB) TakeBatch(ctx context.Context, device [32]byte, day, oldest string) error {
	return db.race(ctx, func(tx *sql.Tx) error {
		for _, old := range []string{"DELETE FROM token_batches WHERE day < $1", "DELETE FROM tokens_spent WHERE day < $1"} {
			if _, err := tx.ExecContext(ctx, old, oldest); err != nil {
				return err
			}
		}
		res, err := tx.ExecContext(ctx, "INSERT INTO token_batches (device, day) VALUES ($1, $2) ON CONFLICT (device, day) DO NOTHING", device[:], day)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return ErrBatchTaken
		}
		return nil
	})
}

// spend notes that a token was spent; ErrSpent if it was before.
func spend(ctx context.Context, tx *sql.Tx, s *Spent) error {
	res, err := tx.ExecContext(ctx, "INSERT INTO tokens_spent (nonce, day) VALUES ($1, $2) ON CONFLICT (nonce) DO NOTHING", s.Nonce[:], s.Day)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return ErrSpent
	}
	return nil
}
