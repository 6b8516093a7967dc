package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/server/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, name string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// device is the n-th device; its key is no real key, the store does not look.
func device(n int) store.Device {
	key := fmt.Appendf(nil, "key %d", n)
	return store.Device{ID: sha256.Sum256(key), Key: key, Product: "ExampleOS", Baseline: [48]byte{1}}
}

func token(t testing.TB, db *store.DB, uses int64) string {
	t.Helper()
	secret, _, err := db.NewToken(t.Context(), "test", uses, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func enrol(t testing.TB, db *store.DB, n int) store.Device {
	t.Helper()
	d, err := db.Enrol(t.Context(), token(t, db, 1), device(n), now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ticket is an audit row as the signing room writes it.
func ticket(d store.Device, release string, nonce byte, at time.Time) store.Ticket {
	t := store.Ticket{
		Device: d.ID, Product: d.Product, Baseline: d.Baseline, Release: release,
		Domain: 1, Nonce: bytes.Repeat([]byte{nonce}, 48), Content: [48]byte{9}, Issued: at,
	}
	t.Digest = sha256.Sum256(fmt.Appendf(nil, "%x %s %d", d.ID, release, nonce))
	return t
}

func TestTokenCounts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		secret := token(t, db, 2)
		for n, want := range []error{nil, nil, store.ErrTokenUsed} {
			if _, err := db.Enrol(ctx, secret, device(n), now); !errors.Is(err, want) {
				t.Errorf("enrolment %d: %v, want %v", n, err, want)
			}
		}
		if _, err := db.Enrol(ctx, secret, device(1), now.Add(time.Second)); err != nil {
			t.Errorf("a device that lost the answer may ask again: %v", err)
		}
		if _, err := db.Enrol(ctx, secret, device(1), now.Add(time.Hour)); !errors.Is(err, store.ErrTokenExpired) {
			t.Errorf("at the very moment of expiry: %v", err)
		}
		if _, err := db.Enrol(ctx, secret+"x", device(4), now); !errors.Is(err, store.ErrTokenUnknown) {
			t.Errorf("unknown token: %v", err)
		}
		list, err := db.Tokens(ctx)
		if err != nil || len(list) != 1 || list[0].Used != 2 || list[0].Open(now) {
			t.Fatalf("tokens: %+v, %v", list, err)
		}
		fresh := token(t, db, 5)
		list, _ = db.Tokens(ctx)
		for _, tok := range list {
			if err := db.RevokeToken(ctx, tok.ID, now); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Enrol(ctx, fresh, device(5), now); !errors.Is(err, store.ErrTokenRevoked) {
			t.Errorf("revoked token: %v", err)
		}
		if err := db.RevokeToken(ctx, "nothing", now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("revoking nothing: %v", err)
		}
	})
}

func TestTokenKeepsNoSecret(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fleet.db")
	db := open(t, name)
	secret := token(t, db, 1)
	raw, err := sql.Open("sqlite", name)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var hits int
	err = raw.QueryRow("SELECT COUNT(*) FROM tokens WHERE hash LIKE $1 OR id = $2 OR note = $2", "%"+secret[4:]+"%", secret).Scan(&hits)
	if err != nil || hits != 0 {
		t.Errorf("the secret stands in the database (%d hits, %v)", hits, err)
	}
}

func TestTokenUsedTwiceAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		// Two servers on one database, twenty devices, seven places.
		one, two := open(t, name), open(t, name)
		secret := token(t, one, 7)
		var in, out atomic.Int64
		var wg sync.WaitGroup
		for n := range 20 {
			db := one
			if n%2 == 1 {
				db = two
			}
			wg.Go(func() {
				switch _, err := db.Enrol(context.Background(), secret, device(n), now); {
				case err == nil:
					in.Add(1)
				case errors.Is(err, store.ErrTokenUsed):
					out.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if in.Load() != 7 || out.Load() != 13 {
			t.Errorf("%d came in and %d stayed out, want 7 and 13", in.Load(), out.Load())
		}
		if all, _, err := one.Counts(t.Context()); err != nil || all != 7 {
			t.Errorf("%d devices, %v", all, err)
		}
	})
}

func TestDevices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		for n := range 20 {
			enrol(t, db, n)
		}
		want := device(7)
		got, err := db.Device(ctx, want.ID)
		if err != nil || string(got.Key) != "key 7" || got.Baseline != want.Baseline || !got.Enrolled.Equal(now) || !got.Blocked.IsZero() {
			t.Fatalf("%+v, %v", got, err)
		}
		if _, err := db.Device(ctx, [32]byte{}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("unknown device: %v", err)
		}
		list, err := db.Devices(ctx, store.Filter{})
		if err != nil || len(list) != 20 {
			t.Fatalf("%d devices, %v", len(list), err)
		}
		for i := 1; i < len(list); i++ {
			if bytes.Compare(list[i-1].ID[:], list[i].ID[:]) >= 0 {
				t.Error("devices are not in the order of their ids")
			}
		}
		if found, err := db.Devices(ctx, store.Filter{Prefix: want.ID[:4], Product: "ExampleOS"}); err != nil || len(found) != 1 || found[0].ID != want.ID {
			t.Errorf("by prefix: %+v, %v", found, err)
		}
		if found, err := db.Devices(ctx, store.Filter{Prefix: bytes.Repeat([]byte{0xff}, 32)}); err != nil || len(found) != 0 {
			t.Errorf("by the last prefix: %+v, %v", found, err)
		}
		if err := db.Block(ctx, want.ID, "lost", now); err != nil {
			t.Fatal(err)
		}
		if found, err := db.Devices(ctx, store.Filter{Blocked: true}); err != nil || len(found) != 1 || found[0].BlockReason != "lost" {
			t.Errorf("blocked: %+v, %v", found, err)
		}
		if _, err := db.Enrol(ctx, token(t, db, 1), want, now); !errors.Is(err, store.ErrBlocked) {
			t.Errorf("a blocked device must not enrol its way back: %v", err)
		}
		if all, blocked, err := db.Counts(ctx); err != nil || all != 20 || blocked != 1 {
			t.Errorf("counts %d, %d, %v", all, blocked, err)
		}
		if err := db.Unblock(ctx, want.ID); err != nil {
			t.Error(err)
		}
		if err := db.Block(ctx, [32]byte{}, "", now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("blocking nobody: %v", err)
		}
	})
}

