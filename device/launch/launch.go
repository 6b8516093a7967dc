// Package launch starts programs on staged content.
//
// A launched program sees its set at /usr/lib/cryptexes, in a mount namespace
// of its own that its children inherit; otherwise it is as if the caller had
// started it: same user and groups, environment, working directory, terminal,
// control group and limits, and not one privilege more. Its set is settled for
// as long as it lives, whatever is staged or restarted around it, and written
// down when it starts (see [Record]).
//
// # Parties
//
// Root launches by itself: its process becomes the program (Exec). Anybody else
// asks the agent (Through), whose Server believes nothing that the caller says
// about itself: who it is, its groups and its process come from the kernel. It
// refuses callers whose confinement it could not give to the program: those
// with no_new_privs, a system call filter, another user or pid namespace, or
// another root directory.
//
//	caller                  agent                       child
//	  │                        ├─ starts itself again ─────►│ waits
//	  │ request, stdio ───────►│ checks the caller          │
//	  │                        ├─ order, stdio ────────────►│ namespace, content,
//	  │                        │                            │ record, caller's limits,
//	  │◄────── started, pidfd ─┤◄──────── executed ─────────┤ drops privileges
//	  │ signals by the pidfd ─────────────────────────────► │ is the program
//	  │◄──────── ended, status ┤◄──────────────── exit ─────┘
//
// One child is started ahead of being asked for. It waits as root, and has nothing
// of anybody's until then.
//
// The program survives a restart of the agent; the caller then learns that it
// ended, but not how.
package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/present"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// Program is what to execute.
type Program struct {
	App  string   // id in apps.d that it counts as, "" for none
	Path string   // the executable; it holds a slash
	Args []string // with the program's name first
	Env  []string
	Dir  string // absolute

	// Strict makes it, and all that it starts, execute only what is sealed.
	Strict bool
}

// Limits on what a caller may ask for.
const (
	maxRequest = 4 << 20 // bytes of a request, environment included
	maxArgs    = 32 << 10
	maxPath    = 4096 // bytes, PATH_MAX of linux/limits.h
)

// Resolve finds what to execute: the app with the given id, with its own
// arguments or, if there are any, those given instead; or, with no app, the
// command that args are. An executable that belongs to an app counts as it.
func Resolve(apps []policy.App, app string, args []string) (Program, error) {
	if app == "" {
		if len(args) == 0 || !strings.Contains(args[0], "/") {
			return Program{}, fault.New(fault.Usage, "cannot launch: no program is named")
		}
		p := Program{App: Owner(apps, args[0]), Path: args[0], Args: args}
		for _, a := range apps {
			p.Strict = p.Strict || a.ID == p.App && a.Strict
		}
		return p, nil
	}
	for _, a := range apps {
		if a.ID != app {
			continue
		}
		if a.Unit != "" {
			return Program{}, fault.New(fault.Usage, "cannot run %s: it is the service %s, which systemd starts", app, a.Unit).
				Hint("sealant relaunch %s", app)
		}
		p := Program{App: app, Path: a.Command[0], Args: a.Command, Strict: a.Strict}
		if len(args) > 0 {
			p.Args = append([]string{a.Command[0]}, args...)
		}
		return p, nil
	}
	return Program{}, unknown(apps, app)
}

// FindApp finds an app of apps.d by its id.
func FindApp(apps []policy.App, id string) (policy.App, error) {
	for _, a := range apps {
		if a.ID == id {
			return a, nil
		}
	}
	return policy.App{}, unknown(apps, id)
}

func unknown(apps []policy.App, app string) error {
	err := fault.New(fault.Usage, "cannot find the app %q in apps.d", app)
	if len(apps) == 0 {
		return err.Hint("describe it in /etc/sealant/apps.d/%s.toml, or: sealant run -- COMMAND", app)
	}
	names := make([]string, len(apps))
	for i, a := range apps {
		names[i] = a.ID
	}
	return err.Hint("apps: %s; anything else: sealant run -- COMMAND", strings.Join(names, ", "))
}

// Owner is the id of the app that an executable belongs to, "" for none.
func Owner(apps []policy.App, executable string) string {
	for _, a := range apps {
		if a.Owns(executable) {
			return a.ID
		}
	}
	return ""
}

func (p *Program) check() error {
	size := 0
	for _, list := range [][]string{p.Args, p.Env} {
		if len(list) > maxArgs {
			return fault.New(fault.Usage, "cannot launch: more than %d arguments", maxArgs)
		}
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return fault.New(fault.Usage, "cannot launch: a zero byte in the arguments")
			}
			size += len(s)
		}
	}
	switch {
	case size > maxRequest:
		return fault.New(fault.Usage, "cannot launch: arguments and environment are too long")
	case len(p.Args) == 0 || !strings.Contains(p.Path, "/"):
		return fault.New(fault.Usage, "cannot launch: no program is named")
	case len(p.Path) >= maxPath:
		return fault.New(fault.Usage, "cannot launch: the program's path is too long")
	case !filepath.IsAbs(p.Dir):
		return fault.New(fault.Usage, "cannot launch: the folder %q is not absolute", p.Dir)
	}
	return nil
}

