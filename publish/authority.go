package publish

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/release/catalog"
)

// ceremonyName is a ceremony's name within prepared/NAME.
const ceremonyName = "ceremony.json"

// CeremonyPath is where Change leaves a ceremony.
func (v *Vendor) CeremonyPath(name string) string {
	return v.path(preparedName, filepath.Base(name), ceremonyName)
}

// Change prepares a change of who may sign and until when, unsigned, in
// prepared/NAME.
func (v *Vendor) Change(change catalog.Change) (*catalog.Ceremony, error) {
	repo, err := v.Repository()
	if err != nil {
		return nil, err
	}
	c, err := repo.Prepare(change, v.now())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(v.path(preparedName, c.Name), 0o755); err != nil {
		return nil, fmt.Errorf("cannot prepare %s: %w", c.Name, err)
	}
	return c, WriteCeremony(v.CeremonyPath(c.Name), c)
}

// ReadCeremony reads a ceremony's file.
func ReadCeremony(name string) (*catalog.Ceremony, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "cannot read the ceremony: %w", err)
	}
	if st.Size() > catalog.MaxCeremony {
		return nil, fmt.Errorf("cannot read the ceremony: %d bytes, the limit is %d", st.Size(), catalog.MaxCeremony)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the ceremony: %w", err)
	}
	return catalog.ParseCeremony(data)
}

// WriteCeremony writes a ceremony's file, whole or not at all.
func WriteCeremony(name string, c *catalog.Ceremony) error {
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if err := writeFile(name, data, 0o644); err != nil {
		return fmt.Errorf("cannot write the ceremony: %w", err)
	}
	return nil
}

// Perform puts a ceremony with enough signatures into the catalog. A new root
// becomes the one that the next OS image pins.
func (v *Vendor) Perform(c *catalog.Ceremony) (Published, error) {
	repo, err := v.Repository()
	if err != nil {
		return Published{}, err
	}
	if err := repo.Perform(c); err != nil {
		return Published{}, err
	}
	root, err := repo.RootBytes()
	if err != nil {
		return Published{}, err
	}
	if err := writeFile(v.path(rootName), root, 0o644); err != nil {
		return Published{}, fmt.Errorf("cannot write %s: %w", rootName, err)
	}
	if err := os.RemoveAll(v.path(preparedName, c.Name)); err != nil {
		return Published{}, err
	}
	return v.show(repo, Published{Version: c.Steps()[0].Version})
}

// Refresh signs snapshot and timestamp anew if there is something new to show,
// or if they have lived half their life, with the online keys of the folder
// and those in other files. It is what a server does by itself.
func (v *Vendor) Refresh(files []string, open Opener) (catalog.State, error) {
	repo, err := v.Repository()
	if err != nil {
		return catalog.State{}, err
	}
	inFolder, err := filepath.Glob(v.path(onlineName, "*.key"))
	if err != nil {
		return catalog.State{}, err
	}
	var wanted []string
	for _, role := range []string{catalog.Snapshot, catalog.Timestamp} {
		a, err := repo.Role(role)
		if err != nil {
			return catalog.State{}, err
		}
		for _, k := range a.Keys {
			id, err := catalog.KeyID(k)
			if err != nil {
				return catalog.State{}, err
			}
			wanted = append(wanted, id)
		}
	}
	signers, err := openWanted(append(inFolder, files...), wanted, open)
	if err != nil {
		return catalog.State{}, err
	}
	return repo.Refresh(signers, v.now())
}

// CeremonySigners opens those keys of the folder that count for a ceremony:
// the owners' named, or everybody's.
func (v *Vendor) CeremonySigners(c *catalog.Ceremony, owners []string, open Opener) ([]crypto.Signer, error) {
	files, err := v.keyFiles()
	if err != nil {
		return nil, err
	}
	if len(owners) > 0 {
		known := map[string]bool{}
		files = slices.DeleteFunc(files, func(f string) bool {
			name := strings.TrimSuffix(filepath.Base(f), ".key")
			for _, o := range owners {
				if name == o || name == "root-"+o || name == targetsPrefix+o {
					known[o] = true
					return false
				}
			}
			return true
		})
		for _, o := range owners {
			if !known[o] {
				return nil, fault.New(fault.Usage, "cannot sign as %q: there is no such key in %s", o, v.path(keysName))
			}
		}
	}
	return openWanted(files, c.Wanted(), open)
}

// openWanted opens each key file whose key is one of ids.
func openWanted(files, ids []string, open Opener) ([]crypto.Signer, error) {
	var signers []crypto.Signer
	for _, f := range files {
		k, err := readKey(f)
		if err != nil {
			return nil, err
		}
		if id, err := catalog.KeyID(k.Public); err != nil || !slices.Contains(ids, id) {
			continue // the root of tickets is no key of the catalog
		}
		s, err := open(f)
		if err != nil {
			return nil, fmt.Errorf("cannot sign with %s: %w", k.Name, err)
		}
		if s != nil {
			signers = append(signers, s)
		}
	}
	return signers, nil
}

// keyFiles lists the key files of the folder.
func (v *Vendor) keyFiles() ([]string, error) {
	var files []string
	err := filepath.WalkDir(v.path(keysName), func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && e.Type().IsRegular() && strings.HasSuffix(name, ".key") {
			files = append(files, name)
		}
		return err
	})
	return files, err
}

// KeyNames names the keys of the folder by their ids: "root-alice". A key that
// stands in two files has the name of the first.
func (v *Vendor) KeyNames() (map[string]string, error) {
	files, err := v.keyFiles()
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, f := range files {
		k, err := readKey(f)
		if err != nil {
			return nil, err
		}
		if id, err := catalog.KeyID(k.Public); err == nil && names[id] == "" {
			names[id] = strings.TrimSuffix(filepath.Base(f), ".key")
		}
	}
	return names, nil
}
