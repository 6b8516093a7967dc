package rollout_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/trust/ticket"
)

func TestRevokeLeaf(t *testing.T) {
	w, n, d := start(t, 1)
	ctx := t.Context()
	if _, err := d.Start(ctx, servertest.ID(1), 100); err != nil {
		t.Fatal(err)
	}
	dev := n.Enrolled()
	a := dev.Ask(n, 1, 1)
	if a.Status != 200 {
		t.Fatal(a)
	}
	var answer struct {
		Ticket []byte `json:"ticket"`
	}
	if err := json.Unmarshal(a.Body, &answer); err != nil {
		t.Fatal(err)
	}
	tk, err := ticket.Parse(answer.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	id := ticket.LeafID(tk.Leaf)
	for _, reason := range []string{"", " ", "two\nlines", strings.Repeat("x", 300)} {
		_, err := d.RevokeLeaf(ctx, id, reason)
		kind(t, err, fault.Usage)
	}
	_, err = d.RevokeLeaf(ctx, release.Hash{}, "x")
	kind(t, err, fault.Usage)
	if again, err := d.RevokeLeaf(ctx, id, "the server was stolen"); err != nil || again {
		t.Fatal(again, err)
	}
	w.Pass(time.Minute)
	if again, err := d.RevokeLeaf(ctx, id, "once more"); err != nil || !again {
		t.Errorf("repeated: %v, %v", again, err)
	}
	list, err := w.Repo.RecallList(servertest.Product)
	if err != nil || len(list.Leaves) != 1 || list.Leaves[0].ID != release.Hash(id) || list.Leaves[0].Reason != "the server was stolen" {
		t.Errorf("%+v, %v", list, err)
	}
	// The service doesn't sign with it any more, not even what it may sign.
	if a := dev.Ask(n, 1, 2); a.Code() != "busy" {
		t.Error(a)
	}
	// A new leaf goes on.
	w.NewLeaf(time.Hour)
	w.Pass(time.Minute)
	if a := dev.Ask(n, 1, 3); a.Status != 200 {
		t.Error(a)
	}
	d.Recallers = nil
	_, err = d.RevokeLeaf(ctx, release.Hash{1}, "x")
	kind(t, err, fault.Usage)
}
