package store

import (
	"database/sql"
	"runtime"

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
