package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealant-os/sealant/device"
	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/ticket"
)

// vendor is a whole small vendor with real images: a catalog, a real server in
// front of it, and between the two and the devices a proxy that a test can
// make hostile.
type vendor struct {
	t     testing.TB
	world *servertest.World
	node  *servertest.Node
	dir   string
	base  release.Baseline
	made  map[release.Digest][]byte // patches
	os    string                    // tree of the operating system's own files, usr/lib/sealant

	mu     sync.Mutex
	tamper func(w http.ResponseWriter, r *http.Request) bool // true: answered
	seen   []string                                          // requests, in order
	url    string
}

// run makes the images of this run of the tests different from those of any
// other on this machine: what is mounted elsewhere counts as in use.
var run = fmt.Sprint(os.Getpid(), time.Now().UnixNano())

// content is what a cryptex holds at a level; level 0 is the baseline.
func content(name string, level int) map[string]string {
	filler := strings.Repeat(fmt.Sprintf("the %s library, line after line\n", name), 20_000)
	files := map[string]string{
		"lib/lib" + name + ".so": "\x7fELF not really\n" + filler + fmt.Sprintf("level %d\n", level) + filler,
		"share/" + name + ".txt": name + " " + run,
	}
	return files
}

func (v *vendor) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func newVendor(t testing.TB) *vendor {
	t.Helper()
	v := &vendor{t: t, world: servertest.New(t), dir: t.TempDir(), made: map[release.Digest][]byte{}}
	v.base = release.Baseline{Schema: release.BaselineSchema, Product: servertest.Product, OSVersion: "42.3.0"}
	for name, sub := range map[string]image.Subtype{"os": image.OS, "web": image.App} {
		v.base.Cryptexes = append(v.base.Cryptexes, v.build(name, sub, 0))
	}
	if v.base.Cryptexes[0].Name > v.base.Cryptexes[1].Name {
		v.base.Cryptexes[0], v.base.Cryptexes[1] = v.base.Cryptexes[1], v.base.Cryptexes[0]
	}
	v.world.PublishBaseline(v.base)
	v.node = v.world.Start(filepath.Join(v.dir, "server.db"))
	v.layOutOS()
	front := httptest.NewServer(http.HandlerFunc(v.serve))
	t.Cleanup(front.Close)
	v.url = front.URL
	return v
}

