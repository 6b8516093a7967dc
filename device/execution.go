package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/enforce"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/journal"
	"github.com/sealant-os/sealant/internal/linux"
)

// Execution is what the kernel enforces of what may execute.
type Execution struct {
	Mode   string          `json:"mode"`   // in force: off, audit, enforce
	Policy string          `json:"policy"` // what policy wants
	Text   string          `json:"text"`   // why they differ, "" if they don't
	Counts enforce.Counts  `json:"counts"`
	Lists  []enforce.Table `json:"lists"`
}

// baseFolders are what strict apps may execute from beside cryptexes: the
// operating system's own programs and libraries.
var baseFolders = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// isMachine says whether the device is the machine that this runs on. One that lives
// in a folder has no say in its machine's kernel.
func (d *Device) isMachine() bool { return d.Store.Root() == "/" }

// executionMode is what policy wants.
func (d *Device) executionMode() (enforce.Mode, error) {
	if !d.isMachine() {
		return enforce.Off, nil
	}
	return enforce.ParseMode(d.Config.Policy.TrustExecution)
}

// LoadExecution puts the guard over execution into the kernel, teaches it every
// cryptex that is mounted, and sets the mode that policy wants. It is done early
// at boot and by the agent, and again and again: what is in force stays.
//
// A cryptex whose list can't be verified any more executes nothing.
func (d *Device) LoadExecution(ctx context.Context) error {
	if !d.isMachine() {
		return nil
	}
	mode, err := d.executionMode()
	if err != nil {
		return err
	}
	if mode == enforce.Off {
		g, err := enforce.Open()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer g.Close()
		return g.SetMode(mode)
	}
	g, err := enforce.Load(ctx)
	if err != nil {
		return err
	}
	defer g.Close()
	return errors.Join(d.teach(ctx, g), g.SetMode(mode))
}

// DemandsExecution says whether somebody has asked for enforcement, rather than that
// it is the default: then a kernel that can't is a failure.
func (d *Device) DemandsExecution() bool {
	for _, s := range d.Config.Origins {
		if s.Key == "trust.execution" {
			return s.File != ""
		}
	}
	return false
}

// teach tells the kernel what it doesn't know yet.
func (d *Device) teach(ctx context.Context, g *enforce.Guard) error {
	var errs []error
	for _, name := range baseFolders {
		folder, err := os.Open(filepath.Join(d.Store.Root(), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot look at the base: %w", err))
			continue
		}
		errs = append(errs, g.Base(folder))
		folder.Close()
	}
	known := func(root *os.File) bool {
		guarded, err := g.Guarded(root)
		return err == nil && guarded
	}
	nothing := func(name string, root *os.File, cause error) error {
		return errors.Join(fmt.Errorf("cannot learn what may execute from %s, so nothing may: %w", name, cause), g.AdmitNothing(root, name))
	}
	return errors.Join(append(errs, activate.AdmitMounted(ctx, d.Store, known, admit(g), nothing))...)
}

// admit teaches the kernel the trust cache of an image.
func admit(g *enforce.Guard) activate.Admit {
	return func(a activate.Attached) error {
		tree, err := erofs.Open(a.Data, a.Image.DataSize)
		if err != nil {
			return err
		}
		cache, err := a.Image.TrustCache()
		if err != nil {
			return err
		}
		list, err := enforce.Learn(a.Want.Name, image.Digest(a.Want.Image), tree, cache)
		if err != nil {
			return err
		}
		return g.Admit(a.Root, list)
	}
}

// admitter is told of what is staged; nil where nothing is enforced. The result's
// second part must be called in the end.
func (d *Device) admitter() (activate.Admit, func(), error) {
	nobody := func() {}
	if !d.isMachine() {
		return nil, nobody, nil
	}
	g, err := enforce.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nobody, nil
	}
	if err != nil {
		return nil, nobody, err
	}
	return admit(g), g.Close, nil
}

// attachAgain attaches what is attached anew, with what may execute from it.
func (d *Device) attachAgain(ctx context.Context, report Report) error {
	admit, done, err := d.admitter()
	if err != nil {
		return err
	}
	defer done()
	return activate.Again(ctx, d.Store, admit, report.progress("verify"))
}

