package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/linux"
)

// RecordSchema is the form of a launch record; spec/run.md describes it.
const RecordSchema = "sealant.launch/1"

// Limits of the records: bytes of one, and how many there may be before those that
// nobody needs any more must go.
const (
	maxRecord  = 64 << 10
	maxRecords = 4096
)

// Record is the stamp of a launch: which set a process, and all that it
// starts, was given. It is /run/sealant/launches/PID.json, written before the
// program gets control and readable by everybody.
type Record struct {
	Schema      string            `json:"schema"`
	PID         int               `json:"pid"`
	Start       uint64            `json:"start"`            // clock ticks since boot; with the pid it names the process
	Boot        string            `json:"boot"`             // the kernel's id of this boot
	Handle      uint64            `json:"handle,omitempty"` // inode of the process's pidfd, on Linux 6.9 and newer
	Namespace   uint64            `json:"namespace"`        // inode of its mount namespace
	NamespaceID uint64            `json:"namespace_id,omitempty"`
	Cgroup      string            `json:"cgroup"`
	App         string            `json:"app"` // id in apps.d, "" for none
	Executable  string            `json:"executable"`
	UID         int               `json:"uid"`
	Set         string            `json:"set"`
	Release     string            `json:"release"` // "" is the baseline
	Label       string            `json:"label"`
	Content     []present.Content `json:"content"`
	Time        time.Time         `json:"time"`
}

// newRecord describes this process, whose calling thread is in its namespace
// already.
func newRecord(st *store.Store, p Program, c *content, uid int) (Record, error) {
	r := Record{
		Schema: RecordSchema, PID: os.Getpid(), App: p.App, Executable: p.Path, UID: uid,
		Set: c.set, Content: c.images, Time: time.Now().UTC().Truncate(time.Second),
	}
	// A set that only the boot knows, of delivered images, is the baseline.
	if set, err := st.SetByID(c.set); err == nil {
		r.Release, r.Label = set.Release, set.Label
	}
	self, err := linux.OpenProcess(r.PID)
	if err != nil {
		return r, err
	}
	defer self.Close()
	stat, err := self.Stat()
	if err != nil {
		return r, err
	}
	r.Start = stat.Start
	if r.Boot, err = linux.BootID(); err != nil {
		return r, err
	}
	if r.Cgroup, err = self.Cgroup(); err != nil {
		return r, err
	}
	if r.Namespace, r.NamespaceID, err = linux.OwnMountNamespace(); err != nil {
		return r, err
	}
	if h, err := linux.OpenPidfd(r.PID); err == nil {
		r.Handle = h.Inode()
		h.Close()
	}
	return r, nil
}

func recordName(pid int) string { return strconv.Itoa(pid) + ".json" }

// unfinished begins the name of a record that is being written.
const unfinished = ".new-"

func (r Record) text() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("cannot record the launch: %w", err)
	}
	return append(data, '\n'), nil
}

// write puts the record into the folder of records.
func (r Record) write(dir *os.Root) error {
	data, err := r.text()
	if err != nil {
		return err
	}
	next := unfinished + recordName(r.PID)
	if err = dir.WriteFile(next, data, 0o644); err == nil {
		err = dir.Rename(next, recordName(r.PID))
	}
	if err != nil {
		// The caller's limit on the size of files may be in the way.
		_ = dir.Remove(next)
		return fmt.Errorf("cannot record the launch: %w", err)
	}
	return nil
}

func openRecords(st *store.Store) (*os.Root, error) {
	if err := os.MkdirAll(st.LaunchDir(), 0o755); err != nil {
		return nil, fmt.Errorf("cannot record the launch: %w", err)
	}
	return os.OpenRoot(st.LaunchDir())
}

// readRecord reads one record; of a process id that was launched again it is
// the last one.
func readRecord(path string) (Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return Record{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return Record{}, err
	}
	return parseRecord(data)
}

func parseRecord(data []byte) (Record, error) {
	var r Record
	if len(data) > maxRecord {
		return r, fmt.Errorf("cannot read a launch record: more than %d bytes", maxRecord)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("cannot read a launch record: %w", err)
	}
	if _, err := d.Token(); err != io.EOF || r.Schema != RecordSchema || r.PID <= 0 {
		return Record{}, fmt.Errorf("cannot read a launch record: it is not one %s document", RecordSchema)
	}
	return r, nil
}