func TestRecord(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		d := enrol(t, db, 1)
		row := ticket(d, "SI-2026-0001", 1, now)
		for i, repeated := range []bool{false, true, true} {
			rec, err := db.Record(ctx, row)
			if err != nil || rec.Repeated != repeated || rec.Diverged {
				t.Fatalf("time %d: %+v, %v", i, rec, err)
			}
		}
		list, err := db.Tickets(ctx, d.ID, 10)
		if err != nil || len(list) != 1 || list[0].Served != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		row.Served, row.Nonce = 3, bytes.Repeat([]byte{1}, 48)
		if got := list[0]; fmt.Sprint(got) != fmt.Sprint(row) {
			t.Errorf("read back %+v, wrote %+v", got, row)
		}
		if _, err := db.Record(ctx, ticket(device(99), "SI-2026-0001", 1, now)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a device that never enrolled: %v", err)
		}
		base := store.Ticket{Digest: [32]byte{5}, Device: d.ID, Product: d.Product, Baseline: d.Baseline, Domain: store.NoDomain, Issued: now}
		if rec, err := db.Record(ctx, base); err != nil || rec.Diverged {
			t.Errorf("baseline ticket: %+v, %v", rec, err)
		}
		if has, err := db.HasTicketFor(ctx, d.ID, "SI-2026-0001"); err != nil || !has {
			t.Errorf("HasTicketFor: %v, %v", has, err)
		}
		if has, err := db.HasTicketFor(ctx, d.ID, "SI-2026-0002"); err != nil || has {
			t.Errorf("HasTicketFor another release: %v, %v", has, err)
		}
		sets, err := db.Authorised(ctx)
		if err != nil || len(sets) != 2 || sets[0].Release != "" || sets[1].Tickets != 1 || sets[1].Devices != 1 {
			t.Errorf("authorised: %+v, %v", sets, err)
		}
		if ever, latest, err := db.DevicesOf(ctx, "SI-2026-0001"); err != nil || ever != 1 || latest != 0 {
			t.Errorf("devices of the release: %d ever, %d now, %v", ever, latest, err)
		}
	})
}

