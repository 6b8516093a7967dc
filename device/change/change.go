// Package change carries a journey's effects through crashes: a change is a
// list of tasks that is written down before it is begun, each task idempotent
// and with its undo beside it.
//
// What holds: when Run returns, all tasks are done, or all that were begun are
// undone. When the process or the machine dies at any point, Recover of the
// next start brings about the same: it finishes a change whose point of no
// return was passed, and undoes any other. A task whose Do was interrupted is
// begun again or undone, so both must bear half of their own work.
//
// Parties: package device writes the tasks and registers what each kind does;
// the caller holds the store's lock all the while.
package change

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
)

const schema = "sealant.change/1"

// maxTasks bounds a journal.
const maxTasks = 1000

// Change is a journey's list of tasks with what is known about their progress.
type Change struct {
	ID      string            `json:"id"`
	Journey string            `json:"journey"` // install, remove, confirm…
	Actor   string            `json:"actor"`   // auto, user:UID, policy, recall
	Reason  string            `json:"reason"`  // a stable code
	Release string            `json:"release"` // "" for the baseline
	Vars    map[string]string `json:"vars"`    // what tasks tell later tasks and their undo
	Tasks   []Task            `json:"tasks"`
	Undoing bool              `json:"undoing"`
}

// Task is one step of a change.
type Task struct {
	Kind  string            `json:"kind"`
	Args  map[string]string `json:"args,omitempty"`
	State State             `json:"state"`
	// Final marks the point of no return: once this task is done, a crash is
	// answered by finishing the change.
	Final bool `json:"final,omitempty"`
}

// State is how far a task is.
type State string

// The states, in their order.
const (
	Todo   State = "todo"
	Doing  State = "doing" // written before the task begins
	Done   State = "done"
	Undone State = "undone"
)

// Step is what one kind of task does. Do and Undo may be called again after
// any part of them has happened. A nil Undo says that there is nothing to undo.
// Both may read and set the change's Vars; Do's are kept with the task's state.
//
// Happened is for final tasks whose effect is one step that others see at
// once, such as the switch of a slot that the next boot obeys: it says whether
// that step was taken. If the machine died right after it, the change is
// finished and not undone, since somebody may have acted on it.
type Step struct {
	Do       func(ctx context.Context, c *Change, args map[string]string) error
	Undo     func(ctx context.Context, c *Change, args map[string]string) error
	Happened func(c *Change, args map[string]string) bool
}

// Steps says what each kind of task does.
type Steps map[string]Step

type document struct {
	Schema string `json:"schema"`
	Change
}

// Run carries out a new change. On an error everything that was begun is
// undone before it returns. Cancelling ctx counts as an error; undoing is not
// cancelled.
func Run(ctx context.Context, s *store.Store, steps Steps, c *Change) error {
	if _, err := s.Journal(); err == nil {
		return fault.New(fault.Busy, "cannot start %s: an interrupted change must be recovered first", c.Journey)
	}
	if len(c.Tasks) == 0 || len(c.Tasks) > maxTasks {
		return fmt.Errorf("cannot start %s: %d tasks", c.Journey, len(c.Tasks))
	}
	for i := range c.Tasks {
		if _, ok := steps[c.Tasks[i].Kind]; !ok {
			return fmt.Errorf("cannot start %s: unknown task %q", c.Journey, c.Tasks[i].Kind)
		}
		c.Tasks[i].State = Todo
	}
	if c.Vars == nil {
		c.Vars = map[string]string{}
	}
	return forward(ctx, s, steps, c)
}

// Outcome is what Recover did about an interrupted change.
type Outcome string

// The outcomes.
const (
	Nothing  Outcome = "nothing"  // no change was under way
	Finished Outcome = "finished" // its point of no return had been passed
	Reverted Outcome = "undone"
)

// Recover finishes or undoes what was interrupted, and says which. The Change
// tells what it was; it is nil if there was nothing.
func Recover(ctx context.Context, s *store.Store, steps Steps) (*Change, Outcome, error) {
	data, err := s.Journal()
	if err != nil {
		// An unreadable journal is the same as none only if it isn't there.
		if errors.Is(err, store.ErrEmpty) {
			return nil, Nothing, nil
		}
		return nil, Nothing, err
	}
	c, err := decode(data, steps)
	if err != nil {
		return nil, Nothing, err
	}
	for i := range c.Tasks {
		t := &c.Tasks[i]
		if happened := steps[t.Kind].Happened; t.Final && t.State == Doing && happened != nil && happened(c, t.Args) {
			t.State = Done
		}
	}
	if !c.Undoing && c.committed() {
		if err := forward(ctx, s, steps, c); err != nil {
			return c, Finished, err
		}
		return c, Finished, nil
	}
	return c, Reverted, backward(ctx, s, steps, c)
}