// Execution says what is enforced. Only root can see that.
func (d *Device) Execution() (Execution, error) {
	want, err := d.executionMode()
	e := Execution{Mode: enforce.Off.String(), Policy: want.String(), Lists: []enforce.Table{}}
	if err != nil {
		return e, err
	}
	if !d.isMachine() {
		e.Text = "this device lives in a folder"
		return e, nil
	}
	if !linux.Root() {
		return e, fmt.Errorf("cannot see what is enforced: %w", fs.ErrPermission)
	}
	g, err := enforce.Open()
	if errors.Is(err, fs.ErrNotExist) {
		if want == enforce.Off {
			return e, nil
		}
		e.Text = "it was not loaded"
		if err := enforce.Supported(); err != nil {
			e.Text = err.Error()
		}
		return e, nil
	}
	if err != nil {
		return e, err
	}
	defer g.Close()
	mode, err := g.Mode()
	if err != nil {
		return e, err
	}
	e.Mode = mode.String()
	if mode != want {
		e.Text = "policy was changed; the agent follows within a minute"
	}
	if e.Counts, err = g.Counts(); err != nil {
		return e, err
	}
	lists, err := g.Tables()
	e.Lists = append(e.Lists, lists...)
	return e, err
}

// enforcedText says with what the kernel guards, for people.
func (d *Device) enforcedText() string {
	if e, _ := d.enforcement(); e != activate.Kernel {
		return "checked when mounted; later disk changes not caught"
	}
	e, err := d.Execution()
	switch {
	case err != nil || e.Mode == enforce.Off.String():
		return "kernel (dm-verity)"
	case e.Mode == enforce.Audit.String():
		return "kernel (dm-verity, trust cache audited)"
	}
	return "kernel (dm-verity, trust cache)"
}

// StrictService marks the control group of a process as a strict service's. A group
// below it that systemd made for its own commands stands for the service.
func (d *Device) StrictService(pid int) error {
	mode, err := d.executionMode()
	if err != nil || mode == enforce.Off {
		return err
	}
	g, err := enforce.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Policy, "cannot start a strict service: nothing here enforces that it executes only what is sealed").
			Hint("sealant doctor says what lacks; without it: trust.execution = \"off\"")
	}
	if err != nil {
		return err
	}
	defer g.Close()
	id, err := linux.ServiceGroup(pid)
	if err != nil {
		return err
	}
	return g.MarkGroup(id, linux.GroupAlive())
}

// StrictUnits writes into dir a drop-in for the service of every strict app, so that
// it marks itself before it starts.
func (d *Device) StrictUnits(dir string) error {
	for _, app := range d.Config.Apps {
		if !app.Strict || app.Unit == "" {
			continue
		}
		folder := filepath.Join(dir, app.Unit+".d")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("cannot make %s strict: %w", app.Unit, err)
		}
		text := "# Written by sealant: apps.d says that this service is strict.\n[Service]\nExecStartPre=+/usr/bin/sealant enforce strict\n"
		if err := os.WriteFile(filepath.Join(folder, "20-sealant-strict.conf"), []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot make %s strict: %w", app.Unit, err)
		}
	}
	return nil
}

func (d *Device) examineExecution(g *Diagnosis) {
	e, err := d.Execution()
	switch {
	case errors.Is(err, fs.ErrPermission):
		g.add("X1", "warn", "run sealant doctor as root", "only root can see whether trust caches are enforced")
	case err != nil:
		g.add("X1", "bad", "sealant enforce load", "%v", err)
	case !d.isMachine():
		g.add("X1", "warn", "", "trust caches are not enforced: %s", e.Text)
	case e.Policy == enforce.Off.String() && e.Mode == e.Policy:
		g.add("X1", "warn", "trust.execution = \"enforce\"", "policy lets anything execute from a cryptex")
	case e.Mode == enforce.Off.String():
		level, remedy := "bad", "sealant enforce load"
		if errors.As(enforce.Supported(), new(*fault.Unsupported)) {
			remedy = "a kernel with CONFIG_BPF_LSM that is started with bpf among lsm="
			if !d.DemandsExecution() {
				level = "warn"
			}
		}
		g.add("X1", level, remedy, "trust caches are not enforced: %s", e.Text)
	case len(e.Lists) == 0:
		g.add("X1", "warn", "", "trust caches would be enforced (%s), but no cryptex is attached", e.Mode)
	default:
		files := 0
		for _, l := range e.Lists {
			files += l.Entries
		}
		verb := "refuses"
		if e.Mode == enforce.Audit.String() {
			verb = "tells of, but allows,"
		}
		g.add("X1", "ok", "", "the kernel %s what no trust cache lists (BPF; %d lists, %d files; refused %d, audited %d, not told %d)",
			verb, len(e.Lists), files, e.Counts.Refused, e.Counts.Audited, e.Counts.Lost)
		d.examineBase(g)
	}
}

