package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// maxGroupBits is the binary logarithm of how many tickets one statement
// carries at most. Statements exist for 1, 2, 4, … tickets, so that all of them
// can be prepared.
const maxGroupBits = 6

// columns of one ticket in the two statements that carry several.
const (
	touchWidth  = 6
	insertWidth = 10
)

// prepare makes the statements that tickets are written with.
func (r *recorder) prepare(ctx context.Context) error {
	prepare := func(to **sql.Stmt, pool *sql.DB, text string) error {
		stmt, err := pool.PrepareContext(ctx, text)
		*to = stmt
		return err
	}
	err := errors.Join(
		prepare(&r.device, r.db.read, "SELECT "+deviceColumns+" FROM devices WHERE id = $1"),
		prepare(&r.stops, r.db.write, "SELECT release FROM stops"),
		prepare(&r.touchBase, r.db.write, "UPDATE devices SET seen = $1, baseline = $2, release = $3 WHERE id = $4 AND blocked = 0 AND product = $5"),
		prepare(&r.diverge, r.db.write, "UPDATE devices SET diverged = $1, divergences = divergences + 1 WHERE id = $2"),
	)
	for bits := range maxGroupBits + 1 {
		err = errors.Join(err,
			prepare(&r.touch[bits], r.db.write, r.db.touchText(1<<bits)),
			prepare(&r.insert[bits], r.db.write, insertText(1<<bits)))
	}
	return err
}

// touchText is the statement that notes n tickets with nonces in the rows of n
// different devices. It hits no device that is blocked, or has another product
// than the ticket. It returns each device that it hit with the nonce of the
// ticket before, and whether the new one was there in an earlier ticket.
//
//	$1 domain; for each ticket: device, seen, baseline, release, nonce, product
func (db *DB) touchText(n int) string {
	var types [touchWidth]string
	if db.postgres { // does not guess the types of values that stand by themselves
		types = [touchWidth]string{"::bytea", "::bigint", "::bytea", "::text", "::bytea", "::text"}
	}
	// The right side of every = is what stood there before.
	return `UPDATE devices SET seen = v.column2, baseline = v.column3, release = v.column4, before = devices.nonce, nonce = v.column5
		FROM (VALUES ` + rows(n, 2, types[:]) + `) AS v
		WHERE devices.id = v.column1 AND devices.blocked = 0 AND devices.product = v.column6
		RETURNING id, before, CASE WHEN before = nonce OR LENGTH(before) = 0 THEN FALSE
			ELSE EXISTS (SELECT 1 FROM tickets WHERE tickets.device = devices.id AND tickets.domain = $1 AND tickets.nonce = devices.nonce) END`
}

// insertText is the statement that writes the rows of n tickets, or counts them
// once more. It returns how often each was served.
func insertText(n int) string {
	return "INSERT INTO tickets (" + ticketColumns + ") VALUES " + rows(n, 1, []string{"", "", "", "", "", "", "", "", "", "", "1"}) +
		" ON CONFLICT (device, domain, nonce, release, digest) DO UPDATE SET served = tickets.served + 1 RETURNING device, served"
}

// rows is a list of n rows of parameters that are numbered from first. A cell
// is what follows the parameter; one that is a digit stands for itself.
func rows(n, first int, cells []string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for j, cell := range cells {
			if j > 0 {
				b.WriteString(", ")
			}
			if cell == "1" {
				b.WriteString(cell)
				continue
			}
			fmt.Fprintf(&b, "$%d%s", first, cell)
			first++
		}
		b.WriteByte(')')
	}
	return b.String()
}

