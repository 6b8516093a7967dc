package publish

import (
	"context"
	"crypto"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/signer"
)

// unlocked opens keys that have no passphrase.
func unlocked(file string) (crypto.Signer, error) {
	k, err := readKey(file)
	if err != nil {
		return nil, err
	}
	return k.Unlock(nil)
}

// TestDeviceAsleepDuringCeremonies replaces a key of every role, one ceremony
// after the other, over years; a device that slept through all of it, and one
// that woke for each, see the same catalog.
func TestDeviceAsleepDuringCeremonies(t *testing.T) {
	clock := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return clock }
	setup := Setup{
		Product: "ExampleOS", OSVersion: "42.3.0", Owners: []string{"alice", "bob", "carol"}, Throwaway: true, Now: now,
		Recall: Quorum{Keys: 2, Threshold: 2},
	}
	v, err := Init(filepath.Join(t.TempDir(), "vendor"), setup)
	must(t, err)
	v.now = now
	pinned, err := os.ReadFile(v.path(rootName))
	must(t, err)
	device := func() *catalog.Client {
		c, err := catalog.New(catalog.Config{Root: pinned, Dir: t.TempDir(), Remote: catalog.Folder(v.path(repoName)), Now: now, Built: clock})
		must(t, err)
		return c
	}
	awake := device()
	must(t, awake.Refresh(context.Background()))
	repo, err := v.Repository()
	must(t, err)
	for i, name := range []string{"root-bob", "targets-bob", "recall-1", "advice", "online/rollout", "online/snapshot", "online/timestamp"} {
		clock = clock.AddDate(0, 5, 0)
		role := []string{catalog.Root, catalog.Targets, catalog.Recall, catalog.Advice, catalog.Rollout, catalog.Snapshot, catalog.Timestamp}[i]
		old, err := readKey(filepath.Join(v.Dir, keysName, filepath.FromSlash(name)+".key"))
		must(t, err)
		fresh, err := v.newKey(name+"-new", signer.Ed25519, setup)
		must(t, err)
		now, err := repo.Role(role)
		must(t, err)
		for k := range now.Keys {
			if key, ok := old.Public.(interface{ Equal(crypto.PublicKey) bool }); ok && key.Equal(now.Keys[k]) {
				now.Keys[k] = fresh.Public()
			}
		}
		// Whoever meets for one change renews everything else as well.
		c, err := v.Change(catalog.Change{
			Renew: []string{catalog.Root, catalog.Targets, catalog.Recall, catalog.Advice, catalog.Rollout},
			Roles: map[string]catalog.Role{role: now},
		})
		must(t, err)
		if _, err := v.Perform(c); fault.KindOf(err) != fault.Refused {
			t.Fatalf("%s: nobody signed: %v", role, err)
		}
		if root, err := repo.RootBytes(); err != nil || len(root) == 0 {
			t.Fatal(err)
		}
		signers, err := v.CeremonySigners(c, nil, unlocked)
		must(t, err)
		_, err = c.Sign(signers...)
		must(t, err)
		p, err := v.Perform(c)
		must(t, err)
		if !p.Shown {
			t.Errorf("%s: not shown", role)
		}
		again, err := v.Perform(c) // after a crash before its end
		must(t, err)
		if again.Version != p.Version {
			t.Errorf("%s: version %d, then %d", role, p.Version, again.Version)
		}
		if err := awake.Refresh(context.Background()); err != nil {
			t.Errorf("the device that is awake, after %s: %v", role, err)
		}
	}
	asleep := device()
	must(t, asleep.Refresh(context.Background()))
	if asleep.RootVersion() != 8 || asleep.Version() != awake.Version() {
		t.Errorf("root %d, catalog %d and %d", asleep.RootVersion(), asleep.Version(), awake.Version())
	}
	// Half a life later the online keys alone keep it going.
	clock = clock.Add(4 * 24 * time.Hour)
	st, err := v.Refresh(nil, unlocked)
	must(t, err)
	if !st.Changed || !st.Expires.Equal(clock.Add(7*24*time.Hour)) {
		t.Errorf("%+v", st)
	}
	must(t, asleep.Refresh(context.Background()))
	must(t, os.RemoveAll(v.path(onlineName)))
	clock = clock.Add(4 * 24 * time.Hour)
	if _, err := v.Refresh(nil, unlocked); fault.KindOf(err) != fault.Refused {
		t.Errorf("without keys: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
