package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/sealant-os/sealant/internal/fault"
)

// The folder of a client:
//
//	<n>.root.json               every root after the pinned one, so that each
//	                            start verifies the whole chain again
//	state-<n>/<role>.json       one whole state, named by its snapshot's version
//	state.json                  which folder is in force, and when it was verified
//	documents/<sha256>          small targets, for use without a network
//
// The replacement of state.json commits.

// stateSchema names the form of state.json.
const stateSchema = "sealant.catalog-state/1"

type stateFile struct {
	Schema   string    `json:"schema"`
	Folder   string    `json:"folder"`
	Verified time.Time `json:"verified"` // by believed time
	Root     int64     `json:"root"`     // version of the root it was verified under
}

func (c *Client) path(parts ...string) string {
	return filepath.Join(append([]string{c.config.Dir}, parts...)...)
}

// load verifies what the folder holds; whatever does not verify is left out.
func (c *Client) load() {
	roots := map[int64]*metadata.Metadata[metadata.RootType]{c.root.Signed.Version: c.root}
	for range maxRootRotations {
		version := c.root.Signed.Version + 1
		data, err := readFile(c.path(metadataName(Root, version)), metadataLimit(Root))
		if err != nil {
			break
		}
		next, err := nextRoot(c.root, data)
		if err != nil {
			break
		}
		c.root, roots[version] = next, next
	}
	data, err := readFile(c.path("state.json"), 4096)
	if err != nil {
		return
	}
	var st stateFile
	if json.Unmarshal(data, &st) != nil || st.Schema != stateSchema || !strings.HasPrefix(st.Folder, "state-") || st.Folder != filepath.Base(st.Folder) {
		return
	}
	raw := map[string][]byte{}
	entries, err := os.ReadDir(c.path(st.Folder))
	if err != nil || len(entries) > maxRoles+3 {
		return
	}
	for _, e := range entries {
		role, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			return
		}
		if raw[role], err = readFile(c.path(st.Folder, e.Name()), metadataLimit(role)); err != nil {
			return
		}
	}
	// A state verified under a root older than the pinned one stays good only
	// if the newest root's keys say so too.
	root := roots[st.Root]
	if root == nil {
		root = c.root
	}
	if state, err := verify(root, raw, st.Verified); err == nil {
		c.state, c.raw, c.verified = state, raw, st.Verified
	}
}

// verify builds a state from metadata that was verified once, at that time. So
// it can be read after it expired; Expires says when that is.
func verify(root *metadata.Metadata[metadata.RootType], raw map[string][]byte, at time.Time) (*trustedmetadata.TrustedMetadata, error) {
	state, err := under(root, at)
	if err != nil {
		return nil, err
	}
	if _, err := state.UpdateTimestamp(raw[Timestamp]); err != nil {
		return nil, err
	}
	if _, err := state.UpdateSnapshot(raw[Snapshot], false); err != nil {
		return nil, err
	}
	return state, loadTargets(state,
		func(role string, _ *metadata.MetaFiles) ([]byte, error) { return raw[role], nil },
		func(_ string, err error) error { return err })
}

func (c *Client) saveRoot(version int64, data []byte) error {
	return writeFile(c.path(metadataName(Root, version)), data)
}

// save makes a whole state durable: its folder first, then state.json.
func (c *Client) save(raw map[string][]byte, now time.Time) error {
	folder := "state-" + strconv.FormatInt(now.UnixNano(), 36)
	if err := os.MkdirAll(c.path(folder), 0o700); err != nil {
		return err
	}
	for role, data := range raw {
		if err := writeFile(c.path(folder, role+".json"), data); err != nil {
			return err
		}
	}
	// The pinned root too: an older OS that is booted again pins an older one,
	// and walks the chain to the root that this state was verified under.
	if pinned, err := metadata.Root().FromBytes(c.config.Root); err == nil && pinned.Signed.Version > 1 {
		if err := c.saveRoot(pinned.Signed.Version, c.config.Root); err != nil {
			return err
		}
	}
	data, err := json.Marshal(stateFile{Schema: stateSchema, Folder: folder, Verified: now, Root: c.root.Signed.Version})
	if err != nil {
		return err
	}
	if err := writeFile(c.path("state.json"), data); err != nil {
		return err
	}
	return c.sweep(folder, raw)
}

// sweep drops what came before and what a crash left, and the documents that
// the state names no more.
func (c *Client) sweep(folder string, raw map[string][]byte) error {
	entries, err := os.ReadDir(c.config.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		old := strings.HasPrefix(e.Name(), "state-") && e.Name() != folder
		if old || strings.HasPrefix(e.Name(), ".new-") {
			if err := os.RemoveAll(c.path(e.Name())); err != nil {
				return err
			}
		}
	}
	documents, err := os.ReadDir(c.path("documents"))
	if err != nil {
		return nil // there are none yet
	}
	for _, e := range documents {
		named := false
		for _, data := range raw {
			named = named || bytes.Contains(data, []byte(e.Name()))
		}
		if !named {
			if err := os.Remove(c.path("documents", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// judge turns go-tuf's error about a role into one that a person understands.
func (c *Client) judge(role string, now time.Time, err error) error {
	what := role
	if role != Root && role != Targets && role != Snapshot && role != Timestamp {
		what = "the " + role + " list's"
	}
	switch {
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return c.expired(what, now)
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return fault.New(fault.Stale, "%s metadata is older than what this device has seen: %w", what, err).
			Hint("the server or mirror shows an old state; tell the operator")
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return fault.New(fault.Stale, "%s metadata is not signed by enough of its keys: %w", what, err)
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		return fault.New(fault.Stale, "%s metadata does not belong to this state of the catalog: %w", what, err).
			Hint("the server or mirror may be in the middle of an update; try again later")
	}
	return fault.New(fault.Stale, "%s metadata is not valid: %w", what, err)
}

// expired names the metadata, its expiry, and the clock by which it is over.
func (c *Client) expired(what string, now time.Time) error {
	const form = "2006-01-02 15:04 UTC"
	machine := c.config.Now().UTC()
	e := fault.New(fault.Stale, "%s metadata has expired: this device's clock says %s", what, machine.Format(form))
	hint := "if the clock is right, the server or mirror shows an old state; tell the operator"
	if machine.Before(now) {
		e = fault.New(fault.Stale, "%s metadata has expired by %s, before which this device can't be; its clock says %s", what, now.Format(form), machine.Format(form))
		hint = "set the clock; then check again"
	}
	return e.Hint("%s", hint)
}

var errNoState = fmt.Errorf("this device has no verified catalog yet")