// Pending reads the change under way without touching it; nil if there is none.
func Pending(s *store.Store) (*Change, error) {
	data, err := s.Journal()
	if err != nil {
		if errors.Is(err, store.ErrEmpty) {
			return nil, nil
		}
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("cannot read journal: %w", err)
	}
	return &doc.Change, nil
}

func decode(data []byte, steps Steps) (*Change, error) {
	fail := func(err error) (*Change, error) { return nil, fmt.Errorf("cannot read journal: %w", err) }
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fail(err)
	}
	if head.Schema != schema {
		return fail(fmt.Errorf("schema %q, this program reads %q", head.Schema, schema))
	}
	var doc document
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return fail(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fail(errors.New("bytes after the document"))
	}
	c := &doc.Change
	if len(c.Tasks) == 0 || len(c.Tasks) > maxTasks {
		return fail(fmt.Errorf("%d tasks", len(c.Tasks)))
	}
	for _, t := range c.Tasks {
		if _, ok := steps[t.Kind]; !ok {
			return fail(fmt.Errorf("unknown task %q", t.Kind))
		}
		switch t.State {
		case Todo, Doing, Done, Undone:
		default:
			return fail(fmt.Errorf("unknown state %q", t.State))
		}
	}
	if c.Vars == nil {
		c.Vars = map[string]string{}
	}
	return c, nil
}

// committed says whether the change must be finished: its final task is done,
// or, in a change that marks none, all are.
func (c *Change) committed() bool {
	all := true
	for _, t := range c.Tasks {
		if t.Final && t.State == Done {
			return true
		}
		all = all && t.State == Done
	}
	return all
}

func forward(ctx context.Context, s *store.Store, steps Steps, c *Change) error {
	for i := range c.Tasks {
		t := &c.Tasks[i]
		if t.State == Done {
			continue
		}
		if t.State != Doing {
			if err := c.mark(s, t, Doing); err != nil {
				return c.fail(ctx, s, steps, err)
			}
		}
		err := ctx.Err()
		if err == nil {
			err = steps[t.Kind].Do(ctx, c, t.Args)
		}
		if err == nil {
			err = c.finish(s, i)
		}
		if err != nil {
			return c.fail(ctx, s, steps, err)
		}
	}
	return s.ClearJournal()
}

// finish writes down that a task is done and that the next one begins, at
// once: half the writes. After the last task the journal goes instead.
func (c *Change) finish(s *store.Store, i int) error {
	t := &c.Tasks[i]
	if i+1 == len(c.Tasks) {
		t.State = Done
		return nil
	}
	next := &c.Tasks[i+1]
	was := next.State
	if was == Todo {
		next.State = Doing
	}
	if err := c.mark(s, t, Done); err != nil {
		next.State = was
		return err
	}
	return nil
}

// fail answers an error of a task: before the point of no return by undoing,
// after it by leaving the journal for the next start to finish.
func (c *Change) fail(ctx context.Context, s *store.Store, steps Steps, err error) error {
	if c.committed() {
		return err
	}
	if uerr := backward(context.WithoutCancel(ctx), s, steps, c); uerr != nil {
		return fmt.Errorf("%w (and cannot undo it yet: %w)", err, uerr)
	}
	return err
}

func backward(ctx context.Context, s *store.Store, steps Steps, c *Change) error {
	c.Undoing = true
	for i := len(c.Tasks) - 1; i >= 0; i-- {
		t := &c.Tasks[i]
		if t.State != Doing && t.State != Done {
			continue
		}
		if undo := steps[t.Kind].Undo; undo != nil {
			if err := undo(ctx, c, t.Args); err != nil {
				return fmt.Errorf("cannot undo %s: %w", t.Kind, err)
			}
		}
		// The journal may be what can't be written on a full disk: what was
		// undone may be undone again, so this is no reason to stop.
		t.State = Undone
		_ = c.save(s)
	}
	return s.ClearJournal()
}

func (c *Change) mark(s *store.Store, t *Task, to State) error {
	was := t.State
	t.State = to
	if err := c.save(s); err != nil {
		// A task that is done stays known as begun, so that it is undone.
		t.State = was
		return err
	}
	return nil
}

func (c *Change) save(s *store.Store) error {
	data, err := json.MarshalIndent(document{schema, *c}, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write journal: %w", err)
	}
	return s.WriteJournal(append(data, '\n'))
}