// serve is what stands between the devices and the server.
func (v *vendor) serve(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.seen = append(v.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
	tamper := v.tamper
	v.mu.Unlock()
	if tamper != nil && tamper(w, r) {
		return
	}
	v.node.Server.ServeHTTP(w, r)
}

// hostile sets what the proxy does; nil makes it honest again.
func (v *vendor) hostile(f func(w http.ResponseWriter, r *http.Request) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tamper, v.seen = f, nil
}

// requests lists what was asked since the last call of hostile.
func (v *vendor) requests(containing string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var some []string
	for _, s := range v.seen {
		if strings.Contains(s, containing) {
			some = append(some, s)
		}
	}
	return some
}

func (v *vendor) imageFile(name string, level int) string {
	return filepath.Join(v.dir, fmt.Sprintf("%s-%d.cryptex", name, level))
}

// build makes a cryptex's image at a level.
func (v *vendor) build(name string, sub image.Subtype, level int) release.Image {
	v.t.Helper()
	tree := v.t.TempDir()
	for path, text := range content(name, level) {
		full := filepath.Join(tree, path)
		v.must(os.MkdirAll(filepath.Dir(full), 0o755))
		v.must(os.WriteFile(full, []byte(text), 0o755))
		v.must(os.Chtimes(full, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	}
	f, err := os.Create(v.imageFile(name, level))
	v.must(err)
	defer f.Close()
	s, err := image.Build(context.Background(), f, tree, image.Options{Name: name, Subtype: sub})
	v.must(err)
	return release.Image{
		Name: name, Subtype: release.Subtype(sub), Digest: release.Digest(s.Digest), Size: s.Size, TrustCache: release.Digest(s.TrustCache),
		Seal: release.Seal{
			Root: release.Hash(s.Seal.Root), Salt: release.Hash(s.Seal.Salt), DataBlocks: int64(s.Seal.DataBlocks), Digest: s.Seal.Digest(),
		},
	}
}

// layOutOS writes what an OS update brings.
func (v *vendor) layOutOS() {
	v.t.Helper()
	v.os = filepath.Join(v.dir, "tree")
	lib := filepath.Join(v.os, "usr/lib/sealant")
	v.must(os.MkdirAll(filepath.Join(lib, "base"), 0o755))
	v.must(os.MkdirAll(filepath.Join(v.os, "usr/lib/cryptexes"), 0o755))
	data, err := v.base.Encode()
	v.must(err)
	v.must(os.WriteFile(filepath.Join(lib, "base.json"), data, 0o644))
	root, err := os.ReadFile(filepath.Join(v.world.Catalog(), "metadata", "1.root.json"))
	v.must(err)
	v.must(os.WriteFile(filepath.Join(lib, "root.json"), root, 0o644))
	v.must(os.WriteFile(filepath.Join(lib, "ticket-root.pem"), ticket.MarshalRoot(v.world.Root), 0o644))
	logKey, err := setlog.FormatKey(servertest.Product, v.world.LogKey.Public().(ed25519.PublicKey))
	v.must(err)
	v.must(os.WriteFile(filepath.Join(lib, "log-key.txt"), logKey, 0o644))
	for _, c := range v.base.Cryptexes {
		data, err := os.ReadFile(v.imageFile(c.Name, 0))
		v.must(err)
		v.must(os.WriteFile(filepath.Join(lib, "base", c.Name+".cryptex"), data, 0o644))
	}
}

// source opens an image for patching.
func (v *vendor) source(name string, level int) *bytes.Reader {
	data, err := os.ReadFile(v.imageFile(name, level))
	v.must(err)
	return bytes.NewReader(data)
}

// release publishes the n-th improvement, which changes web (and, from the
// second on, os too), and offers it to percent of the devices.
func (v *vendor) release(n, percent int) release.Manifest {
	v.t.Helper()
	m := release.Manifest{
		Schema: release.ManifestSchema, ID: servertest.ID(n), Level: n, Product: v.base.Product, OSVersion: v.base.OSVersion,
		Baseline: v.base.Digest(), Published: release.Time(v.world.Now()), Severity: "high",
		Title: fmt.Sprintf("Fix number %d", n), Text: "A document could run code.", CVEs: []release.CVE{},
	}
	if n > 1 {
		m.Previous = servertest.ID(n - 1)
	}
	for i := 1; i <= n; i++ {
		m.CVEs = append(m.CVEs, release.CVE{ID: fmt.Sprintf("CVE-2026-%04d", 1100+i), Since: servertest.ID(i), Text: "A flaw.", Exploited: i == 1})
	}
	names := []string{"web"}
	if n > 1 {
		names = []string{"os", "web"}
	}
	var targets []catalog.Target
	store := func(path string, data []byte) {
		t, err := v.world.Repo.Store(path, bytes.NewReader(data))
		v.must(err)
		targets = append(targets, t)
	}
	for _, name := range names {
		from, _ := v.base.Cryptex(name)
		to := v.build(name, image.Subtype(from.Subtype), n)
		forth, back := v.patch(name, 0, n), v.patch(name, n, 0)
		store(release.PatchPath(forth.Digest), v.made[forth.Digest])
		store(release.PatchPath(back.Digest), v.made[back.Digest])
		whole, err := os.ReadFile(v.imageFile(name, n))
		v.must(err)
		store(release.ImagePath(to.Digest), whole)
		m.Cryptexes = append(m.Cryptexes, release.Change{
			Name: name, Subtype: from.Subtype, From: from.State(), To: to.State(), Patch: forth, Antipatch: back,
			Changed: 1, Files: []release.FileChange{{Path: "lib/lib" + name + ".so", Change: release.Content, Before: 1, After: 2}},
		})
	}
	data, err := m.Encode()
	v.must(err)
	store(release.ManifestPath(m.ID), data)
	targets[len(targets)-1].Custom = catalog.Note(m)
	d, err := v.world.Repo.Draft(catalog.Targets, v.world.Now())
	v.must(err)
	for _, t := range targets {
		v.must(d.Set(t))
	}
	_, err = d.Sign(v.world.Vendor)
	v.must(err)
	v.must(v.world.Repo.Publish(d))
	v.world.Refresh()
	if percent >= 0 {
		v.world.Offer(n, percent, false)
	}
	return m
}

// patch makes one, or takes the one that was made before.
func (v *vendor) patch(name string, from, to int) release.File {
	v.t.Helper()
	var b bytes.Buffer
	_, err := patch.Make(&b, v.source(name, from), v.source(name, to), patch.MakeOptions{})
	v.must(err)
	d := release.DigestOf(b.Bytes())
	v.made[d] = b.Bytes()
	return release.File{Digest: d, Size: int64(b.Len())}
}

// recall takes the n-th improvement back.
func (v *vendor) recall(n int) { v.world.Recall(n) }

// machine is one device of the vendor, below a folder.
type machine struct {
	t    testing.TB
	v    *vendor
	root string
	stay string // a mount that a restart doesn't take away, "" if there is none
}

// machine makes a device that is not enrolled.
func (v *vendor) machine(config string) *machine {
	v.t.Helper()
	m := &machine{t: v.t, v: v, root: v.t.TempDir()}
	v.must(os.CopyFS(m.root, os.DirFS(v.os)))
	v.must(os.MkdirAll(filepath.Join(m.root, "etc/sealant"), 0o755))
	v.must(os.MkdirAll(filepath.Join(m.root, "run"), 0o755))
	text := fmt.Sprintf("[server]\nurl = %q\n[network]\nmetered = \"no\"\n%s", v.url, config)
	v.must(os.WriteFile(filepath.Join(m.root, "etc/sealant/agent.toml"), []byte(text), 0o644))
	v.t.Cleanup(m.down)
	return m
}

// enrolled makes a device that is enrolled and has booted.
func (v *vendor) enrolled(config string) *machine {
	v.t.Helper()
	m := v.machine(config)
	m.enroll()
	return m
}

// enroll makes the device known to its server, and boots it.
func (m *machine) enroll() {
	m.t.Helper()
	_, err := m.open().Enroll(m.t.Context(), device.EnrollOptions{Token: m.v.node.Token(1)}, user, nil)
	m.v.must(err)
	m.boot()
}

// open opens the device, as every command does.
func (m *machine) open() *device.Device {
	m.t.Helper()
	d, err := device.Open(m.root)
	m.v.must(err)
	return d
}

// boot restarts the device: sealant-boot, then the agent's confirmation.
func (m *machine) boot() activate.Record {
	m.t.Helper()
	r := m.bootOnly()
	if _, err := m.open().Confirm(context.Background(), nil); err != nil {
		m.t.Fatalf("confirm: %v", err)
	}
	return r
}

// bootOnly is a boot after which the system has not come up yet.
func (m *machine) bootOnly() activate.Record {
	m.t.Helper()
	m.down()
	r, err := activate.Boot(context.Background(), m.root)
	if err != nil {
		m.t.Logf("boot: %v", err)
	}
	return r
}

// user is the actor of these tests' changes.
var user = device.User(0)

func (m *machine) install(id string) (device.Installed, error) {
	return m.open().Install(m.t.Context(), device.InstallOptions{Release: id}, user, m.log)
}

func (m *machine) check() device.Checked {
	m.t.Helper()
	c, err := m.open().Check(m.t.Context(), device.CheckOptions{}, m.log)
	m.v.must(err)
	return c
}

func (m *machine) status() device.Status {
	m.t.Helper()
	s, err := m.open().Status(m.t.Context())
	m.v.must(err)
	return s
}

func (m *machine) verify() device.Verified {
	m.t.Helper()
	v, err := m.open().Verify(m.t.Context(), device.VerifyOptions{}, nil)
	m.v.must(err)
	return v
}

// log shows a journey's words in the test's log.
func (m *machine) log(e device.Event) {
	if e.Kind != device.Progress {
		m.t.Logf("  %s %s: %s", e.Kind, e.Step, e.Text)
	}
}

// level is the level that a cryptex has where everybody sees it, -1 if nothing
// is there.
func (m *machine) level(name string) int {
	m.t.Helper()
	return levelOf(m.t, filepath.Join(m.root, "usr/lib/cryptexes", name), name)
}

func levelOf(t testing.TB, dir, name string) int {
	data, err := os.ReadFile(filepath.Join(dir, "lib/lib"+name+".so"))
	if err != nil {
		return -1
	}
	i := bytes.Index(data, []byte("level "))
	if i < 0 {
		t.Fatal("no level in the file")
	}
	return int(data[i+6] - '0')
}

// mountsBelow lists the mount points below a folder, the innermost first.
func mountsBelow(mountinfo, root string) []string {
	var list []string
	for _, line := range strings.Split(mountinfo, "\n") {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], root+"/") {
			list = append([]string{f[4]}, list...)
		}
	}
	return list
}
