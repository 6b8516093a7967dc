package rollout_test

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server/rollout"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func desk(n *servertest.Node) *rollout.Desk {
	w := n.World
	return &rollout.Desk{
		DB: n.DB, Source: n.Source, Repository: w.Repo, Actor: "alice", Now: w.Now,
		Online: []crypto.Signer{w.Online}, Recallers: []crypto.Signer{w.RecallK}, Advisers: []crypto.Signer{w.AdviceK},
	}
}

func start(t *testing.T, releases int) (*servertest.World, *servertest.Node, *rollout.Desk) {
	t.Helper()
	w := servertest.New(t)
	for i := range releases {
		w.Release(i+1, -1)
	}
	n := w.Start(filepath.Join(t.TempDir(), "fleet.db"))
	return w, n, desk(n)
}

func kind(t *testing.T, err error, want fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != want {
		t.Errorf("got %v (%v), want %v", err, fault.KindOf(err), want)
	}
}

func TestRolloutLife(t *testing.T) {
	_, n, d := start(t, 1)
	ctx, id := t.Context(), servertest.ID(1)
	var devices []*servertest.Device
	for range 40 {
		devices = append(devices, n.Enrolled())
	}
	offered := func() (in int) {
		t.Helper()
		for _, dev := range devices {
			switch a := dev.Ask(n, 1, 1); a.Code() {
			case "":
				in++
			case "not-in-ring":
			default:
				t.Fatal(a)
			}
		}
		return in
	}
	status := func() rollout.Status {
		t.Helper()
		s, err := d.Status(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(); s.Begun || s.Devices != 40 || s.Offered != 0 {
		t.Errorf("before the start: %+v", s)
	}
	for _, act := range []func() error{
		func() error { _, err := d.Pause(ctx, id); return err },
		func() error { _, err := d.Halt(ctx, id, ""); return err },
		func() error { _, err := d.Resume(ctx, id, -1); return err },
		func() error { _, err := d.Start(ctx, id, 101); return err },
		func() error { _, err := d.Start(ctx, "SI-2026-0099", 1); return err },
		func() error { _, err := d.Start(ctx, "../x", 1); return err },
	} {
		kind(t, act(), fault.Usage)
	}
	ring, err := d.Start(ctx, id, 30)
	if err != nil || ring.Percent != 30 {
		t.Fatalf("%+v, %v", ring, err)
	}
	first := offered()
	if s := status(); first == 0 || first == 40 || int(s.Offered) != first || int(s.Now) != first {
		t.Errorf("%d got it: %+v", first, s)
	}
	if _, err := d.Pause(ctx, id); err != nil {
		t.Fatal(err)
	}
	_, err = d.Start(ctx, id, 60)
	kind(t, err, fault.Refused)
	if offered() != first || status().Paused.IsZero() {
		t.Error("a pause changes nothing for those who are in")
	}
	again, err := d.Resume(ctx, id, 60)
	if err != nil || again.Percent != 60 || again.Salt != ring.Salt {
		t.Errorf("%+v, %v: the salt must stay, or others would be first now", again, err)
	}
	if _, err := d.Halt(ctx, id, "mail crashes"); err != nil {
		t.Fatal(err)
	}
	if offered() != first || status().Offered != 0 {
		t.Error("a halt must keep those who have it and let nobody new in")
	}
	_, err = d.Start(ctx, id, 100)
	kind(t, err, fault.Refused)
	if _, err := d.Resume(ctx, id, 100); err != nil {
		t.Fatal(err)
	}
	if offered() != 40 {
		t.Error("not all got it in the end")
	}
	events, err := n.DB.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range events {
		told = append(told, e.Actor+" "+e.Action+" "+e.Detail)
	}
	if got := strings.Join(told, "; "); got != "alice rollout.start 30 %; alice rollout.pause at 30 %; alice rollout.resume 60 %; alice rollout.halt 60 %: mail crashes; alice rollout.resume 100 %" {
		t.Errorf("the log says: %s", got)
	}
}

func TestStartWithoutPercentage(t *testing.T) {
	w, n, d := start(t, 1)
	if ring, err := d.Start(t.Context(), servertest.ID(1), -1); err != nil || ring.Percent != 100 {
		t.Fatalf("%+v, %v", ring, err)
	}
	token := n.Token(rollout.SmallFleet + 1)
	for range rollout.SmallFleet + 1 {
		if a := w.Device().Enrol(n, token); a.Status != 200 {
			t.Fatal(a)
		}
	}
	_, err := d.Start(t.Context(), servertest.ID(1), -1)
	kind(t, err, fault.Usage)
}

func TestRecallOnlyTheMostRecent(t *testing.T) {
	w, n, d := start(t, 3)
	ctx := t.Context()
	for i := 1; i <= 3; i++ {
		if _, err := d.Start(ctx, servertest.ID(i), 100); err != nil {
			t.Fatal(err)
		}
	}
	dev := n.Enrolled()
	if a := dev.Ask(n, 3, 1); a.Status != 200 {
		t.Fatal(a)
	}
	_, err := d.Recall(ctx, servertest.ID(2), "x", "")
	kind(t, err, fault.Refused)
	if stops, _ := n.DB.Stops(ctx); len(stops) != 0 {
		t.Errorf("a refused recall stopped %v", stops)
	}
	for _, reason := range []string{"", "  ", "two\nlines", strings.Repeat("x", 300), "\x1b[31m"} {
		_, err := d.Recall(ctx, servertest.ID(3), reason, "")
		kind(t, err, fault.Usage)
	}
	if stops, _ := n.DB.Stops(ctx); len(stops) != 0 {
		t.Errorf("a refused recall stopped %v", stops)
	}
	p, err := d.PlanRecall(ctx, servertest.ID(3))
	if err != nil || p.To != servertest.ID(2) || p.Devices != 1 || len(p.Opens) != 1 || p.Opens[0].ID != "CVE-2026-1103" || len(p.Stays) != 2 || p.Done {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := d.Recall(ctx, servertest.ID(3), "Mail closes", ""); err != nil {
		t.Fatal(err)
	}
	if a := dev.Ask(n, 3, 2); a.Code() != "recalled" || !strings.Contains(string(a.Body), "Mail closes") {
		t.Error(a)
	}
	w.Pass(1)
	if p, err := d.Recall(ctx, servertest.ID(3), "again", ""); err != nil || !p.Done {
		t.Errorf("repeated: %+v, %v", p, err)
	}
	if list, err := w.Repo.RecallList(servertest.Product); err != nil || len(list.Entries) != 1 || list.Entries[0].Reason != "Mail closes" || list.Version != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	// Now (b) is the most recent that is left; its recall lands on (a), and so
	// does that of (c) from now on.
	if p, err := d.Recall(ctx, servertest.ID(2), "that too", ""); err != nil || p.To != servertest.ID(1) {
		t.Errorf("%+v, %v", p, err)
	}
	if a := dev.Ask(n, 1, 2); a.Status != 200 {
		t.Error(a)
	}
	s, err := d.Status(ctx, servertest.ID(3))
	if err != nil || s.Recalled == nil || s.Ever != 1 || s.Now != 0 || s.TakenBack != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = d.Start(ctx, servertest.ID(3), 100)
	kind(t, err, fault.Recalled)
	_, err = d.Resume(ctx, servertest.ID(3), 100)
	kind(t, err, fault.Recalled)
}

func TestRecallWithoutTheKeyStopsNothing(t *testing.T) {
	_, n, d := start(t, 1)
	d.Recallers = nil
	_, err := d.Recall(t.Context(), servertest.ID(1), "x", "")
	kind(t, err, fault.Usage)
	if stops, _ := n.DB.Stops(t.Context()); len(stops) != 0 {
		t.Errorf("stopped %v", stops)
	}
}

func TestRecallThatCantBePublishedHasStoppedSigning(t *testing.T) {
	w, n, d := start(t, 1)
	ctx := t.Context()
	if _, err := d.Start(ctx, servertest.ID(1), 100); err != nil {
		t.Fatal(err)
	}
	dev := n.Enrolled()
	d.Recallers = []crypto.Signer{w.AdviceK} // a key, but not the one that counts
	_, err := d.Recall(ctx, servertest.ID(1), "harms", "")
	if err == nil || !strings.Contains(fault.HintOf(err), "signing of") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	if a := dev.Ask(n, 1, 1); a.Code() != "recalled" {
		t.Error(a)
	}
	d.Recallers = []crypto.Signer{w.RecallK}
	if _, err := d.Recall(ctx, servertest.ID(1), "harms", ""); err != nil {
		t.Errorf("repeating must complete it: %v", err)
	}
	if list, err := w.Repo.RecallList(servertest.Product); err != nil || len(list.Entries) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRecommend(t *testing.T) {
	w, _, d := start(t, 1)
	ctx := t.Context()
	a := release.Advice{
		Release: servertest.ID(1), App: "mail", OSVersions: []string{}, AppVersions: []string{},
		Scope: release.ScopeMain, MinEvidence: 20, TextKey: "closes",
	}
	if l, err := d.Recommend(ctx, a); err != nil || len(l.Entries) != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	weak := a
	weak.MinEvidence = release.MinEvidence - 1
	_, err := d.Recommend(ctx, weak)
	kind(t, err, fault.Usage)
	a.MinEvidence = 40
	if l, err := d.Recommend(ctx, a); err != nil || len(l.Entries) != 1 || l.Entries[0].MinEvidence != 40 {
		t.Errorf("%+v, %v", l, err)
	}
	_, err = d.Drop(ctx, servertest.ID(1), "browser")
	kind(t, err, fault.Usage)
	if l, err := d.Drop(ctx, servertest.ID(1), "mail"); err != nil || len(l.Entries) != 0 || l.Version != 3 {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := w.Repo.AdviceList(servertest.Product); err != nil || len(l.Entries) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	d.Advisers = nil
	_, err = d.Recommend(ctx, a)
	kind(t, err, fault.Usage)
}

func TestOperatorsAtTheSameTime(t *testing.T) {
	w, _, d := start(t, 6)
	other := *d
	other.Actor = "bob"
	var wg sync.WaitGroup
	for i := 1; i <= 6; i++ {
		wg.Go(func() {
			who := d
			if i%2 == 0 {
				who = &other
			}
			if _, err := who.Start(t.Context(), servertest.ID(i), 10*i); err != nil && !errors.Is(err, os.ErrExist) && fault.KindOf(err) != fault.Busy {
				t.Error(err)
			} else if err != nil {
				// Told to try again: then it must work.
				if _, err := who.Start(t.Context(), servertest.ID(i), 10*i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	list, err := w.Repo.Rollout(servertest.Product)
	if err != nil || len(list.Entries) != 6 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, e := range list.Entries {
		if e.Percent != 10*(i+1) {
			t.Errorf("%s is at %d %%", e.Release, e.Percent)
		}
	}
	if fmt.Sprint(list.Version) != "6" {
		t.Errorf("version %d", list.Version)
	}
}
