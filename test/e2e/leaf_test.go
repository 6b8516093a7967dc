package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/trust/ticket"
)

// TestStolenLeaf: somebody has a leaf's key and stands between device and
// server. Until the leaf is revoked its tickets are as good as the server's;
// then no device stages what it signs, and what it signed before boots on.
func TestStolenLeaf(t *testing.T) {
	v := newVendor(t)
	early, late := v.enrolled(""), v.enrolled("")
	v.release(1, 100)

	w := v.world
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	v.must(err)
	cert, err := ticket.IssueLeaf(rand.Reader, w.Root, w.RootKey, key.Public(), ticket.Limits{}, w.Now().Add(-time.Minute), w.Now().Add(time.Hour))
	v.must(err)
	stolen, err := ticket.NewLeaf(key, cert, w.Root)
	v.must(err)
	v.hostile(v.rewrite("/v1/tickets", func(body []byte) []byte {
		var answer struct {
			Ticket []byte `json:"ticket"`
		}
		if json.Unmarshal(body, &answer) != nil {
			return body
		}
		tk, err := ticket.Parse(answer.Ticket)
		if err != nil {
			return body
		}
		answer.Ticket, err = ticket.Issue(rand.Reader, stolen, tk.Claims)
		if err != nil {
			t.Error(err)
		}
		body, _ = json.Marshal(answer)
		return body
	}))
	if r, err := early.install(""); err != nil || r.State != device.StateStaged {
		t.Fatalf("before the revocation: %+v, %v", r, err)
	}

	list, err := w.Repo.RecallList(servertest.Product)
	v.must(err)
	e := release.RevokedLeaf{ID: release.Hash(ticket.LeafID(cert)), Reason: "stolen", Date: release.Time(w.Now())}
	v.must(w.Repo.PublishRecall(list.WithLeaf(e), []crypto.Signer{w.RecallK}, w.Now()))
	w.Refresh()

	_, err = late.install("")
	wantKind(t, err, fault.Ticket)
	if s := late.status(); s.State == device.StateStaged {
		t.Errorf("staged nevertheless: %+v", s)
	}
	if rec := early.boot(); rec.Release != "SI-2026-0001" || early.level("web") != 1 {
		t.Errorf("what was staged before: %+v", rec)
	}
	// The real server's own leaf is another one.
	v.hostile(nil)
	if r, err := late.install(""); err != nil || r.State != device.StateStaged {
		t.Errorf("from the real server: %+v, %v", r, err)
	}
}
