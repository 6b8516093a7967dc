package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	signed "github.com/sealant-os/sealant/release/catalog"
	"github.com/sealant-os/sealant/trust/signer"
)

// onlineRoles are the roles whose keys a server holds.
var onlineRoles = []string{signed.Rollout, signed.Snapshot, signed.Timestamp}

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "the online keys: whose they are, and new ones in their place",
		Long: `A server holds the keys of rollout, snapshot and timestamp. They can't make a device
accept content, and are replaced from time to time, and at once if the server was
broken into. The publisher's root decides whose keys count, so this takes two:

  sealsrv keys rotate              on the server: makes new keys beside the old ones
  (add them to keys.online, restart: the server has both now)
  sealpub root rotate …            at the publisher's: the command that rotate printed
  (bring the published catalog to the server: it signs with the new keys at once)
  sealsrv keys show                says which old files are used no more

No moment is without a key. The leaf has its own life: sealsrv leaf.`,
	}
	cmd.AddCommand(newKeysShow(), newKeysRotate())
	return cmd
}

// onlineKey is one key file and what the catalog in force says of it.
type onlineKey struct {
	File  string   `json:"file"`
	Name  string   `json:"name"`
	ID    string   `json:"id"`
	Roles []string `json:"roles"` // that it signs for now
}

func onlineKeys(c *config) ([]onlineKey, error) {
	repository, err := signed.OpenRepository(c.Repository)
	if err != nil {
		return nil, err
	}
	all, err := repository.Authorities()
	if err != nil {
		return nil, err
	}
	list := []onlineKey{}
	for _, path := range c.Keys.Online {
		text, err := readSmall(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the key: %w", err)
		}
		k, err := signer.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		id, err := signed.KeyID(k.Public)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		key := onlineKey{File: path, Name: k.Name, ID: id, Roles: []string{}}
		for _, a := range all {
			if slices.Contains(a.Keys, id) {
				key.Roles = append(key.Roles, a.Role)
			}
		}
		list = append(list, key)
	}
	return list, nil
}

func newKeysShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "which role each online key signs for", Args: cobra.NoArgs,
		Example: "  sealsrv keys show",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			list, err := onlineKeys(c)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.online-keys/1", map[string]any{"keys": list})
			}
			w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "KEY\tSIGNS FOR\tFILE")
			for _, k := range list {
				roles := "nothing: not in the catalog yet, or no more"
				if len(k.Roles) > 0 {
					roles = fmt.Sprint(k.Roles)
				}
				fmt.Fprintf(w, "%.8s\t%s\t%s\n", k.ID, roles, k.File)
			}
			return w.Flush()
		},
	}
}

// rotated is one new key and the one it shall follow.
type rotated struct {
	Role   string `json:"role"`
	File   string `json:"file"`
	Public string `json:"public"` // file for the publisher
	ID     string `json:"id"`
	Old    string `json:"old"` // id
}

func newKeysRotate() *cobra.Command {
	return &cobra.Command{
		Use: "rotate [ROLE…]", Short: "make new online keys, for the publisher to name", ValidArgs: onlineRoles,
		Long: `Rotate makes a new Ed25519 key for rollout, snapshot and timestamp, or the roles
named, beside the old one's file, and its public part beside that. It prints the
command by which the publisher's owners put the new keys in the old ones' place;
until the catalog names them nothing has changed. Run it again for others.`,
		Example: "  sealsrv keys rotate\n  sealsrv keys rotate timestamp --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = onlineRoles
			}
			for _, role := range args {
				if !slices.Contains(onlineRoles, role) {
					return fault.New(fault.Usage, "a server has no key of the role %s", role).Hint("sealpub root rotate replaces people's keys")
				}
			}
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			present, err := onlineKeys(c)
			if err != nil {
				return err
			}
			var list []rotated
			for _, role := range args {
				at := slices.IndexFunc(present, func(k onlineKey) bool { return slices.Contains(k.Roles, role) })
				if at < 0 {
					return fault.New(fault.Failed, "none of the keys in keys.online signs for %s", role)
				}
				r, err := rotate(role, present[at], time.Now())
				if err != nil {
					return err
				}
				list = append(list, r)
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.keys-rotated/1", map[string]any{"keys": list})
			}
			s.Printf("sealpub root rotate")
			for _, r := range list {
				s.Printf(" --add %s=%s --remove %s=%.12s", r.Role, r.Public, r.Role, r.Old)
			}
			s.Printf("\n")
			for _, r := range list {
				s.Notef("%s %s\n", s.Good(), r.File)
			}
			s.Notef("add these files to keys.online and restart; then have the publisher run the command\n")
			return nil
		},
	}
}

// rotate makes the key that shall follow another.
func rotate(role string, old onlineKey, now time.Time) (rotated, error) {
	r := rotated{Role: role, Old: old.ID}
	key, err := signer.New(rand.Reader, signer.Ed25519)
	if err != nil {
		return r, err
	}
	name := role + "-" + now.UTC().Format("20060102-150405")
	file, err := signer.Unencrypted(name, key)
	if err != nil {
		return r, err
	}
	if r.ID, err = signed.KeyID(key.Public()); err != nil {
		return r, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return r, err
	}
	r.File = filepath.Join(filepath.Dir(old.File), name+".key")
	r.Public = filepath.Join(filepath.Dir(old.File), name+".pem")
	if _, err := os.Lstat(r.File); !errors.Is(err, fs.ErrNotExist) {
		return r, fault.New(fault.Failed, "cannot make a new key: %s exists already", r.File)
	}
	if err := writeSecret(r.File, file); err != nil {
		return r, fmt.Errorf("cannot write the key: %w", err)
	}
	if err := os.WriteFile(r.Public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o644); err != nil {
		return r, fmt.Errorf("cannot write the public key: %w", err)
	}
	return r, nil
}
