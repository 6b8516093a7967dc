package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// ErrPostgres: what was asked for is a task of PostgreSQL's own tools.
var ErrPostgres = errors.New("PostgreSQL's own pg_dump does it")

// Backup writes a consistent copy of a SQLite database to a file that must not
// exist, while others go on writing, and checks the copy. It returns its size.
func (db *DB) Backup(ctx context.Context, file string) (size int64, err error) {
	if db.postgres {
		return 0, ErrPostgres
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("cannot copy the database: %s exists already", file)
	}
	// Only the owner may read it from its first byte on; VACUUM INTO takes an
	// empty file.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("cannot copy the database: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(file)
		}
	}()
	defer f.Close()
	if _, err := db.read.ExecContext(ctx, "VACUUM INTO $1", file); err != nil {
		return 0, fmt.Errorf("cannot copy the database: %w", err)
	}
	if err := whole(ctx, file); err != nil {
		return 0, fmt.Errorf("cannot copy the database: the copy is damaged: %w", err)
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("cannot copy the database: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("cannot copy the database: %w", err)
	}
	return info.Size(), nil
}

// whole has SQLite check a file.
func whole(ctx context.Context, file string) error {
	path, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro"}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	var answer string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&answer); err != nil {
		return err
	}
	if answer != "ok" {
		return errors.New(answer)
	}
	return nil
}
