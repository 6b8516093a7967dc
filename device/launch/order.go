package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// order is what a child is told to become.
type order struct {
	Program  Program
	Session  bool // begin a session of its own
	Terminal int  // the standard stream that is its terminal, -1 if none
	Caller   *caller
}

// caller is whom a child acts for, as the kernel told the agent.
type caller struct {
	PID      int
	User     linux.User
	Bounding uint64
	Umask    int
	Label    string // SELinux label to take on, "" if none
}

// channelFD is the one descriptor that a child is started with beside its standard
// streams. The order comes there, and with it the program's standard
// streams and, if there is a caller, the handle on its process and its namespaces
// (linux.NamespaceFiles of them). The child says there why it failed; the other end
// closes when it has executed.
const channelFD = 3

// held is what a child holds of its caller: a handle on the process, and the
// namespaces that it was in when it was examined.
type held struct {
	handle linux.Pidfd
	spaces []*os.File
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

// FailedCommand is the hidden command of sealant that says why a launch failed, as
// all commands do. Its argument is what Failure made.
const FailedCommand = "launch-failed"

// Failure is an error as an argument of FailedCommand.
func Failure(err error) (string, error) {
	text, err := json.Marshal(describe(err))
	return string(text), err
}

// ReadFailure gives back the error that Failure was made of.
func ReadFailure(text string) error {
	var f failure
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return fault.New(fault.Usage, "cannot read a failure: %w", err)
	}
	return f.err()
}

// Child is the whole life of a process that Server (or Start) started on a device: it
// waits for its order and becomes the program that it names. The program that serves
// must call it for the arguments in Server.Self and one more, which is root. It returns
// only if it failed, after it has said so to whoever started it. That nobody wants it
// any more, and it ends without having been asked, is no failure.
func Child(root string) error {
	err := linux.KeepStandardStreamsOnly()
	if err != nil {
		return err
	}
	st, channel := store.Below(root), os.NewFile(channelFD, "channel")
	if err := linux.Alone(); err != nil {
		return err
	}
	practise(st)
	data, files, err := linux.Receive(channel, 2*maxRequest)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		err = carryOutOrder(st, data, files)
	}
	f := describe(err)
	// If this fails there is nobody to tell.
	_ = say(channel, answer{Failed: &f})
	return err
}

// practise goes the way of a launch while there is time, as far as that changes
// nothing: what a process does for the first time takes it several times as long,
// because the code and the memory for it are not there yet.
func practise(st *store.Store) {
	self, err := linux.OpenProcess(os.Getpid())
	if err != nil {
		return
	}
	defer self.Close()
	_, _ = linux.JoinCgroup(self), linux.CopyLimits(self)
	_, _ = ordinary(self, linux.User{})
	c, err := takeContent(st)
	if err != nil {
		return
	}
	defer c.close()
	o := order{Program: Program{Path: "/", Args: []string{"/"}, Env: os.Environ(), Dir: "/"}, Terminal: -1, Caller: &caller{PID: self.PID}}
	if text, err := o.message(); err == nil {
		_, _ = readOrder(text)
	}
	if r, err := newRecord(st, o.Program, c, 0); err == nil {
		_, _ = r.text()
	}
}

func carryOutOrder(st *store.Store, data []byte, files []*os.File) error {
	o, err := readOrder(data)
	if err != nil {
		return err
	}
	want := 3 // standard streams
	if o.Caller != nil {
		want += 1 + linux.NamespaceFiles
	}
	if len(files) != want {
		return fmt.Errorf("cannot carry out the order: %d files came with it", len(files))
	}
	if err := linux.TakeStandardStreams([3]*os.File(files)); err != nil {
		return err
	}
	var h *held
	if o.Caller != nil {
		h = &held{handle: linux.PidfdOf(files[3]), spaces: files[4:]}
	}
	return o.carryOut(st, h)
}

// carryOut turns this process, whose thread is alone, into the program. It returns only
// if something failed; then the thread may be in other namespaces, and another user's. The order of steps matters: content
// and the folder of records are taken while the agent's files are in sight,
// limits while there is privilege to set them, and everything that is the
// caller's own (terminal, folder, program) is touched with the caller's rights only.
func (o *order) carryOut(st *store.Store, h *held) error {
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

func (o *order) execute() error {
	if o.Caller != nil {
		if err := o.Caller.become(); err != nil {
			return err
		}
	}
	// With the caller's rights: root may take a terminal that it can't read.
	if o.Session {
		var terminal *os.File
		if o.Terminal >= 0 {
			terminal = []*os.File{os.Stdin, os.Stdout, os.Stderr}[o.Terminal]
		}
		if err := linux.NewSession(terminal); err != nil {
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
