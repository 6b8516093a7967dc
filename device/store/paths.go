package store

import (
	"fmt"
	"path/filepath"
	"syscall"
)

// What the OS update brings, read-only.

// BaselinePath is the OS update's description of its cryptexes.
func (s *Store) BaselinePath() string { return filepath.Join(s.root, "usr/lib/sealant/base.json") }

// BaseImagePath is the OS update's image of a cryptex.
func (s *Store) BaseImagePath(name string) string {
	return filepath.Join(s.root, "usr/lib/sealant/base", name+".cryptex")
}

// CatalogRootPath is the pinned root of the catalog (TUF root metadata).
func (s *Store) CatalogRootPath() string { return filepath.Join(s.root, "usr/lib/sealant/root.json") }

// TicketRootPath is the pinned root certificate of tickets (PEM).
func (s *Store) TicketRootPath() string {
	return filepath.Join(s.root, "usr/lib/sealant/ticket-root.pem")
}

// LogKeyPath is the pinned key of the public log of sets; there may be none.
func (s *Store) LogKeyPath() string { return filepath.Join(s.root, "usr/lib/sealant/log-key.txt") }

// ReportKeyPath is the pinned key of the tokens that reports spend; there may be
// none.
func (s *Store) ReportKeyPath() string {
	return filepath.Join(s.root, "usr/lib/sealant/report-key.txt")
}

// MountPoint is where a cryptex's content appears to everybody.
func (s *Store) MountPoint(cryptex string) string {
	return filepath.Join(s.root, "usr/lib/cryptexes", cryptex)
}

// What people configure.

// ConfigDir holds agent.toml, apps.d and policy.d.
func (s *Store) ConfigDir() string { return filepath.Join(s.root, "etc/sealant") }

// What lives until the next boot.

// RunDir is the folder of everything that a restart forgets.
func (s *Store) RunDir() string {
	if s.run != "" {
		return s.run
	}
	return filepath.Join(s.root, "run/sealant")
}

// SocketPath is where the agent listens.
func (s *Store) SocketPath() string { return filepath.Join(s.RunDir(), "agent.sock") }

// SetMount is where a set's cryptex is mounted once, for those who use it.
func (s *Store) SetMount(id, cryptex string) string {
	return filepath.Join(s.RunDir(), "sets", id, cryptex)
}

// StagedLink points to the staged mount of a cryptex.
func (s *Store) StagedLink(cryptex string) string {
	return filepath.Join(s.RunDir(), "staged", cryptex)
}

// BootRecordPath is where sealant-boot says what it chose, and why.
func (s *Store) BootRecordPath() string { return filepath.Join(s.RunDir(), "boot.json") }

// The rest of the state.

// JournalDir holds the change under way.
func (s *Store) JournalDir() string { return s.path("journal") }

// CatalogDir holds the verified catalog metadata.
func (s *Store) CatalogDir() string { return s.path("trust") }

// EvidenceDir holds the counts of device/evidence.
func (s *Store) EvidenceDir() string { return s.path("evidence") }

// AnalyticsDir holds what the person agreed to and what waits to be sent, of
// device/analytics.
func (s *Store) AnalyticsDir() string { return s.path("analytics") }

// TPMPath is where the machine's TPM is, if it has one: the device with the
// kernel's resource manager.
func (s *Store) TPMPath() string { return filepath.Join(s.root, "dev/tpmrm0") }

// Free is the room that root can still use on the state's file system, in
// bytes, and the folder that names that file system.
func (s *Store) Free() (bytes int64, where string, err error) {
	bytes, err = freeAt(s.dir)
	return bytes, s.dir, err
}

func freeAt(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot measure the room in %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
