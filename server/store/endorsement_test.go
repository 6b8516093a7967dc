package store_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/server/store/storetest"
)

func TestEnrolByTPM(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		ek, other, d := sha256.Sum256([]byte("ek")), sha256.Sum256([]byte("other")), device(1)
		secret, wrong := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
		challenge := func(at time.Time) [16]byte {
			t.Helper()
			id, err := db.NewChallenge(ctx, ek, d.ID, secret, at)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		want := func(what string, want error, id [16]byte, answer []byte, d store.Device, at time.Time) {
			t.Helper()
			if _, err := db.EnrolTPM(ctx, id, answer, d, at); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}

		if _, err := db.NewChallenge(ctx, ek, d.ID, secret, now); !errors.Is(err, store.ErrTPMUnknown) {
			t.Errorf("a TPM that is not on the list: %v", err)
		}
		for range 2 {
			if err := db.AddEndorsement(ctx, ek, "rack 7", now); err != nil {
				t.Fatal(err)
			}
		}
		id := challenge(now)
		want("another's challenge", store.ErrChallenge, id, secret, device(2), now)
		want("after a wrong answer", store.ErrChallenge, id, secret, d, now)
		id = challenge(now)
		want("a wrong answer", store.ErrChallenge, id, wrong, d, now)
		want("after that", store.ErrChallenge, id, secret, d, now)
		want("expired", store.ErrChallenge, challenge(now), secret, d, now.Add(store.ChallengeLife))
		want("unknown", store.ErrChallenge, [16]byte{1}, secret, d, now)
		if _, err := db.Device(ctx, d.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("somebody was admitted: %v", err)
		}

		id = challenge(now)
		got, err := db.EnrolTPM(ctx, id, secret, d, now.Add(time.Minute))
		if err != nil || got.Token != fmt.Sprintf("tpm:%x", ek[:8]) {
			t.Fatalf("%+v, %v", got, err)
		}
		want("replayed", store.ErrChallenge, id, secret, d, now)
		if row, err := db.Device(ctx, d.ID); err != nil || row.Token != got.Token {
			t.Errorf("%+v, %v", row, err)
		}

		// Whoever asks without end voids only the oldest.
		first := challenge(now)
		for i := range 7 {
			challenge(now.Add(time.Duration(i+1) * time.Second))
		}
		want("the oldest of eight", nil, first, secret, d, now)
		first = challenge(now)
		for i := range 8 {
			challenge(now.Add(time.Duration(i+1) * time.Second))
		}
		want("the oldest of nine", store.ErrChallenge, first, secret, d, now)

		id = challenge(now.Add(20 * time.Second))
		if err := db.RevokeEndorsement(ctx, ek, now); err != nil {
			t.Fatal(err)
		}
		want("revoked meanwhile", store.ErrTPMRevoked, id, secret, d, now)
		if _, err := db.NewChallenge(ctx, ek, d.ID, secret, now); !errors.Is(err, store.ErrTPMRevoked) {
			t.Errorf("a revoked TPM: %v", err)
		}
		if err := db.RevokeEndorsement(ctx, other, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("revoking what isn't there: %v", err)
		}
		if err := db.AddEndorsement(ctx, ek, "rack 8", now); err != nil {
			t.Fatal(err)
		}
		var list []store.Endorsement
		if err := db.EachEndorsement(ctx, func(e store.Endorsement) error { list = append(list, e); return nil }); err != nil ||
			len(list) != 1 || list[0].ID != ek || list[0].Note != "rack 8" || !list[0].Revoked.IsZero() {
			t.Errorf("%+v, %v", list, err)
		}
		if err := db.Block(ctx, d.ID, "stolen", now); err != nil {
			t.Fatal(err)
		}
		want("a blocked device", store.ErrBlocked, challenge(now), secret, d, now)
	})
}

// TestChallengeAnsweredTwiceAtOnce: of many servers that get the same answer
// one admits.
func TestChallengeAnsweredTwiceAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx, d := open(t, name), t.Context(), device(1)
		second := open(t, name)
		if err := db.AddEndorsement(ctx, [32]byte{1}, "", now); err != nil {
			t.Fatal(err)
		}
		id, err := db.NewChallenge(ctx, [32]byte{1}, d.ID, []byte("secret"), now)
		if err != nil {
			t.Fatal(err)
		}
		var admitted atomic.Int64
		var wait sync.WaitGroup
		for i := range 16 {
			wait.Go(func() {
				db := []*store.DB{db, second}[i%2]
				switch _, err := db.EnrolTPM(ctx, id, []byte("secret"), d, now); {
				case err == nil:
					admitted.Add(1)
				case !errors.Is(err, store.ErrChallenge):
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if admitted.Load() != 1 {
			t.Errorf("admitted %d times", admitted.Load())
		}
	})
}

func TestTPMOnly(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		secret := token(t, db, 5)
		for _, only := range []bool{false, true, true, false} {
			if err := db.SetTPMOnly(ctx, only); err != nil {
				t.Fatal(err)
			}
			if got, err := db.TPMOnly(ctx); err != nil || got != only {
				t.Errorf("%v, %v", got, err)
			}
			if _, err := db.Enrol(ctx, secret, device(1), now); errors.Is(err, store.ErrTPMOnly) != only || !only && err != nil {
				t.Errorf("token while only TPMs are admitted %v: %v", only, err)
			}
		}
	})
}
