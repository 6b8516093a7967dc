package store

import "path/filepath"

// Below gives the paths of the device below root without looking at its state:
// for sealant-boot, which must find the OS update's own content even when the
// state can't be opened.
func Below(root string) *Store {
	if root == "" {
		root = "/"
	}
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	return &Store{root: root, dir: filepath.Join(root, "var/lib/sealant")}
}

// WithRun gives the store another folder in place of root/run. In an initrd that
// is the initrd's own /run, which takes the place of the real one's when the
// root is switched.
func (s *Store) WithRun(dir string) *Store {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	other := *s
	other.run = filepath.Join(dir, "sealant")
	return &other
}

// SetMounts is the folder of a set's mounts, SetMount without the cryptex.
func (s *Store) SetMounts(id string) string { return filepath.Join(s.RunDir(), "sets", id) }

// CryptexDir is the folder of all mount points.
func (s *Store) CryptexDir() string { return filepath.Join(s.root, "usr/lib/cryptexes") }

// StagedPath is the link to the mounts of the set that a new launch gets:
// "sets/ID".
func (s *Store) StagedPath() string { return filepath.Join(s.RunDir(), "staged") }

// BootedPath is the link to the mounts of the set that was attached at boot.
func (s *Store) BootedPath() string { return filepath.Join(s.RunDir(), "booted") }

// DeviceLink names the link that says which image a mounted device holds; it
// outlives the mount.
func (s *Store) DeviceLink(device string) string {
	return filepath.Join(s.RunDir(), "devices", device)
}

// RestartPlanPath is the announcement of a restart by policy.
func (s *Store) RestartPlanPath() string { return filepath.Join(s.RunDir(), "restart.json") }

// LaunchDir holds the records of launched processes.
func (s *Store) LaunchDir() string { return filepath.Join(s.RunDir(), "launches") }

// LaunchSocketPath is where the agent starts apps for ordinary users.
func (s *Store) LaunchSocketPath() string { return filepath.Join(s.RunDir(), "launch.sock") }

// UnitDir is where systemd reads what changes its units until the next boot. It
// exists where systemd runs.
func (s *Store) UnitDir() string { return filepath.Join(s.root, "run/systemd/system") }

// SystemdSocketPath is where systemd answers root, without a bus.
func (s *Store) SystemdSocketPath() string { return filepath.Join(s.root, "run/systemd/private") }
