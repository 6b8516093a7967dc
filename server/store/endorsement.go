package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/hex"
	"errors"
	"time"
)

// Why a TPM does not admit a device.
var (
	ErrTPMUnknown = errors.New("the TPM is not on the list")
	ErrTPMRevoked = errors.New("the TPM was revoked")
	ErrChallenge  = errors.New("the challenge is unknown, expired or used, or its answer is wrong")
	ErrTPMOnly    = errors.New("only devices whose TPM is on the list are admitted")
)

// Endorsement is a TPM that may enrol devices: its endorsement key.
type Endorsement struct {
	ID      [32]byte // SHA-256 of the key (SPKI, DER)
	Note    string
	Added   time.Time
	Revoked time.Time // zero: not revoked
}

// byTPM is what stands in place of a token's id in a device's row.
func byTPM(id [32]byte) string { return "tpm:" + hex.EncodeToString(id[:8]) }

// AddEndorsement puts a TPM on the list, also one that was revoked before.
func (db *DB) AddEndorsement(ctx context.Context, id [32]byte, note string, now time.Time) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO endorsements (id, note, added, revoked) VALUES ($1, $2, $3, 0)
			ON CONFLICT (id) DO UPDATE SET note = excluded.note, revoked = 0`, id[:], note, micros(now))
		return err
	})
}

// NoteCertified is the note of TPMs that came onto the list by their maker's
// certificate.
const NoteCertified = "certified by its maker"

// CertifyEndorsement puts a TPM on the list because its maker's certificate was
// verified. One that is on the list stays as it is, revoked ones revoked.
func (db *DB) CertifyEndorsement(ctx context.Context, id [32]byte, now time.Time) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO endorsements (id, note, added, revoked) VALUES ($1, $2, $3, 0) ON CONFLICT (id) DO NOTHING",
			id[:], NoteCertified, micros(now))
		return err
	})
}

// RevokeEndorsement lets a TPM enrol no more devices; those that came in by it
// stay. ErrNotFound if it is not on the list.
func (db *DB) RevokeEndorsement(ctx context.Context, id [32]byte, now time.Time) error {
	return db.change(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE endorsements SET revoked = CASE WHEN revoked = 0 THEN $1 ELSE revoked END WHERE id = $2`,
			micros(now), id[:])
		return exactlyOne(res, err)
	})
}

// EachEndorsement calls do for every TPM of the list, in the order of their
// ids, until the first error.
func (db *DB) EachEndorsement(ctx context.Context, do func(Endorsement) error) error {
	rows, err := db.read.QueryContext(ctx, "SELECT id, note, added, revoked FROM endorsements ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e Endorsement
		var id []byte
		var added, revoked int64
		if err := rows.Scan(&id, &e.Note, &added, &revoked); err != nil {
			return err
		}
		copy(e.ID[:], id)
		e.Added, e.Revoked = instant(added), instant(revoked)
		if err := do(e); err != nil {
			return err
		}
	}
	return rows.Err()
}

// listed says why a TPM is not to be believed: ErrTPMUnknown, ErrTPMRevoked.
func listed(ctx context.Context, tx *sql.Tx, id []byte, lock string) error {
	var revoked int64
	err := tx.QueryRowContext(ctx, "SELECT revoked FROM endorsements WHERE id = $1"+lock, id).Scan(&revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrTPMUnknown
	case err != nil:
		return err
	case revoked != 0:
		return ErrTPMRevoked
	}
	return nil
}

// Challenge life: how long a device has for the answer, and how many of one TPM
// may be open. Whoever knows a listed endorsement key can ask for challenges to
// it; more than these make the oldest void.
const (
	ChallengeLife  = 2 * time.Minute
	openChallenges = 8
)

