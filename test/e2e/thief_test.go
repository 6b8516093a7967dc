package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/internal/fault"
	servercatalog "github.com/sealant-os/sealant/server/catalog"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/signing"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

// burglar has everything that a server has: the keys of timestamp, snapshot and
// rollout, the leaf's, the public log's, the database, and the wire to every
// device. It wants a device to take what the vendor never published: release 3
// of a vendor of its own, who makes the same baseline.
type burglar struct {
	v, own *vendor
	dir    string // its copy of the catalog
	leaf   *ticket.Leaf
}

func newBurglar(v *vendor) *burglar {
	v.t.Helper()
	b := &burglar{v: v, own: newVendor(v.t)}
	if b.own.base.Digest() != v.base.Digest() {
		v.t.Fatal("the two vendors' baselines differ")
	}
	for n := range 3 {
		b.own.release(n+1, 100)
	}
	file, err := signing.OpenLeaf(v.world.LeafFile(), v.world.Root)
	v.must(err)
	b.leaf, err = file.Leaf(v.world.Now())
	v.must(err)
	// With the database and the log's key it puts its sets into the public log.
	view, err := b.own.node.Source.View(v.t.Context())
	v.must(err)
	view.Sets(func(s *servercatalog.Set) { v.must(v.node.SetLog.Include(v.t.Context(), s)) })
	b.copy(v.world.Catalog())
	return b
}

// copy begins anew with a catalog's folder, its own files beside the vendor's.
func (b *burglar) copy(catalog string) {
	b.v.t.Helper()
	b.dir = b.v.t.TempDir()
	b.v.must(os.CopyFS(b.dir, os.DirFS(catalog)))
	files, err := filepath.Glob(filepath.Join(b.own.world.Catalog(), "targets", "*", "*"))
	b.v.must(err)
	for _, f := range files {
		rel, err := filepath.Rel(b.own.world.Catalog(), f)
		b.v.must(err)
		to := filepath.Join(b.dir, rel)
		if _, err := os.Stat(to); err == nil {
			continue
		}
		data, err := os.ReadFile(f)
		b.v.must(err)
		b.v.must(os.MkdirAll(filepath.Dir(to), 0o755))
		b.v.must(os.WriteFile(to, data, 0o644))
	}
}

// serves is a hostility that answers the catalog's requests from its copy.
func (b *burglar) serves() hostility {
	files := http.StripPrefix("/tuf/", http.FileServer(http.Dir(b.dir)))
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/tuf/") {
			return false
		}
		files.ServeHTTP(w, r)
		return true
	}
}

// newest is the newest version of a role's metadata in a folder.
func newest(t testing.TB, dir, role string) (version int64, data []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "metadata", "*."+role+".json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no metadata of %s: %v", role, err)
	}
	for _, f := range files {
		var n int64
		fmt.Sscanf(filepath.Base(f), "%d.", &n)
		if n <= version {
			continue
		}
		if data, err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
		version = n
	}
	return version, data
}

// sign signs metadata with the online key alone.
func sign[T metadata.Roles](b *burglar, m *metadata.Metadata[T]) []byte {
	b.v.t.Helper()
	signed, err := cjson.EncodeCanonical(m.Signed)
	b.v.must(err)
	sig, err := b.v.world.Online.Sign(rand.Reader, signed, crypto.Hash(0))
	b.v.must(err)
	_, id := b.online()
	m.Signatures = []metadata.Signature{{KeyID: id, Signature: sig}}
	data, err := m.ToBytes(false)
	b.v.must(err)
	return data
}

// online is the public part of the online key, and its id.
func (b *burglar) online() (*metadata.Key, string) {
	b.v.t.Helper()
	key, err := metadata.KeyFromPublicKey(b.v.world.Online.Public())
	b.v.must(err)
	id, err := key.ID()
	b.v.must(err)
	return key, id
}

func (b *burglar) write(name string, data []byte) {
	b.v.t.Helper()
	b.v.must(os.WriteFile(filepath.Join(b.dir, "metadata", name), data, 0o644))
}

// forge changes a role's metadata, signs it with the online key, and makes a
// snapshot and a timestamp that name it.
func (b *burglar) forge(role string, change func(m *metadata.TargetsType)) {
	b.v.t.Helper()
	version, data := newest(b.v.t, b.dir, role)
	m, err := metadata.Targets().FromBytes(data)
	b.v.must(err)
	m.Signed.Version = version + 1
	change(&m.Signed)
	data = sign(b, m)
	b.write(fmt.Sprintf("%d.%s.json", version+1, role), data)
	b.show(map[string]int64{role: version + 1})
}

