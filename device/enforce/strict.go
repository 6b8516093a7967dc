package enforce

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/sealant-os/sealant/internal/linux"
)

// Base makes everything below an open folder the base's, that strict apps may
// execute: everything whose folders lead there within its own file system, at
// most 40 of them. Mounts below it are others.
func (g *Guard) Base(folder *os.File) error {
	if err := g.base.Put(int32(folder.Fd()), uint64(1)); err != nil {
		return fmt.Errorf("cannot make %s the base of strict apps: %w", folder.Name(), err)
	}
	return nil
}

// Mark makes a process a strict app's: with what it executes next, and all that it
// starts from now on. There is no way back but its end.
func (g *Guard) Mark(p linux.Pidfd) error {
	if err := g.apps.Put(int32(p.File().Fd()), uint64(1)); err != nil {
		return fmt.Errorf("cannot mark a strict app: %w", err)
	}
	return nil
}

// Marked says whether a process is a strict app's. One that has ended is not.
func (g *Guard) Marked(p linux.Pidfd) (bool, error) {
	var mark uint64
	err := g.apps.Lookup(int32(p.File().Fd()), &mark)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot know whether a process is a strict app's: %w", err)
	}
	return true, nil
}

// MarkGroup makes the control group with that id a strict service's: what is in
// it when it executes something is marked then.
func (g *Guard) MarkGroup(id uint64, alive func(uint64) bool) error {
	err := g.groups.Put(id, uint8(1))
	if err != nil {
		// Full. The kernel gives no id twice, so those of groups that are gone do
		// no harm but take room.
		if err := g.forget(alive); err != nil {
			return err
		}
		err = g.groups.Put(id, uint8(1))
	}
	if err != nil {
		return fmt.Errorf("cannot mark a strict service: %w", err)
	}
	return nil
}

func (g *Guard) forget(alive func(uint64) bool) error {
	var (
		id   uint64
		mark uint8
		gone []uint64
	)
	entries := g.groups.Iterate()
	for entries.Next(&id, &mark) {
		if !alive(id) {
			gone = append(gone, id)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("cannot list the strict services: %w", err)
	}
	for _, id := range gone {
		if err := g.groups.Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("cannot forget a strict service: %w", err)
		}
	}
	return nil
}