func TestRecordRefusesBlockedAndStopped(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		// Another process does what an operator does.
		db, operator, ctx := open(t, name), open(t, name), t.Context()
		d, other := enrol(t, db, 1), enrol(t, db, 2)
		if err := operator.Block(ctx, d.ID, "stolen", now); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Record(ctx, ticket(d, "SI-2026-0001", 1, now)); !errors.Is(err, store.ErrBlocked) {
			t.Errorf("blocked: %v", err)
		}
		if err := operator.Stop(ctx, "SI-2026-0001", "harms mail", now); err != nil {
			t.Fatal(err)
		}
		if err := operator.Stop(ctx, "SI-2026-0001", "again", now); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Record(ctx, ticket(other, "SI-2026-0001", 1, now)); !errors.Is(err, store.ErrStopped) {
			t.Errorf("stopped: %v", err)
		}
		if _, err := db.Record(ctx, ticket(other, "SI-2026-0002", 1, now)); err != nil {
			t.Errorf("another release must go on: %v", err)
		}
		stops, err := db.Stops(ctx)
		if err != nil || len(stops) != 1 || stops[0].Reason != "harms mail" {
			t.Errorf("stops %+v, %v", stops, err)
		}
		for _, id := range [][32]byte{d.ID, other.ID} {
			if list, _ := db.Tickets(ctx, id, 10); len(list) > 1 || len(list) == 1 && list[0].Release != "SI-2026-0002" {
				t.Errorf("a refused ticket left a row: %+v", list)
			}
		}
	})
}

func TestPause(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		paused := func(want time.Time) {
			t.Helper()
			if at, err := db.Paused(ctx, "SI-2026-0001"); err != nil || !at.Equal(want) {
				t.Errorf("paused %v, %v; want %v", at, err, want)
			}
		}
		paused(time.Time{})
		for _, at := range []time.Time{now, now.Add(time.Hour)} {
			if err := db.Pause(ctx, "SI-2026-0001", at); err != nil {
				t.Fatal(err)
			}
			paused(now)
		}
		for range 2 {
			if err := db.Resume(ctx, "SI-2026-0001"); err != nil {
				t.Fatal(err)
			}
			paused(time.Time{})
		}
	})
}

func TestDivergingNonces(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		d := enrol(t, db, 1)
		at := now
		for i, step := range []struct {
			release  string
			nonce    byte
			diverged bool
		}{
			{"SI-2026-0001", 1, false},
			{"SI-2026-0002", 1, false}, // a newer one before the restart
			{"SI-2026-0002", 2, false}, // rolled
			{"SI-2026-0003", 3, false},
			{"SI-2026-0003", 2, true}, // the copy asks with what the first one left behind
			{"SI-2026-0003", 3, true}, // and the first one comes again
		} {
			at = at.Add(time.Minute)
			row := ticket(d, step.release, step.nonce, at)
			row.Digest[0] ^= byte(i) // the leaf changed since: no ticket is sent twice
			rec, err := db.Record(ctx, row)
			if err != nil || rec.Diverged != step.diverged {
				t.Errorf("step %d: %+v, %v", i, rec, err)
			}
		}
		got, err := db.Device(ctx, d.ID)
		if err != nil || got.Divergences != 2 || !got.Diverged.Equal(at) || got.Release != "SI-2026-0003" {
			t.Errorf("%+v, %v", got, err)
		}
		if found, err := db.Devices(ctx, store.Filter{Cloned: true}); err != nil || len(found) != 1 {
			t.Errorf("%+v, %v", found, err)
		}
	})
}

