package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sealant-os/sealant/device/enforce"
	"github.com/sealant-os/sealant/device/policy"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// order is what a child is told to become.
type order struct {
	Root     string  `json:"root"` // of the store
	Program  Program `json:"program"`
	Session  bool    `json:"session"`  // begin a session of its own
	Terminal int     `json:"terminal"` // the standard stream that is its terminal, -1 if none
	Caller   *caller `json:"caller,omitempty"`
}

// caller is whom a child acts for, as the kernel told the agent.
type caller struct {
	PID      int        `json:"pid"`
	User     linux.User `json:"user"`
	Bounding uint64     `json:"bounding"`
	Umask    int        `json:"umask"`
	Label    string     `json:"label"` // SELinux label to take on, "" if none
}

// The descriptors that a child is started with, after its standard streams.
const (
	orderFD  = 3 // the order, as JSON
	statusFD = 4 // where it says why it failed; closed when it has executed
	callerFD = 5 // the handle on the caller's process, if there is a caller
	spaceFD  = 6 // its namespaces, linux.NamespaceFiles of them
)

// held is what a child holds of its caller: a handle on the process, and the
// namespaces that it was in when it was examined.
type held struct {
	handle linux.Pidfd
	spaces []*os.File
}

// inheritHeld takes up the descriptors that start passed.
func inheritHeld() *held {
	h := &held{handle: linux.PidfdOf(os.NewFile(callerFD, "caller"))}
	for i := range linux.NamespaceFiles {
		h.spaces = append(h.spaces, os.NewFile(uintptr(spaceFD+i), "inherited"))
	}
	return h
}

func (h *held) files() []*os.File { return append([]*os.File{h.handle.File()}, h.spaces...) }

// failure is what a child says when it can't carry out its order.
type failure struct {
	Error  string `json:"error"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

func describe(err error) failure {
	return failure{Error: err.Error(), Reason: fault.KindOf(err).String(), Hint: fault.HintOf(err)}
}

func (f failure) err() error {
	return fault.New(fault.Parse(f.Reason), "%s", f.Error).Hint("%s", f.Hint)
}

// Child is the whole life of a process that Server (or Start) started: it
// becomes the program that its order names. The program that serves must call
// it for the arguments in Server.Self. It returns only if it failed, after it
// has said so to whoever started it.
func Child() error {
	status := os.NewFile(statusFD, "status")
	err := linux.KeepStandardStreamsOnly()
	if err == nil {
		err = carryOutOrder()
	}
	if text, jerr := json.Marshal(describe(err)); jerr == nil {
		// If this fails there is nobody to tell.
		_, _ = status.Write(text)
	}
	return err
}

func carryOutOrder() error {
	paper := os.NewFile(orderFD, "order")
	if paper == nil {
		return errors.New("cannot launch: no order was given")
	}
	data, err := io.ReadAll(io.LimitReader(paper, 2*maxRequest))
	if err != nil {
		return fmt.Errorf("cannot read the order: %w", err)
	}
	var o order
	if err := json.Unmarshal(data, &o); err != nil {
		return fmt.Errorf("cannot read the order: %w", err)
	}
	var h *held
	if o.Caller != nil {
		h = inheritHeld()
	}
	return linux.Isolated(func() error { return o.carryOut(h) })
}

// carryOut turns this process into the program. It runs on an isolated thread,
// and returns only if something failed. The order of steps matters: content
// and the folder of records are taken while the agent's files are in sight,
// limits while there is privilege to set them, and everything that is the
// caller's own (folder, program) is touched with the caller's rights only.
func (o *order) carryOut(h *held) error {
	st := store.Below(o.Root)
	c, err := takeContent(st)
	if err != nil {
		return err
	}
	defer c.close()
	records, err := openRecords(st)
	if err != nil {
		return err
	}
	defer records.Close()
	if err := o.confine(st, h); err != nil {
		return err
	}
	if o.Caller != nil {
		if err := o.Caller.join(h); err != nil {
			return err
		}
	}
	if err := linux.PrivateMounts(); err != nil {
		return err
	}
	if err := c.bind(st.CryptexDir()); err != nil {
		return err
	}
	uid := os.Getuid()
	if o.Caller != nil {
		uid = o.Caller.User.UID
	}
	r, err := newRecord(st, o.Program, c, uid)
	if err != nil {
		return err
	}
	if err := r.write(records); err != nil {
		return err
	}
	err = o.execute()
	// Without privilege this fails, and whoever started us does it.
	_ = records.Remove(recordName(r.PID))
	return err
}

// confine makes this process a strict app's if the program is one, or if its caller
// is: what a strict app starts is confined as it is, by the agent too. It must happen
// before the namespaces are the caller's, where the kernel's programs are out of
// sight.
func (o *order) confine(st *store.Store, h *held) error {
	strict := o.Program.Strict
	if strict {
		c, err := policy.Load(st.ConfigDir())
		if err != nil {
			return err
		}
		// Policy may give up on it, for everybody.
		strict = c.Policy.TrustExecution != enforce.Off.String()
	}
	if !strict && h == nil {
		return nil
	}
	g, err := enforce.Open()
	switch {
	case errors.Is(err, fs.ErrNotExist) && !strict:
		return nil // then the caller is none
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Policy, "cannot launch a strict app: nothing here enforces that it executes only what is sealed").
			Hint("sealant doctor says what lacks; without it: trust.execution = \"off\"")
	case err != nil:
		return err
	}
	defer g.Close()
	if !strict {
		if strict, err = g.Marked(h.handle); err != nil || !strict {
			return err
		}
	}
	self, err := linux.OpenPidfd(os.Getpid())
	if err != nil {
		return err
	}
	defer self.Close()
	return g.Mark(self)
}

func (o *order) execute() error {
	if o.Session {
		var terminal *os.File
		if o.Terminal >= 0 {
			terminal = []*os.File{os.Stdin, os.Stdout, os.Stderr}[o.Terminal]
		}
		if err := linux.NewSession(terminal); err != nil {
			return err
		}
	}
	if o.Caller != nil {
		if err := o.Caller.become(); err != nil {
			return err
		}
	}
	if err := linux.Chdir(o.Program.Dir); err != nil {
		return err
	}
	return linux.Execute(o.Program.Path, o.Program.Args, o.Program.Env)
}

// join takes over what the caller's process has and its children inherit.
//
// Meanwhile the caller may execute something else, a set-user-id program even.
// The namespaces are those that it was seen in as an ordinary process; the
// rest is read now, and counts only if it is an ordinary process afterwards.
func (c *caller) join(h *held) error {
	p, err := linux.OpenProcess(c.PID)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := linux.JoinCgroup(p); err != nil {
		return err
	}
	if err := linux.CopyLimits(p); err != nil {
		return err
	}
	// All that is asked of p has been opened or is asked by number through p,
	// so it doesn't matter that /proc is another one from here on.
	if err := linux.Enter(h.spaces); err != nil {
		return err
	}
	root, err := p.SameRoot()
	if err != nil {
		return err
	}
	if !root {
		return refuse("it has another root directory")
	}
	if _, err := ordinary(p, c.User); err != nil {
		return err
	}
	if h.handle.Ended() {
		return refuse("it has ended")
	}
	return nil
}

// become drops every privilege that the caller doesn't have.
func (c *caller) become() error {
	if c.Umask >= 0 {
		linux.SetUmask(c.Umask)
	}
	if c.Label != "" {
		if err := linux.LabelNext(c.Label); err != nil {
			return err
		}
	}
	return linux.BecomeUser(c.User, c.Bounding)
}
