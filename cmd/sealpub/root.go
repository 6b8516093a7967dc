package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/publish"
	"github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/signer"
)

func newRoot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "root",
		Short: "who may sign in the catalog, and until when",
		Long: `The root metadata names the keys of the catalog's roles; devices trust it because
the OS image pins one, and follow each change that enough of the keys before it
have signed, however long they were off.

  sealpub root show --dir vendor
  sealpub root renew --dir vendor
  sealpub root rotate --add targets=dave.key --remove targets=targets-bob --dir vendor`,
	}
	cmd.AddCommand(newRootShow(), newRootRenew(), newRootRotate())
	return cmd
}

// When an expiry is near: people need weeks to meet, a server a day.
const (
	soonForPeople = 60 * 24 * time.Hour
	soonForServer = 24 * time.Hour
)

// roleDocument is one role as it stands.
type roleDocument struct {
	Role      string     `json:"role"`
	Version   int64      `json:"version"`
	Expires   *time.Time `json:"expires"` // null: nobody has signed it yet
	State     string     `json:"state"`   // good, soon, expired, unsigned
	Threshold int        `json:"threshold"`
	Keys      []roleKey  `json:"keys"`
	Remedy    string     `json:"remedy,omitempty"` // a command
}

type roleKey struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // of its file in the folder
}

func newRootShow() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "show every role's keys, threshold and expiry",
		Long: `Shows who may sign for each role, how many of them must, and when what they signed
expires. It warns 60 days before something that people must sign expires, and a
day before the server's signatures do.

  sealpub root show --dir vendor --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			roles, err := standing(v, time.Now())
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.root/1", struct {
					Product string         `json:"product"`
					Roles   []roleDocument `json:"roles"`
				}{v.Product, roles})
			}
			printStanding(s, roles, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	return cmd
}

func standing(v *publish.Vendor, now time.Time) ([]roleDocument, error) {
	repo, err := v.Repository()
	if err != nil {
		return nil, err
	}
	names, err := v.KeyNames()
	if err != nil {
		return nil, err
	}
	all, err := repo.Authorities()
	if err != nil {
		return nil, err
	}
	var roles []roleDocument
	for _, a := range all {
		r := roleDocument{Role: a.Role, Version: a.Version, Threshold: a.Threshold, Keys: []roleKey{}}
		for _, id := range a.Keys {
			r.Keys = append(r.Keys, roleKey{id, names[id]})
		}
		soon, remedy := soonForPeople, "sealpub root renew "+a.Role
		if a.Role == catalog.Snapshot || a.Role == catalog.Timestamp {
			soon, remedy = soonForServer, "sealpub refresh"
		}
		switch left := a.Expires.Sub(now); {
		case a.Version == 0:
			r.State = "unsigned"
		case left <= 0:
			r.State = "expired"
		case left <= soon:
			r.State = "soon"
		default:
			r.State, remedy = "good", ""
		}
		if a.Version > 0 {
			expires := a.Expires.UTC()
			r.Expires = &expires
		}
		r.Remedy = remedy
		roles = append(roles, r)
	}
	return roles, nil
}

func printStanding(s *cli.Screen, roles []roleDocument, now time.Time) {
	s.Printf("%s\n", s.Strong(fmt.Sprintf("%-10s %7s  %-22s %s", "ROLE", "VERSION", "EXPIRES", "KEYS")))
	for _, r := range roles {
		when := s.Dash()
		if r.Expires != nil {
			when = fmt.Sprintf("%s (%d days)", r.Expires.Format(time.DateOnly), int(r.Expires.Sub(now).Hours()/24))
		}
		var keys []string
		for _, k := range r.Keys {
			keys = append(keys, nameOf(map[string]string{k.ID: k.Name}, k.ID))
		}
		s.Printf("%-10s %7d  %-22s %d of %d: %s\n", r.Role, r.Version, when, r.Threshold, len(r.Keys), strings.Join(keys, " "))
	}
	for _, r := range roles {
		switch r.State {
		case "expired":
			s.Printf("%s %s\n", s.Bad(), s.Alarm(fmt.Sprintf("%s has expired: devices refuse the catalog. Run: %s", r.Role, r.Remedy)))
		case "soon":
			s.Printf("%s %s expires on %s. Run: %s\n", s.Warn(), r.Role, r.Expires.Format(time.DateOnly), r.Remedy)
		case "unsigned":
			s.Printf("%s %s is not signed yet. Run: %s\n", s.Warn(), r.Role, r.Remedy)
		}
	}
}

// changing are the flags of the commands that change the catalog's authority.
type changing struct {
	dir     string
	as      []string
	prepare bool
	pass    secret
}

func (c *changing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", ".", "the vendor folder")
	f.StringSliceVar(&c.as, "as", nil, "whose keys sign: owners, or names of keys (default: all at hand)")
	f.BoolVar(&c.prepare, "prepare", false, "sign nothing; leave it to sealpub sign and sealpub publish")
	c.pass.flags(cmd)
}

// run prepares the change, signs it with the keys at hand, and publishes it if
// that is enough.
func (c *changing) run(cmd *cobra.Command, v *publish.Vendor, change catalog.Change) error {
	p, err := v.Change(change)
	if err != nil {
		return err
	}
	if c.prepare {
		return finishCeremony(cmd, v, p, nil)
	}
	open, done := opener(cmd, &c.pass, len(c.as) > 0)
	defer done()
	signers, err := v.CeremonySigners(p, c.as, open)
	if err != nil {
		return err
	}
	if _, err := p.Sign(signers...); err != nil {
		return err
	}
	if err := publish.WriteCeremony(v.CeremonyPath(p.Name), p); err != nil {
		return err
	}
	if !p.Enough() {
		return finishCeremony(cmd, v, p, nil)
	}
	published, err := v.Perform(p)
	if err != nil {
		return err
	}
	return finishCeremony(cmd, v, p, &published)
}

func newRootRenew() *cobra.Command {
	var c changing
	cmd := &cobra.Command{
		Use:   "renew [ROLE…]",
		Short: "sign root and targets, or other roles, for another year",
		Long: `Gives root and targets, or the roles named, a new expiry: a year from now. They are
