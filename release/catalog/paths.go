package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// File is one metadata file of a state, as it was verified.
type File struct {
	Name string // below metadata/
	Data []byte
}

// Metadata lists the files of the state in force, byte for byte as they were
// verified, and the roots from the pinned one on: all that another client needs.
// They are in the order in which they may be put into a folder that is being
// served; the timestamp, which is last, makes the rest count.
func (c *Client) Metadata() ([]File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return nil, fault.New(fault.Stale, "%w", errNoState)
	}
	var all []File
	for version := c.pinned; version <= c.root.Signed.Version; version++ {
		data := c.config.Root
		if version > c.pinned {
			var err error
			if data, err = readFile(c.path(metadataName(Root, version)), metadataLimit(Root)); err != nil {
				return nil, fmt.Errorf("cannot read root version %d: %w", version, err)
			}
		}
		all = append(all, File{metadataName(Root, version), data})
	}
	for role, m := range c.state.Targets {
		all = append(all, File{metadataName(role, m.Signed.Version), c.raw[role]})
	}
	return append(all,
		File{metadataName(Snapshot, c.state.Snapshot.Signed.Version), c.raw[Snapshot]},
		File{metadataName(Timestamp, 0), c.raw[Timestamp]}), nil
}

// Paths lists the files of the state in force whose path begins with prefix, in
// order: Paths("baselines/") are the baselines. Only files that Locate would
// find in the role that may name them are listed.
func (c *Client) Paths(prefix string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == nil {
		return nil
	}
	var found []string
	for role, m := range c.state.Targets {
		for name := range m.Signed.Targets {
			if strings.HasPrefix(name, prefix) && roleFor(name) == role {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	return found
}