func TestRecordInParallel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		secret := token(t, db, 200)
		devices := make([]store.Device, 200)
		for n := range devices {
			var err error
			if devices[n], err = db.Enrol(ctx, secret, device(n), now); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for _, d := range devices {
			wg.Go(func() {
				for nonce := range byte(3) {
					if _, err := db.Record(ctx, ticket(d, "SI-2026-0001", nonce, now.Add(time.Duration(nonce)*time.Second))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if sets, err := db.Authorised(ctx); err != nil || len(sets) != 1 || sets[0].Tickets != 600 || sets[0].Devices != 200 {
			t.Errorf("%+v, %v", sets, err)
		}
	})
}

func TestRestartKeepsEverything(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		d := enrol(t, db, 1)
		if _, err := db.Record(ctx, ticket(d, "SI-2026-0001", 1, now)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Record(ctx, ticket(d, "SI-2026-0001", 2, now)); !errors.Is(err, store.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		again := open(t, name)
		if list, err := again.Tickets(ctx, d.ID, 10); err != nil || len(list) != 1 {
			t.Errorf("%+v, %v", list, err)
		}
		if err := again.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestEventsAreAChain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, two, ctx := open(t, name), open(t, name), t.Context()
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				who := db
				if n%2 == 1 {
					who = two
				}
				for i := range 3 {
					if err := who.Note(context.Background(), store.Event{At: now, Actor: "alice", Action: "test", Detail: fmt.Sprint(n, i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		list, err := db.Events(ctx)
		if err != nil || len(list) != 12 || list[11].Seq != 12 {
			t.Fatalf("%d events, %v", len(list), err)
		}
		tamper(t, name, "UPDATE events SET actor = 'bob' WHERE seq = 5")
		if list, err := db.Events(ctx); err == nil || len(list) != 4 {
			t.Errorf("a changed event: %d proven, %v", len(list), err)
		}
		tamper(t, name, "UPDATE events SET actor = 'alice' WHERE seq = 5")
		if _, err := db.Events(ctx); err != nil {
			t.Errorf("put right again: %v", err)
		}
		tamper(t, name, "DELETE FROM events WHERE seq = 7")
		if list, err := db.Events(ctx); err == nil || len(list) != 6 {
			t.Errorf("a dropped event: %d proven, %v", len(list), err)
		}
	})
}

func tamper(t *testing.T, name, statement string) {
	t.Helper()
	driver := "sqlite"
	if len(name) > 9 && name[:9] == "postgres:" {
		driver = "pgx"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func TestCountsAddUp(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		cell := store.Cell{Release: "SI-2026-0001", OSBuild: "42.3.0", Arch: "amd64", Arm: "offered", Day: "2026-11-22", App: "mail", AtRisk: 1, Crashed: 1}
		add := func(id string, want bool, at time.Time) {
			t.Helper()
			var key []byte
			if id != "" {
				key = []byte(id)
			}
			fresh, err := db.AddCounts(ctx, key, store.Counts{
				Cells: []store.Cell{cell}, Recommendations: []store.Recommendation{{Release: "SI-2026-0001", App: "mail", Outcome: "shown", Count: 1}},
			}, at)
			if err != nil || fresh != want {
				t.Errorf("%q: %v, %v", id, fresh, err)
			}
		}
		add("", true, now)
		add("a", true, now)
		add("a", false, now.Add(time.Hour))
		add("b", true, now)
		add("a", true, now.Add(49*time.Hour)) // forgotten: no list of reports is kept for ever
		cells, err := db.Cells(ctx, "SI-2026-0001")
		if err != nil || len(cells) != 1 || cells[0].AtRisk != 4 || cells[0].Crashed != 4 {
			t.Errorf("%+v, %v", cells, err)
		}
		if cells, err := db.Cells(ctx, "SI-2026-0002"); err != nil || len(cells) != 0 {
			t.Errorf("another release: %+v, %v", cells, err)
		}
		recs, err := db.Recommendations(ctx, "")
		if err != nil || len(recs) != 1 || recs[0].Count != 4 {
			t.Errorf("%+v, %v", recs, err)
		}
	})
}

func TestOpenRefusesANewerDatabase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		open(t, name).Close()
		tamper(t, name, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, true)")
		if _, err := store.Open(t.Context(), name); err == nil {
			t.Error("a database of a newer program was opened")
		}
	})
}

func TestOpenRefusesNonsense(t *testing.T) {
	for _, name := range []string{"", "sqlite:", "/does/not/exist/fleet.db", "postgres:///nothing?host=/does/not/exist"} {
		if _, err := store.Open(t.Context(), name); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
}

// TestOpenAtOnce: several processes open a new database in the same moment.
func TestOpenAtOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fleet.db")
	errs := make(chan error)
	const openers = 8
	for range openers {
		go func() {
			db, err := store.Open(context.Background(), name)
			if err == nil {
				err = db.Close()
			}
			errs <- err
		}()
	}
	for range openers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
