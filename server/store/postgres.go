package store

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL, CockroachDB and others of that protocol
	"github.com/pressly/goose/v3/lock"
)

func connectPostgres(url string) (*DB, error) {
	pool, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	n := max(8, 4*runtime.GOMAXPROCS(0))
	pool.SetMaxOpenConns(n)
	pool.SetMaxIdleConns(n)
	return &DB{read: pool, write: pool, postgres: true}, nil
}

// migrationLock lets one of several servers that start together apply the
// migrations while the others wait.
func migrationLock() (lock.SessionLocker, error) {
	return lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
}

// Conditions under which a transaction that lost against another one succeeds
// when it is repeated.
const (
	uniqueViolation      = "23505" // two took the same next number
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
)

// raceAttempts is how often a transaction that others keep overtaking is tried.
const raceAttempts = 50

// race runs do in one transaction, and again if another server's came before.
func (db *DB) race(ctx context.Context, do func(*sql.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := db.change(ctx, do)
		var pg *pgconn.PgError
		if err == nil || attempt == raceAttempts || !errors.As(err, &pg) {
			return err
		}
		if pg.Code != uniqueViolation && pg.Code != serializationFailure && pg.Code != deadlockDetected {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rand.N(10 * time.Millisecond)):
		}
	}
}
