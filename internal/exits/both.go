package exits

import (
	"errors"
	"os"
	"sync"
)

// both reads two sources as one. What both tell of is told twice: a Dump says that it
// may be the second time.
type both struct {
	Source // the first: it tracks
	second Source
	ends   chan end
	done   chan struct{}
	close  sync.Once
}

type end struct {
	Exit
	err error
}

// Both reads from two sources. The second one's failure ends nothing.
func Both(first, second Source) Source {
	b := &both{Source: first, second: second, ends: make(chan end), done: make(chan struct{})}
	for _, s := range []Source{first, second} {
		go b.forward(s, s == first)
	}
	return b
}

func (b *both) forward(s Source, must bool) {
	for {
		e, err := s.Read()
		if err != nil && !must {
			return
		}
		select {
		case b.ends <- end{e, err}:
		case <-b.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// Name names both.
func (b *both) Name() string { return b.Source.Name() + "+" + b.second.Name() }

// Lost counts what either lost.
func (b *both) Lost() uint64 { return b.Source.Lost() + b.second.Lost() }

// Read waits for the next end that either tells.
func (b *both) Read() (Exit, error) {
	select {
	case <-b.done:
		return Exit{}, os.ErrClosed
	case e := <-b.ends:
		return e.Exit, e.err
	}
}

// Close closes both.
func (b *both) Close() error {
	b.close.Do(func() { close(b.done) })
	return errors.Join(b.Source.Close(), b.second.Close())
}
