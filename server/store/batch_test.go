package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/server/store/storetest"
)

// TestStopIsAnEnd stops a release while two servers record tickets for it: when
// Stop has returned, no row is added any more.
func TestStopIsAnEnd(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		first, second, operator, ctx := open(t, name), open(t, name), open(t, name), t.Context()
		const release = "SI-2026-0001"
		secret := token(t, first, 16)
		var all sync.WaitGroup
		for n := range 16 {
			d, err := first.Enrol(ctx, secret, device(n), now)
			if err != nil {
				t.Fatal(err)
			}
			db := first
			if n%2 == 1 {
				db = second
			}
			all.Go(func() {
				for i := 0; ; i++ {
					row := ticket(d, release, byte(i), now.Add(time.Duration(i)*time.Second))
					row.Digest[1], row.Digest[2] = byte(i), byte(i>>8)
					if _, err := db.Record(ctx, row); errors.Is(err, store.ErrStopped) {
						return
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		count := func() (n int64) {
			t.Helper()
			sets, err := operator.Authorised(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sets {
				n += s.Tickets
			}
			return n
		}
		for count() < 100 {
			time.Sleep(time.Millisecond)
		}
		if err := operator.Stop(ctx, release, "harms mail", now); err != nil {
			t.Fatal(err)
		}
		at := count()
		all.Wait()
		if after := count(); after != at {
			t.Errorf("%d tickets when Stop returned, %d later", at, after)
		}
	})
}

// TestBatchOfEveryKind records at once what must be told apart in one batch:
// the same ticket several times, several of one device, baselines', and tickets
// for devices that are blocked, unknown or of another product.
func TestBatchOfEveryKind(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		good, blocked, other := enrol(t, db, 1), enrol(t, db, 2), enrol(t, db, 3)
		if err := db.Block(ctx, blocked.ID, "stolen", now); err != nil {
			t.Fatal(err)
		}
		wrong := ticket(other, "SI-2026-0001", 1, now)
		wrong.Product = "AnotherOS"
		base := store.Ticket{Digest: [32]byte{5}, Device: good.ID, Product: good.Product, Baseline: good.Baseline, Domain: store.NoDomain, Issued: now}
		wrongBase := base
		wrongBase.Product = "AnotherOS"
		kinds := []struct {
			row  store.Ticket
			want error
		}{
			{ticket(good, "SI-2026-0001", 1, now), nil},
			{ticket(good, "SI-2026-0002", 1, now), nil},
			{base, nil},
			{wrongBase, store.ErrProduct},
			{ticket(blocked, "SI-2026-0001", 1, now), store.ErrBlocked},
			{ticket(device(99), "SI-2026-0001", 1, now), store.ErrNotFound},
			{wrong, store.ErrProduct},
		}
		const each = 40
		var all sync.WaitGroup
		for range each {
			for _, k := range kinds {
				all.Go(func() {
					if _, err := db.Record(ctx, k.row); !errors.Is(err, k.want) {
						t.Errorf("device %x, product %s: %v, want %v", k.row.Device[:2], k.row.Product, err, k.want)
					}
				})
			}
		}
		all.Wait()
		list, err := db.Tickets(ctx, good.ID, 10)
		if err != nil || len(list) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, row := range list {
			if row.Served != each {
				t.Errorf("%s was served %d times, want %d", row.Release, row.Served, each)
			}
		}
		for _, d := range []store.Device{blocked, other} {
			if list, err := db.Tickets(ctx, d.ID, 10); err != nil || len(list) != 0 {
				t.Errorf("a refused ticket left a row: %+v, %v", list, err)
			}
		}
	})
}

// TestBackup copies a database that is being written.
func TestBackup(t *testing.T) {
	storetest.Each(t, func(t *testing.T, name string) {
		db, ctx := open(t, name), t.Context()
		d := enrol(t, db, 1)
		stop := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				row := ticket(d, "SI-2026-0001", byte(i), now)
				row.Digest[1], row.Digest[2] = byte(i), byte(i>>8)
				if _, err := db.Record(ctx, row); err != nil {
					t.Error(err)
					return
				}
			}
		})
		file := filepath.Join(t.TempDir(), "copy.db")
		_, err := db.Backup(ctx, file)
		close(stop)
		writer.Wait()
		if strings.HasPrefix(name, "postgres:") {
			if !errors.Is(err, store.ErrPostgres) {
				t.Errorf("PostgreSQL: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		again := open(t, file)
		if _, err := again.Device(ctx, d.ID); err != nil {
			t.Error(err)
		}
		if _, err := db.Backup(ctx, file); err == nil {
			t.Error("it wrote over a file")
		}
	})
}
