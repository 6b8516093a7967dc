package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// LogRecord is one record of the public log of sets.
type LogRecord struct {
	Number  int64
	Content [48]byte // SHA-384 of Text
	Text    []byte
	At      time.Time
}

// Hashes reads hashes of the log's tree by their numbers.
type Hashes func(numbers []int64) ([][32]byte, error)

// AppendLog puts a record at the end of the log and returns its number; a
// record with the same content keeps the number it has. next is asked for the
// hashes to store from the number first on, and for the signed head of the log
// with the new record; all of it becomes visible at once.
func (db *DB) AppendLog(ctx context.Context, r LogRecord, next func(number int64, h Hashes) (first int64, hashes [][32]byte, head []byte, err error)) (int64, error) {
	var number int64
	err := db.race(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, "SELECT number FROM log_records WHERE content = $1", r.Content[:]).Scan(&number)
		if err == nil || !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM log_records").Scan(&number); err != nil {
			return err
		}
		first, hashes, head, err := next(number, func(numbers []int64) ([][32]byte, error) { return readHashes(ctx, tx, numbers) })
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO log_records (number, content, text, at) VALUES ($1, $2, $3, $4)",
			number, r.Content[:], r.Text, micros(r.At)); err != nil {
			return err
		}
		for i, h := range hashes {
			if _, err := tx.ExecContext(ctx, "INSERT INTO log_hashes (number, hash) VALUES ($1, $2)", first+int64(i), h[:]); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO log_heads (size, head) VALUES ($1, $2)", number+1, head)
		return err
	})
	return number, err
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readHashes(ctx context.Context, q querier, numbers []int64) ([][32]byte, error) {
	hashes := make([][32]byte, len(numbers))
	for i, n := range numbers {
		var h []byte
		if err := q.QueryRowContext(ctx, "SELECT hash FROM log_hashes WHERE number = $1", n).Scan(&h); err != nil {
			return nil, fmt.Errorf("cannot read hash %d of the log: %w", n, err)
		}
		if len(h) != 32 {
			return nil, fmt.Errorf("cannot read hash %d of the log: it is damaged", n)
		}
		copy(hashes[i][:], h)
	}
	return hashes, nil
}

// LogHashes reads hashes of the log's tree.
func (db *DB) LogHashes(ctx context.Context, numbers []int64) ([][32]byte, error) {
	return readHashes(ctx, db.read, numbers)
}

// LogHead is the newest signed head and its number of records; ErrNotFound
// while the log is empty.
func (db *DB) LogHead(ctx context.Context) (size int64, head []byte, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT size, head FROM log_heads ORDER BY size DESC LIMIT 1").Scan(&size, &head)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return size, head, err
}

// LogRecordOf finds a record by its content; ErrNotFound if there is none.
func (db *DB) LogRecordOf(ctx context.Context, content [48]byte) (LogRecord, error) {
	r, err := scanRecord(db.read.QueryRowContext(ctx, "SELECT number, content, text, at FROM log_records WHERE content = $1", content[:]))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return r, err
}

// LogRecords lists n records from the number first on, in their order.
func (db *DB) LogRecords(ctx context.Context, first, n int64) ([]LogRecord, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT number, content, text, at FROM log_records WHERE number >= $1 ORDER BY number LIMIT $2", first, n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []LogRecord
	for rows.Next() {
		r, err := scanRecord(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func scanRecord(row scanner) (LogRecord, error) {
	var r LogRecord
	var content []byte
	var at int64
	err := row.Scan(&r.Number, &content, &r.Text, &at)
	copy(r.Content[:], content)
	r.At = instant(at)
	return r, err
}