// examineIPE names the policies of the kernel's own integrity enforcement that are
// in force, where there are any.
func (d *Device) examineIPE(g *Diagnosis) {
	if !d.isMachine() {
		return
	}
	files, _ := filepath.Glob("/sys/kernel/security/ipe/policies/*/active")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(text)) == "1" {
			g.add("X3", "ok", "", "the kernel's integrity policy %q is in force (IPE)", filepath.Base(filepath.Dir(file)))
		}
	}
}

// examineBase says how well sealed the base is that strict apps rest on.
func (d *Device) examineBase(g *Diagnosis) {
	strict := false
	for _, app := range d.Config.Apps {
		strict = strict || app.Strict
	}
	if !strict {
		return
	}
	if sealed, err := linux.ReadOnly(filepath.Join(d.Store.Root(), "usr")); err == nil && !sealed {
		g.add("X2", "warn", "an operating system with a sealed /usr", "strict apps may execute all of /usr, which root can change here")
		return
	}
	g.add("X2", "ok", "", "strict apps may execute /usr, which is mounted read-only")
}

// minute is how often the kernel's guard is compared with policy and mounts.
const minute = time.Minute

// executor is the part of the agent that keeps the guard over execution in force.
type executor struct {
	open Opener
	log  *slog.Logger
	said string // what was last wrong
}

// load brings the guard up to date.
func (x *executor) load(ctx context.Context) (*Device, error) {
	d, err := x.open()
	if err == nil {
		err = d.LoadExecution(ctx)
	}
	if err == nil && d.isMachine() {
		err = d.collectLists()
	}
	if err == nil {
		x.said = ""
	} else if text := err.Error(); text != x.said {
		x.log.Warn("trust caches are not enforced as they should be", "error", err)
		x.said = text
	}
	return d, err
}

// keep goes on until ctx ends, and tells the journal what was refused.
func (x *executor) keep(ctx context.Context) error {
	for {
		d, err := x.load(ctx)
		if err == nil && !d.isMachine() {
			<-ctx.Done()
			return nil
		}
		if err == nil && ctx.Err() == nil {
			err = watchExecution(ctx, d, x.log)
			if err == nil {
				continue
			}
			x.log.Warn("cannot tell of what was refused", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(minute):
		}
	}
}

// collectLists lets go of lists of images that nobody uses, once there are more
// than are usual.
func (d *Device) collectLists() error {
	const usual = 8
	g, err := enforce.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	lists, err := g.Tables()
	if err != nil || len(lists) <= usual {
		return err
	}
	used, err := activate.InUse(d.Store)
	if err != nil {
		return err
	}
	return g.Collect(func(i image.Digest) bool { return used[store.Digest(i)] })
}

// watchExecution tells the journal for a minute of what was refused.
func watchExecution(ctx context.Context, d *Device, log *slog.Logger) error {
	g, err := enforce.Open()
	if errors.Is(err, fs.ErrNotExist) {
		select {
		case <-ctx.Done():
		case <-time.After(minute):
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	events, err := g.Events()
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, minute)
	defer stop()
	defer context.AfterFunc(ctx, func() { events.Close() })()
	defer events.Close()
	for told := 0; ; told++ {
		e, err := events.Read()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if told >= maxTold {
			continue // each is counted by the kernel
		}
		d.tellExecution(e, log)
	}
}

// maxTold bounds how many refusals are told in a minute.
const maxTold = 60

func (d *Device) tellExecution(e enforce.Event, log *slog.Logger) {
	entry := journal.Entry{Event: journal.Audited, Text: e.String(), Reason: e.Reason.String() + "-" + e.How.String()}
	if e.Refused {
		entry.Event = journal.Denied
	}
	if e.Table.Name != "" {
		entry.Cryptex = []string{e.Table.Name}
	}
	entry.Actor = string(User(uint32(e.UID)))
	if err := journal.At(d.Store.Root()).Send(entry); err != nil {
		log.Warn(e.String())
	}
}
