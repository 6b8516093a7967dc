package publish

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/pattern"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/release/advisory"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/setlog"
	"github.com/sealant-os/sealant/trust/signer"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Vendor is a publisher's folder.
type Vendor struct {
	Dir       string
	Product   string
	OSVersion string
	Publisher advisory.Publisher // who speaks on the public pages

	now func() time.Time
}

// vendorSchema names the form of vendor.json.
const vendorSchema = "sealant.vendor/1"

type vendorFile struct {
	Schema    string             `json:"schema"`
	Product   string             `json:"product"`
	OSVersion string             `json:"os_version"`
	Publisher advisory.Publisher `json:"publisher"`
}

// save writes vendor.json.
func (v *Vendor) save() error {
	data, err := json.MarshalIndent(vendorFile{Schema: vendorSchema, Product: v.Product, OSVersion: v.OSVersion, Publisher: v.Publisher}, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(v.path(vendorName), append(data, '\n'), 0o644)
}

// Paths in the folder.
const (
	vendorName     = "vendor.json"
	keysName       = "keys"
	onlineName     = "keys/online"
	repoName       = "repo"
	preparedName   = "prepared"
	rootName       = "root.json"
	ticketRootName = "ticket-root.pem"
	logKeyName     = "log-key.txt"
	logName        = "log" // its key, among the online ones
	baseName       = "base.json"
)

// ticketRootYears is how long the root of tickets is good for. Devices verify
// tickets without a clock; the date only stops a signing service that lives on.
const ticketRootYears = 30

// NewPassphrase asks for the passphrase of a new key.
type NewPassphrase func(key string) ([]byte, error)

// Opener makes the key of a key file ready to sign. A nil signer and no error
// mean that this key is not to be used now.
type Opener func(file string) (crypto.Signer, error)

// Setup is what a new vendor folder is made for.
type Setup struct {
	Product    string
	OSVersion  string
	Publisher  advisory.Publisher // Name is the product where empty
	Owners     []string           // who owns root and targets keys; one "owner" where empty
	Threshold  int                // how many of them must sign; more than half where 0
	Recall     Quorum             // who may recall; one of one key where zero
	Advice     Quorum             // who may advise; one of one key where zero
	Throwaway  bool               // keys without a passphrase, for labs only
	Passphrase NewPassphrase      // unless Throwaway
	Now        func() time.Time
}

// Quorum is how many keys a role has, and how many of them must sign.
type Quorum struct {
	Keys, Threshold int
}

// maxQuorum is the most keys that a list's role is made with.
const maxQuorum = 16

func (q *Quorum) check(role string) error {
	if q.Keys == 0 {
		q.Keys = max(q.Threshold, 1)
	}
	if q.Threshold == 0 {
		q.Threshold = 1
	}
	if q.Keys < 1 || q.Keys > maxQuorum || q.Threshold < 1 || q.Threshold > q.Keys {
		return fault.New(fault.Usage, "%d of %d %s keys can't be needed (at most %d keys)", q.Threshold, q.Keys, role, maxQuorum)
	}
	return nil
}

// names are the key files of a role: recall, or recall-1, recall-2, …
func (q Quorum) names(role string) []string {
	if q.Keys == 1 {
		return []string{role}
	}
	var names []string
	for i := range q.Keys {
		names = append(names, fmt.Sprintf("%s-%d", role, i+1))
	}
	return names
}

var ownerPattern = pattern.Lazy(`^[a-z0-9][a-z0-9.-]{0,31}$`)

func (s *Setup) check() error {
	if err := release.CheckProduct(s.Product); err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	if err := release.CheckOSVersion(s.OSVersion); err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	if len(s.Owners) == 0 {
		s.Owners = []string{"owner"}
	}
	seen := map[string]bool{}
	for _, o := range s.Owners {
		if !ownerPattern.MatchString(o) || seen[o] {
			return fault.New(fault.Usage, "%q can't be an owner's name, or stands twice", o)
		}
		seen[o] = true
	}
	if s.Threshold == 0 {
		s.Threshold = len(s.Owners)/2 + 1
	}
	if s.Threshold < 1 || s.Threshold > len(s.Owners) {
		return fault.New(fault.Usage, "%d of %d owners can't be needed", s.Threshold, len(s.Owners))
	}
	if err := errors.Join(s.Recall.check(catalog.Recall), s.Advice.check(catalog.Advice)); err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Publisher.Name == "" {
		s.Publisher.Name = s.Product
	}
	if s.Publisher.URL == "" {
		s.Publisher.URL = "https://" + strings.ToLower(s.Product) + ".invalid/security"
	}
	if err := s.Publisher.Check(); err != nil {
		return fault.New(fault.Usage, "%w", err)
	}
	return nil
}

// Init makes a vendor folder: keys, an empty signed catalog, and what the OS
// image pins. It appears whole or not at all.
func Init(dir string, s Setup) (v *Vendor, err error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("cannot set up %s: %w", dir, err)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fault.New(fault.Usage, "cannot set up %s: it is not empty", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Usage, "cannot set up %s: %w", dir, err)
	}
	work := filepath.Clean(dir) + ".new"
	if err := os.RemoveAll(work); err != nil {
		return nil, fmt.Errorf("cannot set up %s: %w", dir, err)
	}
	defer os.RemoveAll(work)
	if err := os.MkdirAll(filepath.Join(work, onlineName), 0o700); err != nil {
		return nil, fmt.Errorf("cannot set up %s: %w", dir, err)
	}
	v = &Vendor{Dir: work, Product: s.Product, OSVersion: s.OSVersion, Publisher: s.Publisher, now: s.Now}
	if err := v.fill(s); err != nil {
		return nil, fmt.Errorf("cannot set up %s: %w", dir, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot set up %s: %w", dir, err)
	}
	if err := os.Rename(work, dir); err != nil {
		return nil, fmt.Errorf("cannot set up %s: %w", dir, err)
	}
	v.Dir = dir
	return v, nil
}

func (v *Vendor) fill(s Setup) error {
	roles := catalog.Roles{
		Root: catalog.Role{Threshold: s.Threshold}, Targets: catalog.Role{Threshold: s.Threshold},
		Recall: catalog.Role{Threshold: s.Recall.Threshold}, Advice: catalog.Role{Threshold: s.Advice.Threshold}, Rollout: catalog.Role{Threshold: 1},
		Snapshot: catalog.Role{Threshold: 1}, Timestamp: catalog.Role{Threshold: 1},
	}
	type order struct {
		name string
		role *catalog.Role
	}
	var orders []order
	for _, o := range s.Owners {
		orders = append(orders, order{"root-" + o, &roles.Root}, order{"targets-" + o, &roles.Targets})
	}
	for _, name := range s.Recall.names(catalog.Recall) {
		orders = append(orders, order{name, &roles.Recall})
	}
	for _, name := range s.Advice.names(catalog.Advice) {
		orders = append(orders, order{name, &roles.Advice})
	}
	orders = append(orders, order{"online/rollout", &roles.Rollout}, order{"online/snapshot", &roles.Snapshot}, order{"online/timestamp", &roles.Timestamp})
	var signers []crypto.Signer
	for _, o := range orders {
		key, err := v.newKey(o.name, signer.Ed25519, s)
		if err != nil {
			return err
		}
		o.role.Keys = append(o.role.Keys, key.Public())
		signers = append(signers, key)
	}
	ticketKey, err := v.newKey("ticket-root", signer.P384, s)
	if err != nil {
		return err
	}
	logKey, err := v.newKey("online/"+logName, signer.Ed25519, s)
	if err != nil {
		return err
	}
	verifier, err := setlog.FormatKey(s.Product, logKey.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	now := s.Now()
	cert, err := ticket.NewRoot(rand.Reader, ticketKey, s.Product+" ticket root", now.Add(-time.Hour), now.AddDate(ticketRootYears, 0, 0))
	if err != nil {
		return err
	}
	repo, err := catalog.Create(filepath.Join(v.Dir, repoName), roles, now, signers...)
	if err != nil {
		return err
	}
	root, err := repo.RootBytes()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{rootName: root, ticketRootName: ticket.MarshalRoot(cert), logKeyName: verifier} {
		if err := writeFile(v.path(name), data, 0o644); err != nil {
			return err
		}
	}
	return v.save()
}

// newKey makes a key and its file. Online keys are used by a server that
// nobody is with, so they have no passphrase: their file's mode protects them.
func (v *Vendor) newKey(name string, a signer.Algorithm, s Setup) (crypto.Signer, error) {
	key, err := signer.New(rand.Reader, a)
	if err != nil {
		return nil, err
	}
	var file []byte
	label := filepath.Base(name)
	if s.Throwaway || strings.HasPrefix(name, "online/") {
		file, err = signer.Unencrypted(label, key)
	} else {
		var pass []byte
		if pass, err = s.Passphrase(label); err != nil {
			return nil, err
		}
		file, err = signer.Encrypt(label, key, pass)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", label, err)
	}
	return key, writeFile(filepath.Join(v.Dir, keysName, filepath.FromSlash(name)+".key"), file, 0o600)
}

// Open opens a vendor folder.
func Open(dir string) (*Vendor, error) {
	data, err := os.ReadFile(filepath.Join(dir, vendorName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Usage, "%s is no vendor folder: it has no %s", dir, vendorName).Hint("make one: sealpub init %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the vendor folder: %w", err)
	}
	var f vendorFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil || f.Schema != vendorSchema {
		return nil, fmt.Errorf("cannot open the vendor folder: %s is not a %s document", vendorName, vendorSchema)
	}
	for _, err := range []error{release.CheckProduct(f.Product), release.CheckOSVersion(f.OSVersion)} {
		if err != nil {
			return nil, fmt.Errorf("cannot open the vendor folder: %s: %w", vendorName, err)
		}
	}
	return &Vendor{Dir: dir, Product: f.Product, OSVersion: f.OSVersion, Publisher: f.Publisher, now: time.Now}, nil
}

// Repository opens the catalog.
func (v *Vendor) Repository() (*catalog.Repository, error) {
	return catalog.OpenRepository(v.path(repoName))
}

func (v *Vendor) path(parts ...string) string {
	return filepath.Join(append([]string{v.Dir}, parts...)...)
}

// Owners lists who has a targets key in the folder.
func (v *Vendor) Owners() ([]string, error) {
	files, err := filepath.Glob(v.path(keysName, targetsPrefix+"*.key"))
	if err != nil {
		return nil, err
	}
	var owners []string
	for _, f := range files {
		owners = append(owners, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), targetsPrefix), ".key"))
	}
	sort.Strings(owners)
	return owners, nil
}

