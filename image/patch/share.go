package patch

import (
	"bytes"
	"errors"
	"io"
	"sort"

	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/internal/fault"
)

const (
	shareBlock = 4096     // bytes; what is shared begins and ends at multiples of it
	leastShare = 64 << 10 // bytes worth sharing
)

// sharer writes data of which parts stand in the source already, block by block
// at the same alignment: those are shared with it, or copied inside the kernel.
type sharer struct {
	*applier
	layout *delta.Layout
	shift  int64 // from the result to what is coded
	buf    []byte
}

// writeAt writes b, new data from an offset on.
func (s *sharer) writeAt(b []byte, at int64) error {
	share := s.share.Load()
	if share == nil {
		return s.writeOnly(b, at)
	}
	start := at // of what is not yet written
	for p := (at + shareBlock - 1) &^ (shareBlock - 1); p+leastShare <= at+int64(len(b)); {
		from, n := s.origin(p, at+int64(len(b))-p)
		if n >= leastShare {
			n = s.same(b[p-at:][:n], from)
		}
		if n < leastShare {
			p += max(n, shareBlock)
			continue
		}
		if err := s.writeOnly(b[start-at:p-at], start); err != nil {
			return err
		}
		err := (*share)(p, from, n)
		var unsupported *fault.Unsupported
		switch {
		case errors.As(err, &unsupported):
			s.share.Store(nil)
			return s.writeOnly(b[p-at:], p)
		case err != nil:
			return writeFailure(err)
		}
		p += n
		start = p
	}
	return s.writeOnly(b[start-at:], start)
}

func (s *sharer) writeOnly(b []byte, at int64) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := s.dst.WriteAt(b, at); err != nil {
		return writeFailure(err)
	}
	return nil
}

// origin is where in the source the data from a block on stems from, and for how
// many bytes, at most limit, whole blocks and at the same alignment; n is what
// to go on by where that is nowhere, and then less than leastShare.
func (s *sharer) origin(at, limit int64) (from, n int64) {
	at += s.shift
	runs := s.layout.Runs
	i := sort.Search(len(runs), func(i int) bool { return runs[i].New > at }) - 1
	if i < 0 {
		return 0, 0
	}
	r := runs[i]
	if r.Self {
		return 0, 0
	}
	from = at - r.New + r.Old
	n = min(r.New+r.Len-at, limit, s.header.SourceSize-from) &^ (shareBlock - 1)
	if (from-(at-s.shift))%shareBlock != 0 {
		return 0, 0
	}
	return from, max(n, 0)
}

// same is how many whole blocks of b, in bytes, the source has from an offset
// on.
func (s *sharer) same(b []byte, from int64) int64 {
	if s.buf == nil {
		s.buf = make([]byte, leastShare)
	}
	for done := 0; ; {
		k := min(len(b)-done, len(s.buf))
		old := s.buf[:k]
		if _, err := io.ReadFull(io.NewSectionReader(s.old, from+int64(done), int64(k)), old); err != nil {
			return int64(done)
		}
		for i := 0; i < k; i += shareBlock {
			if !bytes.Equal(old[i:i+shareBlock], b[done+i:done+i+shareBlock]) {
				return int64(done + i)
			}
		}
		if done += k; done == len(b) {
			return int64(done)
		}
	}
}
