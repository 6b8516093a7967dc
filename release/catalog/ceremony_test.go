package catalog

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release"
)

// carry takes a ceremony to another machine and back.
func carry(t *testing.T, c *Ceremony) *Ceremony {
	t.Helper()
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseCeremony(data)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestCeremonyGathersSignatures(t *testing.T) {
	v := newVendor(t)
	d := v.device(v.folder())
	d.refresh(t)
	// All three owners sign at first; a targets key and both recall keys go.
	c, err := v.Prepare(Change{Renew: []string{Targets}, Roles: map[string]Role{
		Targets: role(2, "targets-a", "targets-b", "targets-d"),
		Recall:  role(2, "recall-c", "recall-d", "recall-e"),
	}}, v.now)
	v.must(err)
	if c.Name != "root-v2" || len(c.Steps()) != 3 || c.List() != nil {
		t.Fatalf("%s: %+v", c.Name, c.Steps())
	}
	top, below := c.Steps()[0].Keys, c.Steps()[1].Keys
	if len(top) != 1 || top[0].Role != Targets || len(top[0].Added) != 1 || len(top[0].Removed) != 1 {
		t.Errorf("%+v", top)
	}
	if len(below) != 1 || below[0].Role != Recall || len(below[0].Added) != 3 || len(below[0].Removed) != 2 {
		t.Errorf("%+v", below)
	}
	for _, who := range []string{"root-a", "targets-c", "targets-d", "recall-a", "recall-c", "recall-e", "targets-b", "root-b"} {
		if err := v.Perform(c); fault.KindOf(err) != fault.Refused {
			t.Fatalf("before %s: %v", who, err)
		}
		by, err := c.Sign(key(who))
		v.must(err)
		if counts := who != "targets-c" && who != "recall-a"; counts != (len(by) == 1) {
			t.Errorf("%s: %v", who, by)
		}
		c = carry(t, c)
	}
	if n, _ := v.latest(Root); n != 1 {
		t.Errorf("root %d before it was whole", n)
	}
	v.must(v.Perform(c))
	v.must(v.Perform(c))
	v.refresh()
	d.refresh(t)
	if d.RootVersion() != 2 {
		t.Errorf("root %d", d.RootVersion())
	}
	if _, err := v.Prepare(Change{}, v.now); fault.KindOf(err) != fault.Usage {
		t.Errorf("nothing to do: %v", err)
	}
}

// TestCeremonyOfAList needs two people for a recall.
func TestCeremonyOfAList(t *testing.T) {
	v := newVendor(t)
	draft, err := v.Draft(Recall, v.now)
	v.must(err)
	l, err := v.RecallList("ExampleOS")
	v.must(err)
	list, err := l.With(release.Recall{Release: "SI-2026-0001", Reason: "it broke", Date: v.now}).Encode()
	v.must(err)
	target, err := Measure(release.RecallPath, bytes.NewReader(list))
	v.must(err)
	v.must(draft.Set(target))
	c, err := v.PrepareList(draft, list)
	v.must(err)
	for _, who := range []string{"recall-a", "recall-b"} {
		if err := v.Perform(c); fault.KindOf(err) != fault.Refused {
			t.Fatal(err)
		}
		c = carry(t, c)
		_, err := c.Sign(key(who))
		v.must(err)
	}
	if !bytes.Equal(c.List(), list) {
		t.Errorf("list %s", c.List())
	}
	late := carry(t, c)
	v.must(v.Perform(c))
	v.refresh()
	d := v.device(v.folder())
	d.refresh(t)
	if got, err := d.RecallList(t.Context()); err != nil || len(got.Entries) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	v.recall("SI-2026-0002")
	v.must(v.Perform(late)) // it is there already: nothing goes back
	if got, err := v.RecallList("ExampleOS"); err != nil || len(got.Entries) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestCeremonyShowsAllItDoes: whatever a signer would not see is refused.
func TestCeremonyShowsAllItDoes(t *testing.T) {
	v := newVendor(t)
	for what, change := range map[string]func(f map[string]any){
		"unknown member": func(f map[string]any) { f["x"] = 1 },
		"no steps":       func(f map[string]any) { f["steps"] = []any{} },
		"other name":     func(f map[string]any) { f["name"] = "root-v3" },
		"path in name":   func(f map[string]any) { f["name"] = "../root-v2" },
		"a list":         func(f map[string]any) { f["list"] = "{}" },
		"other schema":   func(f map[string]any) { f["schema"] = "sealant.ceremony/2" },
		"step twice":     func(f map[string]any) { f["steps"] = append(f["steps"].([]any), f["steps"].([]any)[0]) },
		"out of order": func(f map[string]any) {
			s := f["steps"].([]any)
			s[0], s[1] = s[1], s[0]
			f["name"] = "targets-v2"
		},
		"a role nobody has": func(f map[string]any) { step(f, 1)["role"] = "snapshot" },
		"unsigned root": func(f map[string]any) {
			f["root"].(map[string]any)["signatures"] = []any{}
		},
		"other paths": func(f map[string]any) {
			delegations(f)["roles"].([]any)[0].(map[string]any)["paths"] = []any{"*"}
		},
		"not terminating": func(f map[string]any) {
			delegations(f)["roles"].([]any)[0].(map[string]any)["terminating"] = false
		},
		"one role less": func(f map[string]any) { delegations(f)["roles"] = delegations(f)["roles"].([]any)[1:] },
		"threshold 0": func(f map[string]any) {
			signed(f, 0)["roles"].(map[string]any)["snapshot"].(map[string]any)["threshold"] = 0
		},
		"version 9":               func(f map[string]any) { signed(f, 0)["version"] = 9 },
		"no consistent snapshots": func(f map[string]any) { signed(f, 0)["consistent_snapshot"] = false },
	} {
		c, err := v.Prepare(Change{Renew: []string{Root, Targets}}, v.now)
		v.must(err)
		data, err := c.Encode()
		v.must(err)
		var f map[string]any
		v.must(json.Unmarshal(data, &f))
		change(f)
		data, err = json.Marshal(f)
		v.must(err)
		if _, err := ParseCeremony(data); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func step(f map[string]any, i int) map[string]any { return f["steps"].([]any)[i].(map[string]any) }

func signed(f map[string]any, i int) map[string]any {
	return step(f, i)["draft"].(map[string]any)["signed"].(map[string]any)
}

func delegations(f map[string]any) map[string]any {
	return signed(f, 1)["delegations"].(map[string]any)
}

// TestCeremonyAnyCut cuts and flips a ceremony's file: it is refused, or the
// signatures no longer count, or it is the same.
func TestCeremonyAnyCut(t *testing.T) {
	v := newVendor(t)
	c, err := v.Prepare(Change{Renew: []string{Root, Targets}}, v.now)
	v.must(err)
	_, err = c.Sign(owners...)
	v.must(err)
	data, err := c.Encode()
	v.must(err)
	for i := 0; i < len(data); i += 37 {
		if _, err := ParseCeremony(data[:i]); err == nil {
			t.Fatalf("cut at %d: accepted", i)
		}
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 7)
		got, err := ParseCeremony(bad)
		if err != nil {
			continue
		}
		for j, s := range got.Steps() {
			mine := got.steps[j]
			same, err := mine.Encode()
			v.must(err)
			orig, err := c.steps[j].Encode()
			v.must(err)
			if !bytes.Equal(same, orig) && s.Signed.Valid == 3 {
				t.Fatalf("byte %d: changed, and all signatures count", i)
			}
		}
	}
}

// TestDraftHidesNoKeys: the draft of a release can't change who may recall.
func TestDraftHidesNoKeys(t *testing.T) {
	v := newVendor(t)
	present, err := v.Metadata(Targets)
	v.must(err)
	d, err := v.Draft(Targets, v.now)
	v.must(err)
	good, err := d.Encode()
	v.must(err)
	if _, err := ParseDraft(v.rootBytes(), present, good); err != nil {
		t.Fatal(err)
	}
	v.must(d.Delegate(Recall, role(1, "thief")))
	bad, err := d.Encode()
	v.must(err)
	if _, err := ParseDraft(v.rootBytes(), present, bad); fault.KindOf(err) != fault.Seal {
		t.Errorf("other recall keys: %v", err)
	}
	m, err := metadata.Targets().FromBytes([]byte(strings.Replace(string(good), "recall/*", "releases/*", 1)))
	v.must(err)
	bad, err = m.ToBytes(false)
	v.must(err)
	if _, err := ParseDraft(v.rootBytes(), present, bad); fault.KindOf(err) != fault.Seal {
		t.Errorf("other paths: %v", err)
	}
}
