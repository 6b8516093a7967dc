package store

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
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

// alone makes a transaction wait until every other one that read the table of
// stops has ended, and keeps new ones from reading it until it ends itself. A
// batch of tickets that did not see a stop is on disk then, before the stop.
// SQLite has one writer at a time, and CockroachDB orders transactions by what
// they read; both need no lock (and CockroachDB knows none).
func (db *DB) alone(ctx context.Context, tx *sql.Tx) error {
	if !db.postgres {
		return nil
	}
	var version string
	if err := tx.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	if strings.HasPrefix(version, "CockroachDB") {
		return nil
	}
	_, err := tx.ExecContext(ctx, "LOCK TABLE stops IN ACCESS EXCLUSIVE MODE")
	return err
}