signed by their owners like a release: what the keys at hand can't sign waits for
sealpub sign, and sealpub publish publishes it.

  sealpub root renew --dir vendor
  sealpub root renew recall advice rollout --dir vendor`,
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := publish.Open(c.dir)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{catalog.Root, catalog.Targets}
			}
			return c.run(cmd, v, catalog.Change{Renew: args})
		},
	}
	c.flags(cmd)
	return cmd
}

func newRootRotate() *cobra.Command {
	var c changing
	var add, remove, threshold []string
	cmd := &cobra.Command{
		Use:   "rotate --add ROLE=KEYFILE --remove ROLE=KEY --threshold ROLE=N",
		Short: "add, replace or revoke keys, or change a threshold",
		Long: `Changes who may sign for a role: root, targets, recall, advice, rollout, snapshot or
timestamp. Several changes are one ceremony, and so one new root. A key to add is
given by its key file (it stays locked) or its public key (PEM); a key to remove by
the name of its file in keys/, by another key file, or by the start of its id.

  sealpub root rotate --add timestamp=new.key --remove timestamp=timestamp --dir vendor
  sealpub root rotate --remove root=root-bob --remove targets=targets-bob --dir vendor
  sealpub root rotate --add recall=recall-2.key --threshold recall=2 --dir vendor

A new root is signed by the owners before and by the owners after; what the keys
at hand can't sign waits for sealpub sign, and sealpub publish publishes it. What
a removed key signed is signed anew in the same ceremony. New online keys must be
with the server before: with the old ones it can show nothing more.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := publish.Open(c.dir)
			if err != nil {
				return err
			}
			e := edit{v: v, roles: map[string]catalog.Role{}}
			for _, group := range []struct {
				args []string
				do   func(role *catalog.Role, value string) error
			}{{remove, e.remove}, {add, e.add}, {threshold, e.threshold}} {
				if err := e.each(group.args, group.do); err != nil {
					return err
				}
			}
			if len(e.roles) == 0 {
				return fault.New(fault.Usage, "there is nothing to change").Hint("--add ROLE=KEYFILE, --remove ROLE=KEY, --threshold ROLE=N")
			}
			return c.run(cmd, v, catalog.Change{Roles: e.roles})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&add, "add", nil, "a key that may sign for a role: ROLE=KEYFILE; can be repeated")
	f.StringArrayVar(&remove, "remove", nil, "a key that may no longer: ROLE=KEY; can be repeated")
	f.StringArrayVar(&threshold, "threshold", nil, "how many must sign: ROLE=N; can be repeated")
	c.flags(cmd)
	return cmd
}

// edit collects changes of roles.
type edit struct {
	v     *publish.Vendor
	roles map[string]catalog.Role
}

// each applies one sort of change to the roles it names.
func (e *edit) each(args []string, do func(role *catalog.Role, value string) error) error {
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || value == "" {
			return fault.New(fault.Usage, "%q is not ROLE=VALUE", arg)
		}
		role, known := e.roles[name]
		if !known {
			repo, err := e.v.Repository()
			if err != nil {
				return err
			}
			if role, err = repo.Role(name); err != nil {
				return fault.New(fault.Usage, "%w", err)
			}
		}
		if err := do(&role, value); err != nil {
			return err
		}
		e.roles[name] = role
	}
	return nil
}

func (e *edit) add(role *catalog.Role, value string) error {
	pub, err := readPublic(value)
	if err != nil {
		return err
	}
	id, err := catalog.KeyID(pub)
	if err != nil {
		return fault.New(fault.Usage, "%s: %w", value, err)
	}
	for _, k := range role.Keys {
		if there, err := catalog.KeyID(k); err == nil && there == id {
			return fault.New(fault.Usage, "%s may sign for the role already", value)
		}
	}
	role.Keys = append(role.Keys, pub)
	return nil
}

func (e *edit) remove(role *catalog.Role, value string) error {
	names, err := e.v.KeyNames()
	if err != nil {
		return err
	}
	if pub, err := readPublic(value); err == nil {
		if id, err := catalog.KeyID(pub); err == nil {
			value = id
		}
	}
	i := slices.IndexFunc(role.Keys, func(k crypto.PublicKey) bool {
		id, err := catalog.KeyID(k)
		return err == nil && (names[id] == value || len(value) >= 8 && strings.HasPrefix(id, value))
	})
	if i < 0 {
		return fault.New(fault.Usage, "the role has no key %q", value).Hint("sealpub root show --dir %s", e.v.Dir)
	}
	role.Keys = slices.Delete(role.Keys, i, i+1)
	return nil
}

func (e *edit) threshold(role *catalog.Role, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil {
		return fault.New(fault.Usage, "%q is no number of signatures", value)
	}
	role.Threshold = n
	return nil
}

// readPublic reads the public key of a key file, or of a PEM file.
func readPublic(file string) (crypto.PublicKey, error) {
	text, err := readSmall(file, signer.MaxFile)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the key: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == "PUBLIC KEY" {
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Usage, "cannot read the key %s: %w", file, err)
		}
		return pub, nil
	}
	k, err := readKey(file)
	if err != nil {
		return nil, err
	}
	return k.Public, nil
}
