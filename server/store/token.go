package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"time"
)

// Why a token is not accepted. Devices are told no more than that it is not;
// the operator's log says which.
var (
	ErrTokenUnknown = errors.New("the token is not known")
	ErrTokenExpired = errors.New("the token has expired")
	ErrTokenRevoked = errors.New("the token was revoked")
	ErrTokenUsed    = errors.New("the token is used up")
	ErrBlocked      = errors.New("the device is blocked")
)

// IsTokenError tells whether err says that an enrolment token is not accepted.
func IsTokenError(err error) bool {
	return errors.Is(err, ErrTokenUnknown) || errors.Is(err, ErrTokenExpired) ||
		errors.Is(err, ErrTokenRevoked) || errors.Is(err, ErrTokenUsed)
}

// Token allows a number of devices to enrol until it expires.
type Token struct {
	ID      string // public name, as in lists and in the log
	Note    string
	Uses    int64 // how many enrolments it is good for
	Used    int64
	Created time.Time
	Expires time.Time
	Revoked time.Time // zero: not revoked
}

// Open tells whether the token still lets a device in at the time now.
func (t Token) Open(now time.Time) bool {
	return t.Revoked.IsZero() && now.Before(t.Expires) && t.Used < t.Uses
}

// tokenCode spells secrets and ids without letters that people confuse.
var tokenCode = base32.NewEncoding("abcdefghjkmnpqrstuvwxyz023456789").WithPadding(base32.NoPadding)

// NewToken makes a token and returns its secret, which is kept nowhere: 160
// random bits behind the prefix "set-".
func (db *DB) NewToken(ctx context.Context, note string, uses int64, now, expires time.Time) (secret string, t Token, err error) {
	if uses < 1 {
		return "", Token{}, fmt.Errorf("cannot make a token: it must be good for at least one enrolment, not %d", uses)
	}
	if !expires.After(now) {
		return "", Token{}, errors.New("cannot make a token: it would have expired already")
	}
	var random [20]byte
	rand.Read(random[:])
	secret = "set-" + tokenCode.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(secret))
	t = Token{ID: tokenCode.EncodeToString(hash[:5]), Note: note, Uses: uses, Created: now, Expires: expires}
	err = db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (id, hash, note, uses, used, created, expires, revoked)
			VALUES ($1, $2, $3, $4, 0, $5, $6, 0)`, t.ID, hash[:], note, uses, micros(now), micros(expires))
		return err
	})
	return secret, t, err
}

const tokenColumns = "id, note, uses, used, created, expires, revoked"

func scanToken(row scanner) (Token, error) {
	var t Token
	var created, expires, revoked int64
	err := row.Scan(&t.ID, &t.Note, &t.Uses, &t.Used, &created, &expires, &revoked)
	t.Created, t.Expires, t.Revoked = instant(created), instant(expires), instant(revoked)
	return t, err
}

// Tokens lists every token, newest first.
func (db *DB) Tokens(ctx context.Context) ([]Token, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT "+tokenColumns+" FROM tokens ORDER BY created DESC, id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Token
	for rows.Next() {
		t, err := scanToken(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
}

// RevokeToken closes a token for good; ErrNotFound if there is none of that id.
func (db *DB) RevokeToken(ctx context.Context, id string, now time.Time) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked = CASE WHEN revoked = 0 THEN $1 ELSE revoked END WHERE id = $2`,
			micros(now), id)
		return exactlyOne(res, err)
	})
}

// Enrol admits a device by a token's secret: it uses the token up by one and
// writes the device's row, both or neither. A device that enrolled with the
// same token before is admitted again without another use, so that a lost
// answer can be asked for again. A blocked device stays out (ErrBlocked).
func (db *DB) Enrol(ctx context.Context, secret string, d Device, now time.Time) (Device, error) {
	hash := sha256.Sum256([]byte(secret))
	err := db.race(ctx, func(tx *sql.Tx) error {
		t, err := scanToken(tx.QueryRowContext(ctx, "SELECT "+tokenColumns+" FROM tokens WHERE hash = $1"+db.forUpdate(), hash[:]))
		if errors.Is(err, sql.ErrNoRows) {
			return ErrTokenUnknown
		} else if err != nil {
			return err
		}
		if only, err := tpmOnly(ctx, tx); err != nil {
			return err
		} else if only {
			return ErrTPMOnly
		}
		before, known, err := admissible(ctx, tx, d.ID)
		if err != nil {
			return err
		}
		if err := useToken(ctx, tx, t, known && before.Token == t.ID, now); err != nil {
			return err
		}
		d.Token = t.ID
		return db.writeDevice(ctx, tx, &d, now)
	})
	if err != nil {
		return Device{}, err
	}
	return d, nil
}

// admissible finds the row of a device that enrolled before; ErrBlocked if it
// may not again.
func admissible(ctx context.Context, tx *sql.Tx, id [32]byte) (before Device, known bool, err error) {
	before, err = scanDevice(tx.QueryRowContext(ctx, "SELECT "+deviceColumns+" FROM devices WHERE id = $1", id[:]))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Device{}, false, nil
	case err == nil && !before.Blocked.IsZero():
		err = ErrBlocked
	}
	return before, true, err
}

// writeDevice writes the row of a device that is admitted.
func (db *DB) writeDevice(ctx context.Context, tx *sql.Tx, d *Device, now time.Time) error {
	before, known, err := admissible(ctx, tx, d.ID)
	if err != nil {
		return err
	}
	d.Seen = now
	if known {
		d.Enrolled, d.Release = before.Enrolled, before.Release
		d.Diverged, d.Divergences = before.Diverged, before.Divergences
		_, err = tx.ExecContext(ctx, "UPDATE devices SET product = $1, baseline = $2, token = $3, seen = $4 WHERE id = $5",
			d.Product, d.Baseline[:], d.Token, micros(now), d.ID[:])
		return err
	}
	d.Enrolled = now
	_, err = tx.ExecContext(ctx, `INSERT INTO devices (`+deviceColumns+`, nonce, before)
		VALUES ($1, $2, $3, $4, '', $5, $6, $6, 0, '', 0, 0, $7, $7)`,
		d.ID[:], d.Key, d.Product, d.Baseline[:], d.Token, micros(now), []byte{})
	return err
}

// useToken counts one use. The update carries the conditions once more: of two
// servers that read the same row only one can use the last place.
func useToken(ctx context.Context, tx *sql.Tx, t Token, again bool, now time.Time) error {
	switch {
	case !t.Revoked.IsZero():
		return ErrTokenRevoked
	case !now.Before(t.Expires):
		return ErrTokenExpired
	case again:
		return nil
	case t.Used >= t.Uses:
		return ErrTokenUsed
	}
	res, err := tx.ExecContext(ctx, "UPDATE tokens SET used = used + 1 WHERE id = $1 AND used < uses AND revoked = 0", t.ID)
	if err := exactlyOne(res, err); errors.Is(err, ErrNotFound) {
		return ErrTokenUsed
	} else if err != nil {
		return err
	}
	return nil
}
