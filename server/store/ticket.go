package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Why a ticket that was signed must not be handed out after all.
var (
	ErrStopped = errors.New("signing of this release was stopped")
	ErrProduct = errors.New("the device is enrolled as another product")
	ErrClosed  = errors.New("the database is closed")
)

// NoDomain is the Domain of a ticket that is bound to no nonce.
const NoDomain = -1

// Ticket is the audit row of one ticket.
type Ticket struct {
	Digest   [32]byte // SHA-256 of the ticket as it is sent
	Device   [32]byte
	Product  string
	Baseline [48]byte
	Release  string   // "" for the baseline itself
	Domain   int64    // nonce domain, or NoDomain
	Nonce    []byte   // 48 bytes, none with NoDomain
	Content  [48]byte // digest of the set without device and nonce
	Leaf     [32]byte // SHA-256 of the certificate that signed
	Issued   time.Time
	Served   int64 // how often it was sent; set by reading
}

// Recorded says what was known when a ticket was recorded.
type Recorded struct {
	Repeated bool // the very same ticket was recorded before
	Diverged bool // its nonce was dead already: two devices share this identity, or one was set back
}

// Record writes the audit row of a ticket and returns when the row is on disk.
// The ticket may leave the house only after that. It is refused with ErrBlocked
// or ErrStopped if the device was blocked or the release stopped, ErrNotFound
// if the device is not enrolled, ErrProduct if it is enrolled as another
// product: the database orders Record against Block, Stop and enrolment, for
// every server that shares it. So what a caller remembers of a device may be
// out of date, and no wrong ticket leaves the house.
//
// Tickets that arrive while others are being written are written together.
func (db *DB) Record(ctx context.Context, t Ticket) (Recorded, error) {
	return db.recorder.record(ctx, t)
}

// Tickets lists the tickets issued to a device, newest first.
func (db *DB) Tickets(ctx context.Context, device [32]byte, limit int) ([]Ticket, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT "+ticketColumns+" FROM tickets WHERE device = $1 ORDER BY issued DESC LIMIT $2", device[:], limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Ticket
	for rows.Next() {
		t, err := scanTicket(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
}

// HasTicketFor tells whether a ticket for the release was ever issued to the device.
func (db *DB) HasTicketFor(ctx context.Context, device [32]byte, release string) (bool, error) {
	var one int
	err := db.read.QueryRowContext(ctx, "SELECT 1 FROM tickets WHERE device = $1 AND release = $2 LIMIT 1", device[:], release).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Authorised is one set that tickets were issued for.
type Authorised struct {
	Product  string
	Baseline [48]byte
	Release  string
	Content  [48]byte
	Tickets  int64
	Devices  int64
	First    time.Time
	Last     time.Time
}

// Authorised lists every distinct set ever signed: what an audit compares with
// the catalog.
func (db *DB) Authorised(ctx context.Context) ([]Authorised, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT product, baseline, release, content, COUNT(*), COUNT(DISTINCT device), MIN(issued), MAX(issued)
		FROM tickets GROUP BY product, baseline, release, content ORDER BY product, release`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Authorised
	for rows.Next() {
		var a Authorised
		var baseline, content []byte
		var first, last int64
		if err := rows.Scan(&a.Product, &baseline, &a.Release, &content, &a.Tickets, &a.Devices, &first, &last); err != nil {
			return nil, err
		}
		copy(a.Baseline[:], baseline)
		copy(a.Content[:], content)
		a.First, a.Last = instant(first), instant(last)
		list = append(list, a)
	}
	return list, rows.Err()
}

// DevicesOf counts the devices that ever got a ticket for the release, and
// those whose latest ticket is for it. It reads every ticket: seconds for a
// large fleet.
func (db *DB) DevicesOf(ctx context.Context, release string) (ever, latest int64, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT COUNT(DISTINCT device) FROM tickets WHERE release = $1", release).Scan(&ever)
	if err != nil {
		return 0, 0, err
	}
	latest, err = db.LatestOf(ctx, release)
	return ever, latest, err
}

// LatestOf counts the devices whose latest ticket is for the release.
func (db *DB) LatestOf(ctx context.Context, release string) (n int64, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM devices WHERE release = $1", release).Scan(&n)
	return n, err
}

// Latest counts devices by the release of their latest ticket, "" being the
// baseline.
func (db *DB) Latest(ctx context.Context) (map[string]int64, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT release, COUNT(*) FROM devices GROUP BY release")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[string]int64{}
	for rows.Next() {
		var release string
		var n int64
		if err := rows.Scan(&release, &n); err != nil {
			return nil, err
		}
		counts[release] = n
	}
	return counts, rows.Err()
}

const ticketColumns = "device, domain, nonce, release, digest, product, baseline, content, leaf, issued, served"

func scanTicket(row scanner) (Ticket, error) {
	var t Ticket
	var digest, device, baseline, content, leaf []byte
	var issued int64
	err := row.Scan(&device, &t.Domain, &t.Nonce, &t.Release, &digest, &t.Product, &baseline, &content, &leaf, &issued, &t.Served)
	copy(t.Digest[:], digest)
	copy(t.Device[:], device)
	copy(t.Baseline[:], baseline)
	copy(t.Content[:], content)
	copy(t.Leaf[:], leaf)
	t.Issued = instant(issued)
	return t, err
}