// show makes a snapshot and a timestamp by which these versions are in force.
func (b *burglar) show(versions map[string]int64) {
	b.v.t.Helper()
	n, data := newest(b.v.t, b.dir, "snapshot")
	snapshot, err := metadata.Snapshot().FromBytes(data)
	b.v.must(err)
	snapshot.Signed.Version = n + 1
	for role, v := range versions {
		snapshot.Signed.Meta[role+".json"] = metadata.MetaFile(v)
	}
	b.write(fmt.Sprintf("%d.snapshot.json", n+1), sign(b, snapshot))
	data, err = os.ReadFile(filepath.Join(b.dir, "metadata", "timestamp.json"))
	b.v.must(err)
	stamp, err := metadata.Timestamp().FromBytes(data)
	b.v.must(err)
	stamp.Signed.Version += 10
	stamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(n + 1)
	b.write("timestamp.json", sign(b, stamp))
}

// loot is every file that its own vendor names.
func (b *burglar) loot() map[string]*metadata.TargetFiles {
	b.v.t.Helper()
	_, data := newest(b.v.t, b.own.world.Catalog(), "targets")
	m, err := metadata.Targets().FromBytes(data)
	b.v.must(err)
	return m.Signed.Targets
}

// signs is a hostility that answers every request for a ticket with one for
// what claims makes of it, signed by a leaf.
func (b *burglar) signs(leaf *ticket.Leaf, claims func(c *ticket.Claims)) hostility {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/tickets" {
			return false
		}
		var req struct{ Release, Nonce string }
		err := json.NewDecoder(r.Body).Decode(&req)
		id, iderr := identity.ParseID(r.Header.Get(identity.DeviceHeader))
		nonce, nerr := hex.DecodeString(req.Nonce)
		if err != nil || iderr != nil || nerr != nil || len(nonce) != 48 {
			b.v.t.Error(err, iderr, nerr)
			return false
		}
		c := ticket.Claims{
			Device: id, Product: servertest.Product, Baseline: b.v.base.Digest(), Release: req.Release, Domain: ticket.Domain,
			Nonce: [48]byte(nonce), Cryptexes: b.set(b.v, req.Release),
		}
		claims(&c)
		der, err := ticket.Issue(rand.Reader, leaf, c)
		b.v.must(err)
		json.NewEncoder(w).Encode(map[string][]byte{"ticket": der})
		return true
	}
}

// set is what a vendor's release consists of; nil if it has none of that name.
func (b *burglar) set(v *vendor, id string) []ticket.Cryptex {
	b.v.t.Helper()
	view, err := v.node.Source.View(b.v.t.Context())
	b.v.must(err)
	set, ok := view.Set(servertest.Product, v.base.Digest(), id)
	if !ok {
		return nil
	}
	return slices.Clone(set.Cryptexes)
}

// leafBelow is a certificate that the stolen leaf issued.
func (b *burglar) leafBelow() []byte {
	b.v.t.Helper()
	text, err := os.ReadFile(b.v.world.LeafFile())
	b.v.must(err)
	_, text = pem.Decode(text) // after the certificate
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	b.v.must(err)
	leafKey := private.(crypto.Signer)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	b.v.must(err)
	cert := *b.leaf.Certificate()
	sub, err := ticket.NewRoot(rand.Reader, leafKey, cert.Subject.CommonName, b.v.world.Now().Add(-time.Hour), b.v.world.Now().Add(time.Hour))
	b.v.must(err)
	below, err := ticket.IssueLeaf(rand.Reader, sub, leafKey, key.Public(), ticket.Limits{}, b.v.world.Now().Add(-time.Minute), b.v.world.Now().Add(time.Hour))
	b.v.must(err)
	low, err := ticket.NewLeaf(key, below, sub)
	b.v.must(err)
	der, err := ticket.Issue(rand.Reader, low, ticket.Claims{
		Device: [32]byte{1}, Product: servertest.Product, Baseline: b.v.base.Digest(), Release: servertest.ID(1), Domain: ticket.Domain,
		Nonce: [48]byte{1}, Cryptexes: b.set(b.v, servertest.ID(1)),
	})
	b.v.must(err)
	return der
}