// write records a batch in one transaction and answers everybody in it.
func (r *recorder) write(batch []job) {
	// In the order of devices, so that two servers that write about the same
	// ones wait for each other and never in a circle.
	slices.SortStableFunc(batch, func(a, b job) int { return bytes.Compare(a.ticket.Device[:], b.ticket.Device[:]) })
	answers := make([]answer, len(batch))
	// Not the requests' contexts: one caller who leaves must not undo the rest.
	ctx := context.Background()
	err := r.db.race(ctx, func(tx *sql.Tx) error {
		clear(answers)
		stopped, err := r.stopped(ctx, tx)
		if err != nil {
			return err
		}
		left := make([]pending, 0, len(batch))
		for i := range batch {
			if stopped[batch[i].ticket.Release] {
				answers[i].err = ErrStopped
				continue
			}
			left = append(left, pending{&batch[i].ticket, &answers[i]})
		}
		for len(left) > 0 {
			var group []pending
			group, left = apart(left)
			if err := r.group(ctx, tx, group); err != nil {
				return err
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
	list, err := tx.StmtContext(ctx, r.stops).QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	var set map[string]bool
	for list.Next() {
		var release string
		if err := list.Scan(&release); err != nil {
			return nil, err
		}
		if set == nil {
			set = map[string]bool{}
		}
		set[release] = true
	}
	return set, list.Err()
}

// pending is one ticket of a batch, and the place for its answer.
type pending struct {
	*Ticket
	answer *answer
}

// apart takes tickets out of a list, which is in the order of devices: of one
// domain, and of each device one, its first. It leaves the others in order.
func apart(list []pending) (group, rest []pending) {
	for _, p := range list {
		if p.Domain != list[0].Domain || len(group) > 0 && group[len(group)-1].Device == p.Device {
			rest = append(rest, p)
			continue
		}
		group = append(group, p)
	}
	return group, rest
}

// powers divides a list into parts of 1, 2, 4, … tickets, as there are
// statements for.
func powers(list []pending, do func(n int, part []pending) error) error {
	for len(list) > 0 {
		n := min(bits.Len(uint(len(list)))-1, maxGroupBits)
		if err := do(n, list[:1<<n]); err != nil {
			return err
		}
		list = list[1<<n:]
	}
	return nil
}

// group writes tickets of one domain and of different devices. Errors that are
// about one of them are in its answer.
func (r *recorder) group(ctx context.Context, tx *sql.Tx, group []pending) error {
	touch := r.touchSome
	if group[0].Domain == NoDomain {
		touch = r.touchBases
	}
	found := make([]pending, 0, len(group))
	err := powers(group, func(n int, part []pending) error {
		hit, err := touch(ctx, tx, n, part)
		for i, p := range part {
			switch {
			case err != nil:
				return err
			case hit[i]:
				found = append(found, p)
			default:
				if p.answer.err, err = r.absent(ctx, tx, p.Ticket); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return powers(found, func(n int, part []pending) error { return r.insertSome(ctx, tx, n, part) })
}

// touchSome notes tickets in their devices' rows, and tells which were hit.
func (r *recorder) touchSome(ctx context.Context, tx *sql.Tx, n int, part []pending) ([]bool, error) {
	args := make([]any, 0, 1+touchWidth*len(part))
	args = append(args, part[0].Domain)
	for _, p := range part {
		args = append(args, p.Device[:], micros(p.Issued), p.Baseline[:], p.Release, p.Nonce, p.Product)
	}
	hit := make([]bool, len(part))
	var dead []pending
	err := each(ctx, tx, r.touch[n], args, func(list *sql.Rows) error {
		var device, before sql.RawBytes
		var old bool
		if err := list.Scan(&device, &before, &old); err != nil {
			return err
		}
		i, err := find(part, device)
		if err != nil {
			return err
		}
		hit[i] = true
		if old {
			dead = append(dead, part[i])
		}
		return nil
	})
	// A device that rolled its nonce can't name the old one again: either two
	// devices have this identity, or somebody set one back to an older copy.
	for _, p := range dead {
		if err == nil {
			p.answer.Diverged = true
			_, err = tx.StmtContext(ctx, r.diverge).ExecContext(ctx, micros(p.Issued), p.Device[:])
		}
	}
	return hit, err
}

// touchBases is touchSome for baselines' tickets, which have no nonce and are
// rare: a device gets one when it enrols.
func (r *recorder) touchBases(ctx context.Context, tx *sql.Tx, _ int, part []pending) ([]bool, error) {
	hit := make([]bool, len(part))
	for i, p := range part {
		res, err := tx.StmtContext(ctx, r.touchBase).ExecContext(ctx, micros(p.Issued), p.Baseline[:], p.Release, p.Device[:], p.Product)
		if err = exactlyOne(res, err); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		hit[i] = err == nil
	}
	return hit, nil
}

// insertSome writes the rows of tickets.
func (r *recorder) insertSome(ctx context.Context, tx *sql.Tx, n int, part []pending) error {
	args := make([]any, 0, insertWidth*len(part))
	for _, p := range part {
		nonce := p.Nonce
		if nonce == nil {
			nonce = []byte{} // the column takes no NULL
		}
		args = append(args, p.Device[:], p.Domain, nonce, p.Release, p.Digest[:], p.Product, p.Baseline[:], p.Content[:], p.Leaf[:], micros(p.Issued))
	}
	written := 0
	err := each(ctx, tx, r.insert[n], args, func(list *sql.Rows) error {
		var device sql.RawBytes
		var served int64
		if err := list.Scan(&device, &served); err != nil {
			return err
		}
		i, err := find(part, device)
		if err != nil {
			return err
		}
		part[i].answer.Repeated = served > 1
		written++
		return nil
	})
	if err == nil && written != len(part) {
		err = fmt.Errorf("%d rows of %d were written", written, len(part))
	}
	return err
}

// find is the place of a device in a part, which is in the order of devices.
func find(part []pending, device []byte) (int, error) {
	i, ok := slices.BinarySearchFunc(part, device, func(p pending, id []byte) int { return bytes.Compare(p.Device[:], id) })
	if !ok {
		return 0, errors.New("the database speaks of a device that it was not asked about")
	}
	return i, nil
}

// each calls do for every row that a statement returns.
func each(ctx context.Context, tx *sql.Tx, stmt *sql.Stmt, args []any, do func(*sql.Rows) error) error {
	list, err := tx.StmtContext(ctx, stmt).QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer list.Close()
	for list.Next() {
		if err := do(list); err != nil {
			return err
		}
	}
	return list.Err()
}

// absent says why the row of a ticket's device was not hit.
func (r *recorder) absent(ctx context.Context, tx *sql.Tx, t *Ticket) (reason, err error) {
	var product string
	var blocked int64
	err = tx.QueryRowContext(ctx, "SELECT product, blocked FROM devices WHERE id = $1", t.Device[:]).Scan(&product, &blocked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound, nil
	case err != nil:
		return nil, err
	case blocked != 0:
		return ErrBlocked, nil
	case product != t.Product:
		return ErrProduct, nil
	}
	// It was unblocked, or enrolled, since: another server's transaction ended
	// between the two statements. Asking again will do.
	return ErrNotFound, nil
}