// targetsPrefix begins the names of the owners' targets keys.
const targetsPrefix = "targets-"

func (v *Vendor) targetsKey(owner string) string {
	return v.path(keysName, targetsPrefix+filepath.Base(owner)+".key")
}

// Owner is the owner whose targets key has that id in the catalog, or the
// beginning of the id.
func (v *Vendor) Owner(id string) string {
	owners, err := v.Owners()
	if err != nil {
		return fmt.Sprintf("%.8s", id)
	}
	for _, o := range owners {
		if k, err := readKey(v.targetsKey(o)); err == nil {
			if kid, err := catalog.KeyID(k.Public); err == nil && kid == id {
				return o
			}
		}
	}
	return fmt.Sprintf("%.8s", id)
}

// Signers opens the targets keys of the owners named, or of all.
func (v *Vendor) Signers(owners []string, open Opener) ([]crypto.Signer, error) {
	if len(owners) == 0 {
		var err error
		if owners, err = v.Owners(); err != nil {
			return nil, err
		}
	}
	var signers []crypto.Signer
	for _, o := range owners {
		file := v.targetsKey(o)
		if _, err := os.Stat(file); err != nil {
			return nil, fault.New(fault.Usage, "cannot sign as %q: %w", o, err)
		}
		s, err := open(file)
		if err != nil {
			return nil, fmt.Errorf("cannot sign as %q: %w", o, err)
		}
		if s != nil {
			signers = append(signers, s)
		}
	}
	return signers, nil
}

// online opens the catalog's online keys that the folder has and that need
// nobody.
func (v *Vendor) online() ([]crypto.Signer, error) {
	files, err := filepath.Glob(v.path(onlineName, "*.key"))
	if err != nil {
		return nil, err
	}
	var signers []crypto.Signer
	for _, f := range files {
		if filepath.Base(f) == logName+".key" {
			continue // the signing service's
		}
		k, err := readKey(f)
		if err != nil {
			return nil, err
		}
		if _, elsewhere := k.Program(); elsewhere || k.Encrypted() {
			continue
		}
		s, err := k.Unlock(nil)
		if err != nil {
			return nil, fmt.Errorf("cannot open %s: %w", f, err)
		}
		signers = append(signers, s)
	}
	return signers, nil
}

func readKey(file string) (*signer.Key, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	if st.Size() > signer.MaxFile {
		return nil, fmt.Errorf("cannot read the key: %s has more than %d bytes", file, signer.MaxFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	k, err := signer.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key %s: %w", file, err)
	}
	return k, nil
}

// writeFile makes a file durable under its name, whole or not at all.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