// Confine makes the process program, which has executed nothing yet, a strict app's
// if it is to be one, or if caller is one: what a strict app starts is confined as it
// is, by the agent too. caller is zero if nobody else asked. It must fail where it
// can't.
type Confine func(program linux.Pidfd, strict bool, caller linux.Pidfd) error

// Exec turns this process, which is root's, into the program, on the content
// that a launch gets now. It returns only if that failed.
func Exec(st *store.Store, confine Confine, p Program) error {
	if err := p.check(); err != nil {
		return err
	}
	self, err := linux.OpenPidfd(os.Getpid())
	if err != nil {
		return err
	}
	defer self.Close()
	if err := confine(self, p.Strict, linux.Pidfd{}); err != nil {
		return err
	}
	if err := linux.Alone(); err != nil {
		return err
	}
	return (&order{Program: p}).carryOut(st, nil)
}

// content is the set that a launch gets: a second mount of each cryptex,
// without a place yet.
type content struct {
	set    string
	names  []string
	mounts []*linux.Mount
	images []present.Content
}

func (c *content) close() {
	for _, m := range c.mounts {
		m.Close()
	}
}

// takeTries bounds how often a set may be unstaged while it is taken.
const takeTries = 16

// takeContent takes the mounts of the set that is staged. A set that is being
// taken away at this moment is let go of, and the link read again.
func takeContent(st *store.Store) (*content, error) {
	var last error
	for range takeTries {
		id, err := present.Staged(st)
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, fault.New(fault.Failed, "cannot launch: no content is attached").Hint("sealant doctor; /run/sealant/boot.json says what the last boot did")
		}
		c, err := cloneSet(st, id)
		if err == nil {
			now, err := present.Staged(st)
			if err == nil && now == id {
				return c, nil
			}
			c.close()
			last = err
			continue
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		last = err
	}
	return nil, fault.New(fault.Busy, "cannot launch: what is staged keeps changing (%w)", last)
}

func cloneSet(st *store.Store, id string) (*content, error) {
	entries, err := os.ReadDir(st.SetMounts(id))
	if err != nil {
		return nil, fmt.Errorf("cannot read the staged set: %w", err)
	}
	c := &content{set: id}
	for _, e := range entries {
		m, err := linux.Clone(st.SetMount(id, e.Name()))
		if err != nil {
			c.close()
			return nil, err
		}
		c.names, c.mounts = append(c.names, e.Name()), append(c.mounts, m)
	}
	if c.images, err = identify(st, c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// identify says which images were taken, by the devices of the mounts
// themselves. A folder whose mount has just been taken away is no content.
func identify(st *store.Store, c *content) ([]present.Content, error) {
	devices, err := present.Devices(st)
	if err != nil {
		return nil, err
	}
	var images []present.Content
	for i, m := range c.mounts {
		d, err := m.Device()
		if err != nil {
			return nil, err
		}
		image, ok := devices[d]
		if !ok || image.Name != c.names[i] {
			return nil, fmt.Errorf("cannot read the staged set: %s is not mounted: %w", c.names[i], os.ErrNotExist)
		}
		images = append(images, image)
	}
	return images, nil
}

// bind puts the content over the mount points in this thread's namespace. The
// folder of mount points becomes a private mount of its own first, so that a
// later switch outside doesn't reach in. Mount points of which the set has no content
// keep theirs.
func (c *content) bind(dir string) error {
	tree, err := linux.Clone(dir)
	if err != nil {
		return err
	}
	defer tree.Close()
	kept, err := c.others(dir)
	defer kept.close()
	if err == nil {
		err = errors.Join(tree.Private(), tree.Switch(dir), kept.place(dir), c.place(dir))
	}
	return err
}

// others takes what is mounted in the folder of mount points and is none of the set's.
func (c *content) others(dir string) (*content, error) {
	kept := new(content)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return kept, fmt.Errorf("cannot read the mount points: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if slices.Contains(c.names, e.Name()) {
			continue
		}
		if taken, err := linux.Mounted(path); err != nil {
			return kept, err
		} else if !taken {
			continue
		}
		m, err := linux.CloneTree(path)
		if err != nil {
			return kept, err
		}
		kept.names, kept.mounts = append(kept.names, e.Name()), append(kept.mounts, m)
	}
	return kept, nil
}

// place puts the mounts on their mount points.
func (c *content) place(dir string) error {
	for i, m := range c.mounts {
		if err := errors.Join(m.Private(), m.Place(filepath.Join(dir, c.names[i]))); err != nil {
			return err
		}
	}
	return nil
}
