package launch

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// spare is a child that was started before anybody asked for it, so that a launch
// need not wait for the start of another program. There is at most one. It waits
// as root, without anything of a caller's.
type spare struct {
	mu    sync.Mutex
	child *child
	ended bool
}

// How long after a launch the next child is started, and after a program's end: when
// its caller has ended too.
const (
	fillTime = 50 * time.Millisecond
	restTime = time.Millisecond
)

// take gives the spare child away, nil if there is none.
func (s *spare) take() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.child
	s.child = nil
	return c
}

// fill starts a spare child if there is none. That it can't is for the next launch
// to find out.
func (s *spare) fill(of *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil && !s.ended {
		s.child, _ = prepare(of.Store, of.Self)
	}
}

// end dismisses the spare child; from now on there is none.
func (s *spare) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended = true; s.child != nil {
		s.child.dismiss()
		s.child = nil
	}
}

// start makes a child the program of an order.
func (s *Server) start(ctx context.Context, o order, streams [3]*os.File, h *held) (*child, error) {
	ctx, cancel := context.WithTimeout(ctx, s.orderTime)
	defer cancel()
	if c := s.spare.take(); c != nil {
		err := c.order(ctx, s.Store, o, s.Confine, streams, h)
		if !errors.Is(err, errUnheard) {
			return c, err
		}
		// Somebody has ended it while it waited.
	}
	c, err := prepare(s.Store, s.Self)
	if err != nil {
		return nil, err
	}
	return c, c.order(ctx, s.Store, o, s.Confine, streams, h)
}