// NewChallenge remembers, for ChallengeLife, that the device was sent the
// secret, encrypted to the endorsement key.
func (db *DB) NewChallenge(ctx context.Context, endorsement, device [32]byte, secret []byte, now time.Time) (id [16]byte, err error) {
	rand.Read(id[:])
	hash := sha256.Sum256(secret)
	err = db.race(ctx, func(tx *sql.Tx) error {
		if err := listed(ctx, tx, endorsement[:], ""); err != nil {
			return err
		}
		for _, do := range []struct {
			query string
			args  []any
		}{
			{"DELETE FROM challenges WHERE expires <= $1", []any{micros(now)}},
			{
				"INSERT INTO challenges (id, endorsement, device, hash, made, expires) VALUES ($1, $2, $3, $4, $5, $6)",
				[]any{id[:], endorsement[:], device[:], hash[:], micros(now), micros(now.Add(ChallengeLife))},
			},
			{
				`DELETE FROM challenges WHERE endorsement = $1 AND id <> $2 AND id NOT IN
					(SELECT id FROM challenges WHERE endorsement = $1 AND id <> $2 ORDER BY made DESC, id LIMIT $3)`,
				[]any{endorsement[:], id[:], openChallenges - 1},
			},
		} {
			if _, err := tx.ExecContext(ctx, do.query, do.args...); err != nil {
				return err
			}
		}
		return nil
	})
	return id, err
}

// EnrolTPM admits a device by its answer to a challenge. The challenge is used
// up by the first answer, right or wrong. A blocked device stays out
// (ErrBlocked), as does one whose TPM was revoked meanwhile.
func (db *DB) EnrolTPM(ctx context.Context, challenge [16]byte, answer []byte, d Device, now time.Time) (Device, error) {
	var refusal error
	err := db.race(ctx, func(tx *sql.Tx) error {
		refusal = nil
		var endorsement, device, hash []byte
		var expires int64
		err := tx.QueryRowContext(ctx, "SELECT endorsement, device, hash, expires FROM challenges WHERE id = $1", challenge[:]).
			Scan(&endorsement, &device, &hash, &expires)
		if errors.Is(err, sql.ErrNoRows) {
			refusal = ErrChallenge
			return nil
		} else if err != nil {
			return err
		}
		// Of two servers that read the row only one deletes it.
		res, err := tx.ExecContext(ctx, "DELETE FROM challenges WHERE id = $1", challenge[:])
		if err := exactlyOne(res, err); errors.Is(err, ErrNotFound) {
			refusal = ErrChallenge
			return nil
		} else if err != nil {
			return err
		}
		got := sha256.Sum256(answer)
		if !now.Before(instant(expires)) || [32]byte(device) != d.ID || subtle.ConstantTimeCompare(got[:], hash) != 1 {
			refusal = ErrChallenge
			return nil
		}
		err = listed(ctx, tx, endorsement, db.forUpdate())
		if err == nil {
			d.Token = byTPM([32]byte(endorsement))
			err = db.writeDevice(ctx, tx, &d, now)
		}
		if errors.Is(err, ErrTPMUnknown) || errors.Is(err, ErrTPMRevoked) || errors.Is(err, ErrBlocked) {
			refusal, err = err, nil
		}
		return err
	})
	if err = errors.Join(err, refusal); err != nil {
		return Device{}, err
	}
	return d, nil
}

const settingTPMOnly = "enrol.tpm-only"

// SetTPMOnly decides, for every server on this database, whether tokens admit
// devices no more.
func (db *DB) SetTPMOnly(ctx context.Context, only bool) error {
	value := "no"
	if only {
		value = "yes"
	}
	return db.change(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, settingTPMOnly, value)
		return err
	})
}

// TPMOnly says what SetTPMOnly decided.
func (db *DB) TPMOnly(ctx context.Context) (bool, error) { return tpmOnly(ctx, db.read) }

func tpmOnly(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
},
) (bool, error) {
	var value string
	err := q.QueryRowContext(ctx, "SELECT value FROM settings WHERE name = $1", settingTPMOnly).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return value == "yes", err
}
