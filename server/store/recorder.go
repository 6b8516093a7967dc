package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
)

// maxBatch is how many tickets are written in one transaction at most.
const maxBatch = 256

// recorder writes tickets in groups: one flush to disk serves all that waited
// for the one before.
type recorder struct {
	db     *DB
	jobs   chan job
	quit   chan struct{}
	done   chan struct{}
	once   sync.Once
	device *sql.Stmt // reads one device; used by DB.Device

	stops, touch, touchBase, seen, insert, diverge *sql.Stmt
}

type job struct {
	ticket Ticket
	answer chan<- answer
}

type answer struct {
	Recorded
	err error
}

func (db *DB) startRecorder(ctx context.Context) error {
	r := &recorder{
		db: db, jobs: make(chan job, maxBatch), quit: make(chan struct{}), done: make(chan struct{}),
	}
	for _, s := range []struct {
		to   **sql.Stmt
		pool *sql.DB
		text string
	}{
		{&r.device, db.read, "SELECT " + deviceColumns + " FROM devices WHERE id = $1"},
		{&r.stops, db.write, "SELECT release FROM stops"},
		// The right side of every = is what stood there before.
		{&r.touch, db.write, "UPDATE devices SET seen = $1, baseline = $2, release = $3, before = nonce, nonce = $4 WHERE id = $5 AND blocked = 0 RETURNING before"},
		{&r.touchBase, db.write, "UPDATE devices SET seen = $1, baseline = $2, release = $3 WHERE id = $4 AND blocked = 0"},
		{&r.seen, db.write, "SELECT 1 FROM tickets WHERE device = $1 AND domain = $2 AND nonce = $3 LIMIT 1"},
		{&r.insert, db.write, "INSERT INTO tickets (" + ticketColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1) " +
			"ON CONFLICT (device, domain, nonce, release, digest) DO UPDATE SET served = tickets.served + 1 RETURNING served"},
		{&r.diverge, db.write, "UPDATE devices SET diverged = $1, divergences = divergences + 1 WHERE id = $2"},
	} {
		stmt, err := s.pool.PrepareContext(ctx, s.text)
		if err != nil {
			return err
		}
		*s.to = stmt
	}
	db.recorder = r
	go r.run()
	return nil
}

func (r *recorder) stop() {
	r.once.Do(func() { close(r.quit) })
	<-r.done
}

func (r *recorder) record(ctx context.Context, t Ticket) (Recorded, error) {
	reply := make(chan answer, 1)
	select {
	case r.jobs <- job{t, reply}:
	case <-r.quit:
		return Recorded{}, ErrClosed
	case <-ctx.Done():
		return Recorded{}, ctx.Err()
	}
	select {
	case a := <-reply:
		return a.Recorded, a.err
	case <-r.done:
		// The last batch may have held this job.
		select {
		case a := <-reply:
			return a.Recorded, a.err
		default:
			return Recorded{}, ErrClosed
		}
	case <-ctx.Done():
		// The row may still be written: an audit that lists a ticket nobody
		// received is right, one that misses a ticket is not.
		return Recorded{}, ctx.Err()
	}
}

func (r *recorder) run() {
	defer close(r.done)
	batch := make([]job, 0, maxBatch)
	for {
		select {
		case j := <-r.jobs:
			batch = append(batch[:0], j)
		case <-r.quit:
			// What was accepted before the end is still written.
			for batch = r.drain(batch[:0]); len(batch) > 0; batch = r.drain(batch[:0]) {
				r.write(batch)
			}
			return
		}
		r.write(r.drain(batch))
	}
}

// drain appends the jobs that wait already, up to maxBatch.
func (r *recorder) drain(batch []job) []job {
	for len(batch) < maxBatch {
		select {
		case j := <-r.jobs:
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

func (r *recorder) write(batch []job) {
	// In the order of devices, so that two servers that write about the same
	// ones wait for each other and never in a circle.
	slices.SortStableFunc(batch, func(a, b job) int { return bytes.Compare(a.ticket.Device[:], b.ticket.Device[:]) })
	answers := make([]answer, len(batch))
	// Not the requests' contexts: one caller who leaves must not undo the rest.
	ctx := context.Background()
	err := r.db.race(ctx, func(tx *sql.Tx) error {
		stopped, err := r.stopped(ctx, tx)
		if err != nil {
			return err
		}
		for i := range batch {
			answers[i] = answer{}
			a := &answers[i]
			if stopped[batch[i].ticket.Release] {
				a.err = ErrStopped
				continue
			}
			a.Recorded, a.err = r.one(ctx, tx, &batch[i].ticket)
			if a.err != nil && !errors.Is(a.err, ErrBlocked) && !errors.Is(a.err, ErrNotFound) {
				return a.err
			}
		}
		return nil
	})
	for i := range batch {
		if err != nil {
			answers[i] = answer{err: err}
		}
		batch[i].answer <- answers[i]
	}
}

func (r *recorder) stopped(ctx context.Context, tx *sql.Tx) (map[string]bool, error) {
	rows, err := tx.StmtContext(ctx, r.stops).QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var set map[string]bool
	for rows.Next() {
		var release string
		if err := rows.Scan(&release); err != nil {
			return nil, err
		}
		if set == nil {
			set = map[string]bool{}
		}
		set[release] = true
	}
	return set, rows.Err()
}

func (r *recorder) one(ctx context.Context, tx *sql.Tx, t *Ticket) (Recorded, error) {
	var rec Recorded
	var err error
	issued, nonce := micros(t.Issued), []byte{}
	if t.Domain == NoDomain {
		var res sql.Result
		res, err = tx.StmtContext(ctx, r.touchBase).ExecContext(ctx, issued, t.Baseline[:], t.Release, t.Device[:])
		err = exactlyOne(res, err)
	} else {
		nonce = t.Nonce
		var before []byte
		err = tx.StmtContext(ctx, r.touch).QueryRowContext(ctx, issued, t.Baseline[:], t.Release, nonce, t.Device[:]).Scan(&before)
		if err == nil && len(before) > 0 && !bytes.Equal(before, nonce) {
			rec.Diverged, err = r.diverged(ctx, tx, t, issued)
		}
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, sql.ErrNoRows) {
		return Recorded{}, r.absent(ctx, tx, t.Device)
	} else if err != nil {
		return Recorded{}, err
	}
	var served int64
	err = tx.StmtContext(ctx, r.insert).QueryRowContext(ctx, t.Device[:], t.Domain, nonce, t.Release, t.Digest[:],
		t.Product, t.Baseline[:], t.Content[:], t.Leaf[:], issued).Scan(&served)
	rec.Repeated = served > 1
	return rec, err
}

// absent says why a device's row could not be touched.
func (r *recorder) absent(ctx context.Context, tx *sql.Tx, id [32]byte) error {
	var one int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM devices WHERE id = $1", id[:]).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	} else if err != nil {
		return err
	}
	return ErrBlocked
}

// diverged tells whether a nonce that is not the one of the ticket before was
// seen earlier, and notes it. A device that rolled its nonce can't name the old
// one again, so either two devices have this identity, or somebody set one back
// to an older copy.
func (r *recorder) diverged(ctx context.Context, tx *sql.Tx, t *Ticket, now int64) (bool, error) {
	var one int
	err := tx.StmtContext(ctx, r.seen).QueryRowContext(ctx, t.Device[:], t.Domain, t.Nonce).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	_, err = tx.StmtContext(ctx, r.diverge).ExecContext(ctx, now, t.Device[:])
	return true, err
}
