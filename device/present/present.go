// Package present reads what package activate has put into force: which images are
// mounted, and which set of them a launch gets. It is apart because every launch waits
// for it: it links none of what verifies and mounts.
package present

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// sourcePrefix begins the source that mountinfo shows for a cryptex.
const sourcePrefix = "sealant"

// Content is an image that is mounted somewhere.
type Content struct {
	Name  string       `json:"name"`
	Image store.Digest `json:"image"`
}

// Source is what mountinfo shows as the source of the content's mounts:
// "sealant:NAME:DIGEST". Only root can mount EROFS, so only root can claim it.
func (c Content) Source() string { return sourcePrefix + ":" + c.Name + ":" + c.Image.String() }

// parseSource reads a mount's source; ok is false for other mounts.
func parseSource(s string) (c Content, ok bool) {
	prefix, rest, _ := strings.Cut(s, ":")
	name, digest, found := strings.Cut(rest, ":")
	if prefix != sourcePrefix || !found || len(digest) != hex.EncodedLen(len(c.Image)) {
		return Content{}, false
	}
	if err := c.Image.UnmarshalText([]byte(digest)); err != nil {
		return Content{}, false
	}
	c.Name = name
	return c, true
}

// Of says which image a mount shows; ok is false for other mounts.
func Of(m *linux.MountPoint) (c Content, ok bool) {
	if m.Type != "erofs" {
		return Content{}, false
	}
	return parseSource(m.Source)
}

// String names the content for people: "web 91b0…".
func (c Content) String() string { return fmt.Sprintf("%s %.8s…", c.Name, c.Image) }

// linked is the set id that a link names, "" if there is no link.
func linked(path string) (string, error) {
	text, err := os.Readlink(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	id, ok := strings.CutPrefix(text, "sets/")
	if err != nil || !ok || strings.Contains(id, "/") {
		return "", fmt.Errorf("cannot read %s: it leads to %q", path, text)
	}
	return id, nil
}

// Staged is the id of the set that a launch gets, "" when nothing is attached.
func Staged(st *store.Store) (string, error) { return linked(st.StagedPath()) }

// Booted is the id of the set that was attached at boot, "" when none was.
func Booted(st *store.Store) (string, error) { return linked(st.BootedPath()) }

// Devices tells which image each device number stands for that was mounted
// since boot. A number whose mount is gone may have been given to another file
// system: what is found by it alone must be looked at closer.
func Devices(st *store.Store) (map[linux.Device]Content, error) {
	dir := filepath.Dir(st.DeviceLink("x"))
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot list the mounted devices: %w", err)
	}
	devices := make(map[linux.Device]Content, len(names))
	for _, name := range names {
		device, err := linux.ParseDevice(name.Name())
		if err != nil {
			continue // a link that is being switched
		}
		text, err := os.Readlink(filepath.Join(dir, name.Name()))
		if err != nil {
			return nil, fmt.Errorf("cannot read a mounted device: %w", err)
		}
		if c, ok := parseSource(text); ok {
			devices[device] = c
		}
	}
	return devices, nil
}
