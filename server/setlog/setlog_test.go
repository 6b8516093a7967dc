package setlog_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/setlog"
	"github.com/sealant-os/sealant/server/store/storetest"
	trustlog "github.com/sealant-os/sealant/trust/setlog"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// reader reads a node's log over HTTP, as a device would.
func reader(t *testing.T, n *servertest.Node) *trustlog.Client {
	t.Helper()
	key := n.Get("/log/key")
	v, err := note.NewVerifier(strings.TrimSpace(string(key.Body)))
	if err != nil {
		t.Fatal(err)
	}
	return &trustlog.Client{Verifier: v, Fetch: func(path string, limit int64) ([]byte, error) {
		a := n.Get("/log/" + path)
		switch {
		case a.Status == http.StatusNotFound:
			return nil, trustlog.ErrAbsent
		case a.Status != http.StatusOK || int64(len(a.Body)) > limit:
			return nil, fmt.Errorf("status %d", a.Status)
		}
		return a.Body, nil
	}}
}

func set(t *testing.T, n *servertest.Node, level int) *catalog.Set {
	t.Helper()
	view, err := n.Source.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	if level > 0 {
		id = servertest.ID(level)
	}
	s, ok := view.Set(servertest.Product, n.World.Baseline.Digest(), id)
	if !ok {
		t.Fatalf("there is no set %q", id)
	}
	return s
}

func TestWhatIsSignedIsInTheLog(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		w := servertest.New(t)
		for level := 1; level <= 3; level++ {
			w.Release(level, 100)
		}
		one, two := w.Start(database), w.Start(database)
		c := reader(t, one)
		if a := one.Get("/log/latest"); a.Status != 404 {
			t.Errorf("an empty log: %s", a)
		}
		if _, err := c.Check(set(t, one, 1).Text(), tlog.Tree{}); !errors.Is(err, trustlog.ErrAbsent) {
			t.Errorf("before anything was signed: %v", err)
		}
		d := one.Enrolled()
		head, err := c.Check(set(t, one, 0).Text(), tlog.Tree{})
		if err != nil || head.N != 1 {
			t.Fatalf("%+v, %v", head, err)
		}
		// Two servers sign new sets at the same time.
		var wg sync.WaitGroup
		for level := 1; level <= 3; level++ {
			for _, n := range []*servertest.Node{one, two} {
				wg.Go(func() {
					if a := d.Ask(n, level, level); a.Status != 200 {
						t.Error(a)
					}
				})
			}
		}
		wg.Wait()
		for level := range 4 {
			if head, err = reader(t, two).Check(set(t, two, level).Text(), head); err != nil {
				t.Errorf("level %d: %v", level, err)
			}
		}
		if head.N != 4 {
			t.Errorf("%d records, want one for each set", head.N)
		}
		// Refused requests leave nothing.
		w.Recall(3)
		if a := d.Ask(one, 3, 9); a.Code() != "recalled" {
			t.Error(a)
		}
		records, err := setlog.Audit(t.Context(), one.DB, c.Verifier)
		if err != nil || len(records) != 4 {
			t.Errorf("%d records, %v", len(records), err)
		}
	})
}

func TestTiles(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(t.TempDir() + "/fleet.db")
	// Many sets, as a vendor has after years.
	base := *set(t, n, 0)
	for i := range 300 {
		s := base
		s.Release = servertest.ID(100 + i)
		copy(s.Content[:], fmt.Sprintf("%048d", i))
		if i == 299 {
			s = *set(t, n, 1)
		}
		if err := n.SetLog.Include(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := reader(t, n).Check(set(t, n, 1).Text(), tlog.Tree{}); err != nil {
		t.Error(err)
	}
	for path, status := range map[string]int{
		"tile/8/0/000": 200, "tile/8/0/001.p/44": 200, "tile/8/0/001.p/10": 200, "tile/8/1/000.p/1": 200, "tile/8/data/000": 200, "tile/8/data/001.p/44": 200,
		"tile/8/0/001.p/45": 404, "tile/8/0/001": 404, "tile/8/0/002": 404, "tile/8/1/000.p/2": 404, "tile/8/2/000.p/1": 404, "tile/4/0/000": 404,
		"tile/8/0/x999/x999/x999/x999/x999/999": 404, "tile/8/63/000": 404, "tile/8/-1/000": 404, "tile/": 404, "": 404, "lookup/": 404, "lookup/zz": 404,
		"lookup/" + strings.Repeat("AB", 48): 404, "lookup/" + strings.Repeat("ab", 48): 404, "../metrics": 404,
	} {
		if a := n.Get("/log/" + path); a.Status != status && path != "../metrics" {
			t.Errorf("%s: %s, want %d", path, a, status)
		}
	}
	if a := n.Get("/log/tile/8/0/000"); len(a.Body) != 256*32 || !strings.Contains(a.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%d bytes, %v", len(a.Body), a.Header)
	}
	if a := n.Get("/log/tile/8/data/001.p/44"); bytes.Count(a.Body, []byte("sealant set 1\n")) != 44 {
		t.Errorf("%s", a.Body)
	}
}

func TestAuditFindsChanges(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	database := t.TempDir() + "/fleet.db"
	n := w.Start(database)
	if a := n.Enrolled().Ask(n, 1, 1); a.Status != 200 {
		t.Fatal(a)
	}
	v := reader(t, n).Verifier
	raw, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, change := range []struct{ do, undo string }{
		{"UPDATE log_records SET text = CAST('sealant set 1' || char(10) AS BLOB) WHERE number = 1", ""},
		{"DELETE FROM log_records WHERE number = 1", ""},
	} {
		if _, err := setlog.Audit(t.Context(), n.DB, v); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Exec("CREATE TABLE kept AS SELECT * FROM log_records"); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Exec(change.do); err != nil {
			t.Fatal(err)
		}
		if _, err := setlog.Audit(t.Context(), n.DB, v); err == nil {
			t.Errorf("not found: %s", change.do)
		}
		for _, undo := range []string{"DELETE FROM log_records", "INSERT INTO log_records SELECT * FROM kept", "DROP TABLE kept"} {
			if _, err := raw.Exec(undo); err != nil {
				t.Fatal(err)
			}
		}
	}
	other, err := trustlog.NewSigner(servertest.Product, w.Online)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := note.NewVerifier(other.Key())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setlog.Audit(t.Context(), n.DB, stranger); err == nil {
		t.Error("a head by another key was accepted")
	}
}