// TestBurglar: whoever has all that is on the server can't make a device take
// what was not published, nor what was recalled.
func TestBurglar(t *testing.T) {
	v := newVendor(t)
	v.release(1, 100)
	v.release(2, 100)
	before := t.TempDir()
	v.must(os.CopyFS(before, os.DirFS(v.world.Catalog())))
	used := v.enrolled("") // has release 2, and goes on being used
	if r, err := used.install(servertest.ID(2)); err != nil || r.State != device.StateStaged {
		t.Fatalf("%+v, %v", r, err)
	}
	v.recall(2)
	m := v.enrolled("")
	m.check()
	b := newBurglar(v)
	third := servertest.ID(3)

	all := func(m *metadata.TargetsType) { maps.Copy(m.Targets, b.loot()) }
	key, keyID := b.online()
	delegate := func(name string, paths ...string) func(*metadata.TargetsType) {
		return func(m *metadata.TargetsType) {
			m.Delegations = &metadata.Delegations{
				Keys:  map[string]*metadata.Key{keyID: key},
				Roles: []metadata.DelegatedRole{{Name: name, KeyIDs: []string{keyID}, Threshold: 1, Terminating: true, Paths: paths}},
			}
		}
	}
	// below is a role of its own, signed by the online key.
	below := func(name string) {
		role := metadata.Targets(v.world.Now().Add(24 * time.Hour))
		all(&role.Signed)
		b.write("1."+name+".json", sign(b, role))
		b.show(map[string]int64{name: 1})
	}
	none := func(*ticket.Claims) {}
	evil := func(c *ticket.Claims) { c.Cryptexes = b.set(b.own, third) }
	oldTicket := func() []byte {
		list, err := os.ReadDir(filepath.Join(used.root, "var/lib/sealant/sets"))
		v.must(err)
		for _, e := range list {
			data, err := os.ReadFile(filepath.Join(used.root, "var/lib/sealant/sets", e.Name(), "ticket.im4m"))
			if tk, perr := ticket.Parse(data); err == nil && perr == nil && !tk.OfBaseline() {
				return data
			}
		}
		t.Fatal("no old ticket")
		return nil
	}()

	for _, tt := range []struct {
		name    string
		prepare func() hostility
		want    string       // release that is asked for
		kinds   []fault.Kind // of the refusal
	}{
		{"the rollout role names releases and images", func() hostility {
			b.forge("rollout", all)
			return both(b.serves(), b.signs(b.leaf, evil))
		}, third, []fault.Kind{fault.NotEligible, fault.Stale}},
		{"the rollout role delegates releases to a role of the burglar's", func() hostility {
			b.forge("rollout", delegate("gift", "*", "releases/*", "images/*", "patches/*"))
			below("gift")
			return both(b.serves(), b.signs(b.leaf, evil))
		}, third, []fault.Kind{fault.NotEligible, fault.Stale}},
		{"the rollout role delegates to recall with another key", func() hostility {
			b.forge("rollout", delegate("recall", "recall/*"))
			b.forge("recall", func(m *metadata.TargetsType) { clear(m.Targets) })
			return both(b.serves(), b.signs(b.leaf, none))
		}, servertest.ID(2), []fault.Kind{fault.Stale}},
		{"the rollout role delegates to targets with another key", func() hostility {
			b.forge("rollout", delegate("targets", "*"))
			b.forge("targets", all)
			return both(b.serves(), b.signs(b.leaf, evil))
		}, third, []fault.Kind{fault.Stale}},
		{"targets, signed with the online key", func() hostility {
			b.forge("targets", all)
			return both(b.serves(), b.signs(b.leaf, evil))
		}, third, []fault.Kind{fault.Stale}},
		{"an empty recall list, signed with the online key", func() hostility {
			b.forge("recall", func(m *metadata.TargetsType) { clear(m.Targets) })
			return both(b.serves(), b.signs(b.leaf, none))
		}, servertest.ID(2), []fault.Kind{fault.Stale}},
		{"the recall list of before, under a new snapshot", func() hostility {
			n, _ := newest(t, before, "recall")
			b.show(map[string]int64{"recall": n})
			return both(b.serves(), b.signs(b.leaf, none))
		}, servertest.ID(2), []fault.Kind{fault.Stale}},
		{"the whole catalog of before, under new versions", func() hostility {
			b.copy(before)
			for range 5 {
				b.show(nil)
			}
			return both(b.serves(), b.signs(b.leaf, none))
		}, servertest.ID(2), []fault.Kind{fault.Stale, fault.Recalled}},
		{"its own manifest in a published one's place", func() hostility {
			mine, err := filepath.Glob(filepath.Join(b.own.world.Catalog(), "targets/releases/*"))
			v.must(err)
			files, err := filepath.Glob(filepath.Join(b.dir, "targets/releases/*."+servertest.ID(1)+".json"))
			v.must(err)
			data, err := os.ReadFile(mine[len(mine)-1])
			v.must(err)
			for _, f := range files {
				v.must(os.WriteFile(f, data, 0o644))
			}
			m.forget()
			return both(b.serves(), b.signs(b.leaf, evil))
		}, servertest.ID(1), []fault.Kind{fault.Stale, fault.Failed}},
		{"a ticket for its own set under a published release's name", func() hostility {
			return b.signs(b.leaf, evil)
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"a ticket for its own set under its own name", func() hostility {
			return b.signs(b.leaf, func(c *ticket.Claims) { evil(c); c.Release = third })
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"a ticket for a release that isn't published", func() hostility {
			return b.signs(b.leaf, evil)
		}, third, []fault.Kind{fault.NotEligible}},
		{"a ticket that mixes two releases", func() hostility {
			return b.signs(b.leaf, func(c *ticket.Claims) { c.Cryptexes[1] = b.set(v, servertest.ID(2))[1] })
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"a ticket of the recalled release's set under the good one's name", func() hostility {
			return b.signs(b.leaf, func(c *ticket.Claims) { c.Cryptexes = b.set(v, servertest.ID(2)) })
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"a ticket for the recalled release", func() hostility {
			return b.signs(b.leaf, none)
		}, servertest.ID(2), []fault.Kind{fault.Recalled}},
		{"a ticket with another nonce", func() hostility {
			return b.signs(b.leaf, func(c *ticket.Claims) { c.Nonce[0] ^= 1 })
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"a ticket for the baseline, which has no nonce", func() hostility {
			return b.signs(b.leaf, func(c *ticket.Claims) { c.Release, c.Nonce = "", [48]byte{} })
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"another device's ticket", func() hostility {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/tickets" {
					return false
				}
				json.NewEncoder(w).Encode(map[string][]byte{"ticket": oldTicket})
				return true
			}
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
		{"a ticket by a leaf that the leaf issued", func() hostility {
			der := b.leafBelow()
			return func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/tickets" {
					return false
				}
				json.NewEncoder(w).Encode(map[string][]byte{"ticket": der})
				return true
			}
		}, servertest.ID(1), []fault.Kind{fault.Ticket}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.copy(v.world.Catalog())
			v.hostile(nil)
			m.forget() // versions that the burglar drove up: a new root ends that
			m.check()
			was := m.snapshot()
			v.hostile(tt.prepare())
			defer v.hostile(nil)
			// A check alone may already be refused; nothing may come of it.
			m.open().Check(t.Context(), device.CheckOptions{}, nil)
			r, err := m.install(tt.want)
			if err == nil || !slices.Contains(tt.kinds, fault.KindOf(err)) {
				t.Errorf("%+v, %v (%v), want one of %v", r, err, fault.KindOf(err), tt.kinds)
			}
			t.Log(err)
			if s := m.status(); s.State == device.StateStaged {
				t.Errorf("staged: %+v", s)
			}
			if now := m.snapshot(); now != was {
				t.Errorf("the device changed:\n%s\nwas\n%s", now, was)
			}
		})
	}

	// The burglar is able: what the keys are for, it can do. It forges a rollout
	// list, and signs a ticket for what is published.
	v.hostile(nil)
	m.forget()
	m.check()
	b.copy(v.world.Catalog())
	b.forge("rollout", func(m *metadata.TargetsType) { m.Expires = v.world.Now().Add(time.Hour) })
	v.hostile(both(b.serves(), b.signs(b.leaf, none)))
	if r, err := m.install(servertest.ID(1)); err != nil || r.State != device.StateStaged {
		t.Errorf("what was published: %+v, %v", r, err)
	}
	if rec := m.boot(); rec.Release != servertest.ID(1) {
		t.Errorf("%+v", rec)
	}
}
