// Package rig makes a device for tests: real images, a baseline, a key, a root
// for tickets and tickets of its own, laid out below a folder as an OS update
// and an enrolment would. Everything that a publisher and a server would do is
// done here by hand, so tests of the device need neither.
package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/test/namespace"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/nonce"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Product is what all rigs are.
const Product = "example-os"

// Vendor signs the tickets of the devices that trust it.
type Vendor struct {
	t    testing.TB
	root *x509.Certificate
	leaf *ticket.Leaf
}

// NewVendor makes a root and a leaf for tickets.
func NewVendor(t testing.TB) *Vendor {
	t.Helper()
	rootKey, leafKey := p384(t), p384(t)
	now := time.Now()
	root, err := ticket.NewRoot(rand.Reader, rootKey, "rig", now.Add(-time.Hour), now.Add(time.Hour))
	check(t, err)
	cert, err := ticket.IssueLeaf(rand.Reader, root, rootKey, leafKey.Public(), ticket.Limits{}, now.Add(-time.Hour), now.Add(time.Hour))
	check(t, err)
	leaf, err := ticket.NewLeaf(leafKey, cert, root)
	check(t, err)
	return &Vendor{t, root, leaf}
}

func p384(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	return key
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Device is one device below a folder.
type Device struct {
	Root     string
	Store    *store.Store
	ID       identity.ID
	Baseline release.Baseline

	t      testing.TB
	vendor *Vendor
	key    *ecdsa.PrivateKey
}

// Names are the cryptexes that every rig has: "os" of subtype os, "web" of
// subtype app.
var Names = []string{"os", "web"}

// New makes a device with an OS update "42.3" and enrols it: the baseline is
// in base and current. Each image holds the files "version" (the text
// "NAME base"), "run" (a copy of /bin/sleep) and "plain" (the same, which no trust
// cache lists).
func New(t testing.TB, v *Vendor) *Device {
	t.Helper()
	d := &Device{Root: namespace.Dir(t), t: t, vendor: v}
	st, err := store.Open(d.Root)
	check(t, err)
	d.Store = st
	d.Deliver("42.3", "base")
	check(t, st.Create())
	d.enrol()
	return d
}

// Deliver lays down what an OS update brings: images with the given version
// text and the base.json that names them. It replaces an earlier one.
func (d *Device) Deliver(osVersion, version string) {
	d.t.Helper()
	base := release.Baseline{Schema: release.BaselineSchema, Product: Product, OSVersion: osVersion}
	check(d.t, os.MkdirAll(filepath.Dir(d.Store.BaseImagePath("x")), 0o755))
	for _, name := range Names {
		check(d.t, os.MkdirAll(d.Store.MountPoint(name), 0o755))
		s := d.build(d.Store.BaseImagePath(name), name, version)
		base.Cryptexes = append(base.Cryptexes, release.Image{
			Name: name, Subtype: release.Subtype(s.Subtype), Digest: release.Digest(s.Digest), Size: s.Size,
			Seal:       release.Seal{Root: s.Seal.Root, Salt: s.Seal.Salt, DataBlocks: int64(s.Seal.DataBlocks), Digest: s.Seal.Digest()},
			TrustCache: release.Digest(s.TrustCache),
		})
	}
	data, err := base.Encode()
	check(d.t, err)
	check(d.t, os.WriteFile(d.Store.BaselinePath(), data, 0o644))
	check(d.t, os.WriteFile(d.Store.TicketRootPath(), ticket.MarshalRoot(d.vendor.root), 0o644))
	d.Baseline = base
}

// build makes one image file.
func (d *Device) build(path, name, version string) image.Summary {
	d.t.Helper()
	tree, err := os.MkdirTemp(d.Root, "tree-")
	check(d.t, err)
	defer os.RemoveAll(tree)
	check(d.t, os.Chmod(tree, 0o755))
	check(d.t, os.WriteFile(filepath.Join(tree, "version"), []byte(name+" "+version), 0o644))
	// No two devices share an image, whatever other tests run on the machine.
	check(d.t, os.WriteFile(filepath.Join(tree, "device"), []byte(d.Root), 0o644))
	program, err := os.ReadFile("/bin/sleep")
	check(d.t, err)
	check(d.t, os.WriteFile(filepath.Join(tree, "run"), program, 0o755))
	check(d.t, os.WriteFile(filepath.Join(tree, "plain"), program, 0o644))
	next := path + ".new"
	f, err := os.Create(next)
	check(d.t, err)
	defer f.Close()
	s, err := image.Build(context.Background(), f, tree, image.Options{Name: name, Subtype: subtype(name)})
	check(d.t, err)
	check(d.t, os.Rename(next, path))
	return s
}

func subtype(name string) image.Subtype {
	if name == "os" {
		return image.OS
	}
	return image.App
}

// enrol makes the device's key and nonces, and puts the baseline, with its
// ticket, in base and current.
func (d *Device) enrol() {
	d.t.Helper()
	key, err := identity.NewKey(rand.Reader)
	check(d.t, err)
	d.key = key
	d.ID, err = identity.IDOf(key.Public())
	check(d.t, err)
	text, err := identity.MarshalKey(key)
	check(d.t, err)
	check(d.t, d.Store.WriteIdentityKey(text))
	nonces, err := nonce.New(rand.Reader)
	check(d.t, err)
	check(d.t, d.Store.WriteNonces(nonces))
	check(d.t, d.Store.WriteEnrolment(store.Enrolment{Device: store.Sum(d.ID), Product: Product, Time: time.Now().UTC().Format(time.RFC3339)}))
	set := d.BaselineSet()
	check(d.t, d.Store.AddSet(set))
	for _, c := range set.Cryptexes {
		check(d.t, d.Store.LinkBase(c.Image, c.Name))
	}
	check(d.t, d.Store.Point(store.Base, set.ID))
	check(d.t, d.Store.Point(store.Current, set.ID))
}

// BaselineSet is the baseline with a ticket for this device.
func (d *Device) BaselineSet() store.Set {
	d.t.Helper()
	set := store.Set{Product: Product, OSVersion: d.Baseline.OSVersion, Baseline: store.Digest(d.Baseline.Digest())}
	for _, c := range d.Baseline.Cryptexes {
		set.Cryptexes = append(set.Cryptexes, store.Cryptex{
			Name: c.Name, Subtype: uint8(c.Subtype), Image: store.Digest(c.Digest), Size: c.Size,
			Seal:       store.Seal{Root: store.Sum(c.Seal.Root), Salt: store.Sum(c.Seal.Salt), DataBlocks: uint64(c.Seal.DataBlocks)},
			TrustCache: store.Digest(c.TrustCache),
		})
	}
	d.Sign(&set, d.ID, [48]byte{})
	return set
}

// Improve builds an improvement of the cryptex "web" whose version text is
// "web (LABEL)", keeps its images, and gives the set a ticket for the next
// nonce. It is in no slot yet.
func (d *Device) Improve(id string, level int) store.Set {
	d.t.Helper()
	set := d.BaselineSet()
	set.Release, set.Level, set.Label = id, level, "("+string(rune('a'+level-1))+")"
	for i, c := range set.Cryptexes {
		if c.Name != "web" {
			continue
		}
		path := filepath.Join(d.Root, "improvement")
		s := d.build(path, c.Name, set.Label)
		set.Cryptexes[i] = store.Cryptex{
			Name: c.Name, Subtype: c.Subtype, Image: store.Digest(s.Digest), Size: s.Size,
			Seal:       store.Seal{Root: s.Seal.Root, Salt: s.Seal.Salt, DataBlocks: s.Seal.DataBlocks},
			TrustCache: store.Digest(s.TrustCache),
		}
		p, err := d.Store.NewImage(store.Digest(s.Digest))
		check(d.t, err)
		data, err := os.ReadFile(path)
		check(d.t, err)
		_, err = p.Write(data)
		check(d.t, err)
		check(d.t, p.Commit())
		check(d.t, os.Remove(path))
	}
	d.Sign(&set, d.ID, d.Preroll())
	check(d.t, d.Store.AddSet(set))
	return set
}

// Sign gives a set a ticket by the vendor, for any device and nonce, and the
// id that goes with it.
func (d *Device) Sign(set *store.Set, device identity.ID, nonce [48]byte) {
	d.t.Helper()
	claims := ticket.Claims{
		Device: device, Product: set.Product, Baseline: set.Baseline, Release: set.Release, Domain: ticket.Domain, Nonce: nonce,
	}
	for _, c := range set.Cryptexes {
		claims.Cryptexes = append(claims.Cryptexes, ticket.Cryptex{
			Name: c.Name, Subtype: c.Subtype, Image: c.Image, TrustCache: c.TrustCache, Root: c.Seal.Root, Seal: SealDigest(c.Seal),
		})
	}
	der, err := ticket.Issue(rand.Reader, d.vendor.leaf, claims)
	check(d.t, err)
	set.Ticket, set.ID = der, store.SetID(set.Release, der)
}

// SealDigest is what a ticket says of a seal.
func SealDigest(s store.Seal) [48]byte {
	return seal.Seal{Root: s.Root, Salt: s.Salt, DataBlocks: s.DataBlocks}.Digest()
}

// Preroll prepares the next nonce and returns it.
func (d *Device) Preroll() [48]byte {
	d.t.Helper()
	n, err := d.Store.Nonces()
	check(d.t, err)
	n, err = n.Next(rand.Reader)
	check(d.t, err)
	check(d.t, d.Store.WriteNonces(n))
	nonce, _ := n.Prerolled()
	return nonce
}

// Confirm does what the agent does when the set in next has come up.
func (d *Device) Confirm() {
	d.t.Helper()
	d.Roll()
	check(d.t, d.Store.Promote(d.Store.SlotID(store.Next)))
}

// Roll puts the next nonce in force.
func (d *Device) Roll() {
	d.t.Helper()
	n, err := d.Store.Nonces()
	check(d.t, err)
	n, err = n.Confirm()
	check(d.t, err)
	check(d.t, d.Store.WriteNonces(n))
}

// Version reads what a folder of content says it is.
func Version(t testing.TB, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return "nothing"
	}
	return string(data)
}

// Versions reads the content of all mount points, in the order of Names.
func (d *Device) Versions() [2]string {
	return [2]string{Version(d.t, d.Store.MountPoint(Names[0])), Version(d.t, d.Store.MountPoint(Names[1]))}
}

// Damage flips one bit of a file.
func Damage(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	check(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, at)
	check(t, err)
}

// DamageTree flips one bit of an image's hash tree: unlike one of its data,
// every boot notices that before anything is mounted.
func DamageTree(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	st, err := f.Stat()
	check(t, err)
	c, err := image.Open(f, st.Size())
	check(t, err)
	Damage(t, path, c.TreeOffset()+5)
}
