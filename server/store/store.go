// Package store keeps what the server must remember between two requests:
// enrolment tokens, devices, one row for every ticket, releases that must not
// be signed any more, what operators did, and the counts that people agreed to
// share. Everything a device must be able to trust lives elsewhere, in signed
// files; a lost or forged database can refuse service, it can't authorise.
//
// The database is SQLite in one file, or anything that speaks PostgreSQL's
// protocol. Both get the same statements and the same migrations, which Open
// applies. Several servers may share one database; two rules hold between them
// because the database itself orders them: a token is used up exactly as often
// as it may be, and no ticket is recorded after its release was stopped or its
// device blocked (see DB.Record).
//
// Secrets: of a token only the SHA-256 is kept. Times are stored in
// microseconds of Unix time.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"

	_ "modernc.org/sqlite" // the embedded database
)

// ErrNotFound is returned where a row that was asked for is not there.
var ErrNotFound = errors.New("not found")

//go:embed migrations/*.sql
var migrations embed.FS

// DB is an open database. It is safe for concurrent use.
type DB struct {
	read     *sql.DB
	write    *sql.DB // SQLite: one connection, so that writers queue here and not in the file
	postgres bool
	path     string // of the SQLite file
	recorder *recorder
}

// Open opens the database that name names, creates it if it is a file that
// does not exist, and brings its tables up to date. A name is the path of a
// SQLite file, optionally with "sqlite:" before it, or a URL that starts with
// "postgres://" or "postgresql://".
func Open(ctx context.Context, name string) (*DB, error) {
	db, err := connect(name)
	if err != nil {
		return nil, fmt.Errorf("cannot open the database: %w", err)
	}
	if err := db.migrate(ctx); err != nil {
		db.closePools()
		return nil, fmt.Errorf("cannot open the database: %w", err)
	}
	if err := db.startRecorder(ctx); err != nil {
		db.closePools()
		return nil, fmt.Errorf("cannot open the database: %w", err)
	}
	return db, nil
}

func connect(name string) (*DB, error) {
	if strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://") {
		return connectPostgres(name)
	}
	return connectSQLite(strings.TrimPrefix(name, "sqlite:"))
}

func connectSQLite(path string) (*DB, error) {
	if path == "" {
		return nil, errors.New("no path given")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	// A ticket leaves the house only after its row is on disk, hence FULL.
	for _, p := range []string{"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(1)"} {
		q.Add("_pragma", p)
	}
	q.Set("_txlock", "immediate")
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	write, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", dsn)
	if err != nil {
		write.Close()
		return nil, err
	}
	n := max(4, 2*runtime.GOMAXPROCS(0))
	read.SetMaxOpenConns(n)
	read.SetMaxIdleConns(n)
	return &DB{read: read, write: write, path: path}, nil
}

func (db *DB) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	dialect := goose.DialectSQLite3
	opts := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	if db.postgres {
		dialect = goose.DialectPostgres
		locker, err := migrationLock()
		if err != nil {
			return err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	} else {
		unlock, err := lockMigration(ctx, db.path)
		if err != nil {
			return err
		}
		defer unlock()
	}
	provider, err := goose.NewProvider(dialect, db.write, files, opts...)
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return fmt.Errorf("its tables are of version %d, made by a newer sealsrv; this one knows %d", current, target)
	}
	_, err = provider.Up(ctx)
	return err
}

// lockMigration keeps other processes from bringing the tables of one SQLite
// file up to date at the same time. The lock is on a file beside it: SQLite's
// own locks on a file end when any descriptor of that file is closed.
func lockMigration(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".migration", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close waits for tickets that are being recorded and closes the database.
func (db *DB) Close() error {
	db.recorder.stop()
	return db.closePools()
}

func (db *DB) closePools() error {
	err := db.write.Close()
	if db.read != db.write {
		err = errors.Join(err, db.read.Close())
	}
	return err
}

// Ping tells whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	return db.read.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// change runs do in one transaction.
func (db *DB) change(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// forUpdate ends a SELECT that locks the rows it read until the transaction
// ends. SQLite has one writer at a time and needs no such lock.
func (db *DB) forUpdate() string {
	if db.postgres {
		return " FOR UPDATE"
	}
	return ""
}

// micros is t as it is stored; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// instant is the reverse of micros.
func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