// Read reads the record of the launch of pid. Whether that is the process that
// has the number now, Record.Start tells.
func Read(st *store.Store, pid int) (Record, error) {
	r, err := readRecord(filepath.Join(st.LaunchDir(), recordName(pid)))
	if err == nil && r.PID != pid {
		err = fmt.Errorf("cannot read the launch record of %d: it is about %d", pid, r.PID)
	}
	return r, err
}

// List reads all records, of processes that run and of those that have ended.
// What can't be read is left out.
func List(st *store.Store) ([]Record, error) {
	entries, err := os.ReadDir(st.LaunchDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot list the launches: %w", err)
	}
	var list []Record
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		r, err := readRecord(filepath.Join(st.LaunchDir(), e.Name()))
		if err == nil && recordName(r.PID) == e.Name() {
			list = append(list, r)
		}
	}
	return list, nil
}

// count says how many files the folder of records has.
func count(st *store.Store) (int, error) {
	dir, err := os.Open(st.LaunchDir())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot count the launches: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return len(names), err
}

// Find tells how the process pid was launched: by its own record, or that of
// the launch whose mount namespace it has inherited. ok is false for a process
// that wasn't launched, or whose launch is forgotten. It works for a process
// that has ended only if that one was launched itself.
func Find(st *store.Store, pid int) (r Record, ok bool, err error) {
	list, err := List(st)
	if err != nil {
		return Record{}, false, err
	}
	p, err := linux.OpenProcess(pid)
	if linux.Gone(err) {
		for _, r := range list {
			if r.PID == pid {
				return r, true, nil
			}
		}
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, err
	}
	defer p.Close()
	r, ok = Of(list, p)
	return r, ok, nil
}

// Of finds the record that a running process lives under: the one of the launch
// whose mount namespace it has.
func Of(list []Record, p *linux.Process) (Record, bool) {
	space, err := p.Namespace("mnt")
	if err != nil {
		return Record{}, false
	}
	for _, r := range list {
		if r.Namespace == space && r.sameNamespace(p) {
			return r, true
		}
	}
	return Record{}, false
}

// sameNamespace guards against namespace inodes that were used again, where
// the kernel also gives namespaces a number that never is.
func (r Record) sameNamespace(p *linux.Process) bool {
	if r.NamespaceID == 0 {
		return true
	}
	id, err := p.MountNamespaceID()
	return err == nil && id == r.NamespaceID
}

// Running says whether the process that the record is about still runs. Its
// children may go on without it.
func (r Record) Running() bool {
	boot, err := linux.BootID()
	if err != nil || boot != r.Boot {
		return false
	}
	p, err := linux.OpenProcess(r.PID)
	if err != nil {
		return false
	}
	defer p.Close()
	st, err := p.Stat()
	return err == nil && st.Start == r.Start && st.State != 'Z' && st.State != 'X'
}

// Prune removes the records of launches before a moment of which no process is
// left. Whoever counts crashes keeps the moment far enough in the past.
func Prune(st *store.Store, before time.Time) error {
	list, err := List(st)
	if err != nil {
		return err
	}
	alive, err := namespaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		id, living := alive[r.Namespace]
		living = living && (r.NamespaceID == 0 || r.NamespaceID == id)
		if r.Time.Before(before) && !living && !r.Running() {
			errs = append(errs, forget(st, recordName(r.PID)))
		}
	}
	return errors.Join(append(errs, sweep(st))...)
}

// sweep removes what was being written when its process was killed, by a limit of
// its caller's perhaps.
func sweep(st *store.Store) error {
	found, err := filepath.Glob(filepath.Join(st.LaunchDir(), unfinished+"*.json"))
	for _, path := range found {
		name := filepath.Base(path)
		pid, perr := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, unfinished), ".json"))
		if perr == nil {
			p, perr := linux.OpenProcess(pid)
			if perr == nil {
				p.Close()
			} else if linux.Gone(perr) {
				err = errors.Join(err, forget(st, name))
			}
		}
	}
	return err
}

// forget removes a file of a record; somebody else may have done so.
func forget(st *store.Store, name string) error {
	err := os.Remove(filepath.Join(st.LaunchDir(), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// namespaces lists the mount namespaces that have processes: inode and, where
// the kernel has it, the number that is never used again.
func namespaces() (map[uint64]uint64, error) {
	pids, err := linux.Processes()
	if err != nil {
		return nil, err
	}
	alive := map[uint64]uint64{}
	for _, pid := range pids {
		p, err := linux.OpenProcess(pid)
		if err != nil {
			continue
		}
		if space, err := p.Namespace("mnt"); err == nil && alive[space] == 0 {
			alive[space], _ = p.MountNamespaceID()
		}
		p.Close()
	}
	return alive, nil
}
