package store

import (
	"context"
	"database/sql"
	"sync"
	"time"
)

// maxBatch is how many tickets are written in one transaction at most.
const maxBatch = 256

// pace is how long after the begin of one transaction the next one begins at
// the earliest. A ticket that comes alone waits for nothing; where many come,
// each waits a little, and one flush to disk serves all of them.
const pace = 4 * time.Millisecond

// recorder writes tickets in groups: one flush to disk, and a few statements,
// serve all that came while the group before was written.
type recorder struct {
	db     *DB
	jobs   chan job
	quit   chan struct{}
	done   chan struct{}
	once   sync.Once
	device *sql.Stmt // reads one device; used by DB.Device

	stops, touchBase, diverge *sql.Stmt
	touch, insert             [maxGroupBits + 1]*sql.Stmt // for 1, 2, 4, … tickets; see batch.go
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
	if err := r.prepare(ctx); err != nil {
		return err
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
	var begun time.Time
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
		if wait := pace - time.Since(begun); wait > 0 {
			time.Sleep(wait)
		}
		begun = time.Now()
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
