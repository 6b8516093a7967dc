package patch

import (
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/fold"
	"github.com/sealant-os/sealant/image/patch/match"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

// MakeOptions guide Make. The zero value is right for most.
type MakeOptions struct {
	// Progress is told how many of how many bytes are done. The steps of making
	// count as much as they usually take.
	Progress func(done, total int64)
	Context  context.Context // cancels between steps; nil means never

	// Memory is what making may take, in bytes; 0 means as much as it needs. Where
	// it is short only long matches are looked for, and references are not: the
	// patch is larger then, and the same for all amounts that are short.
	Memory int64
}

// Stats says what a patch consists of.
type Stats struct {
	Size     int64 `json:"size"` // bytes of the patch
	Runs     int   `json:"runs"`
	Copied   int64 `json:"copied"`   // bytes of the result that stem from the source
	Literal  int64 `json:"literal"`  // bytes of the result that do not
	MapBytes int64 `json:"map_size"` // bytes of the patch that describe the runs
	Costs    Costs `json:"costs"`
}

// Costs says what the bytes of a patch besides the map are spent on.
type Costs struct {
	Differences int64            `json:"differences"`
	Literals    int64            `json:"literals"`
	References  int64            `json:"references"`
	Missed      map[string]int64 `json:"missed,omitempty"` // wrongly predicted references by class
}

func costsOf(c delta.Costs) Costs {
	out := Costs{Differences: (c.Gaps + c.Differences) / 8, Literals: c.Literals / 8, Missed: map[string]int64{}}
	for class, bits := range c.References {
		out.References += bits
		if n := c.Missed[class]; n > 0 {
			out.Missed[elfref.Class(class).String()] = n
		}
	}
	out.References /= 8
	return out
}

// Make writes to dst the patch that turns old into data. The same input gives
// the same patch, always.
func Make(dst io.Writer, old, data Source, o MakeOptions) (Stats, error) {
	t, err := analyse(old, data, o)
	if err != nil {
		return Stats{}, err
	}
	return t.make(dst, t.old, t.data, 100)
}

// MakeBoth writes to there the patch that turns old into data, and to back the
// one that turns data into old: the same as Make makes, for less work.
func MakeBoth(there, back io.Writer, old, data Source, o MakeOptions) (Stats, Stats, error) {
	t, err := analyse(old, data, o)
	if err != nil {
		return Stats{}, Stats{}, err
	}
	a, err := t.make(there, t.old, t.data, 50)
	if err != nil {
		return Stats{}, Stats{}, err
	}
	b, err := t.make(back, t.data, t.old, 50)
	return a, b, err
}

// task is two files between which patches are made.
type task struct {
	MakeOptions
	old, data *side
	rough     bool  // only long matches are looked for
	done      int64 // percent, in 100ths
	total     int64
}

// side is one of them, with what is known about it whatever the other is.
type side struct {
	data   []byte
	digest image.Digest
	seal   *Seal
	file   *match.File
	found  []fold.Found
}

// coded is the file as far as segments code it.
func (s *side) coded() (*match.File, error) {
	if s.seal == nil {
		return s.file, nil
	}
	return s.file.Cut(s.seal.DataSize)
}

// analysis is how much of the work the analysis is, in percent.
const analysis = 15

// step counts a part of the work, in 100ths of a percent.
func (t *task) step(n int64) error {
	t.done += n
	t.Progress(t.done*t.total/10_000, t.total)
	return t.Context.Err()
}

// analyse reads both files, and finds out what patches in both directions need.
func analyse(old, data Source, o MakeOptions) (*task, error) {
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Context == nil {
		o.Context = context.Background()
	}
	t := &task{MakeOptions: o, old: &side{}, data: &side{}, total: max(old.Size(), data.Size())}
	var err error
	if t.rough, err = o.rough(old.Size(), data.Size()); err != nil {
		return nil, err
	}
	group := errgroup.Group{}
	for s, source := range map[*side]Source{t.old: old, t.data: data} {
		group.Go(func() (err error) {
			if s.data, err = load(source); err != nil {
				return err
			}
			s.digest = sha512.Sum384(s.data)
			s.seal = sealOf(s.data)
			if t.rough {
				s.file = match.Plain(s.data)
			} else {
				s.file, err = match.Read(s.data)
				s.find()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return t, t.step(100 * analysis)
}

// make makes the patch from one side to the other, which is a share of all.
func (t *task) make(dst io.Writer, from, to *side, share int64) (Stats, error) {
	h := &Header{
		Source: from.digest, SourceSize: int64(len(from.data)),
		Result: to.digest, ResultSize: int64(len(to.data)),
		Transforms: []Transform{newTransform(walkTransform)},
	}
	if h.Seal = to.seal; h.Seal != nil {
		h.Transforms = append(h.Transforms, newTransform(sealTransform))
	}
	was := from.file
	is, err := to.coded()
	if err != nil {
		return Stats{}, err
	}
	best, err := t.choose(h, from, to, was, is, share)
	if err != nil {
		return Stats{}, err
	}
	if h.Fold != nil {
		h.Transforms = append(h.Transforms, newTransform(foldTransform))
	}
	if best.elf {
		h.Transforms = append(h.Transforms, newTransform(elfTransform))
		h.Tables = best.tables
	}
	slices.SortFunc(h.Transforms, func(a, b Transform) int { return cmp.Compare(a.ID, b.ID) })
	h.Runs, h.MapSize, h.Segments = int64(len(best.layout.Runs)), int64(len(best.parts[0])), best.segments
	h.Memory = h.memory() + best.memory
	s := Stats{Runs: len(best.layout.Runs), MapBytes: h.MapSize, Literal: h.coded()}
	for _, r := range best.layout.Runs {
		s.Copied += r.Len
	}
	s.Literal -= s.Copied
	s.Costs = costsOf(best.costs)
	s.Size, err = write(dst, h, best.parts)
	return s, err
}

// draft finds the shortest way to code data, which is a share of all work.
func (t *task) draft(was, is *match.File, share int64) (*draft, error) {
	step := func(percent int64) error { return t.step(percent * share * (100 - analysis) / 100) }
	elf := len(was.Elements) > 0 && len(is.Elements) > 0
	if !elf {
		was, is = match.Plain(was.Data), match.Plain(is.Data)
	}
	var layouts []*delta.Layout
	if t.rough {
		layouts = []*delta.Layout{match.Rough(was, is)}
	} else {
		layouts = match.Plan(was, is)
	}
	if err := step(60); err != nil {
		return nil, err
	}
	for _, l := range layouts {
		l.Runs = match.Repeats(is.Data, l.Runs, nil, leastRepeat)
	}
	drafts := make([]*draft, len(layouts))
	group := errgroup.Group{}
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, l := range layouts {
		group.Go(func() (err error) { drafts[i], err = encode(was, is, l); return err })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := step(25); err != nil {
		return nil, err
	}
	best, err := improve(was, is, slices.MinFunc(drafts, func(a, b *draft) int { return cmp.Compare(a.size, b.size) }))
	if err != nil {
		return nil, err
	}
	if best.elf = elf; elf {
		best.tables = was.Tables.Budget(best.layout)
	}
	return best, step(15)
}

// write puts a patch together.
func write(dst io.Writer, h *Header, parts [][]byte) (int64, error) {
	head := h.marshal()
	crc, n := uint32(0), int64(0)
	for _, part := range append([][]byte{head}, parts...) {
		crc = crc32.Update(crc, castagnoli(), part)
		if _, err := dst.Write(part); err != nil {
			return n, fmt.Errorf("cannot write the patch: %w", err)
		}
		n += int64(len(part))
	}
	if _, err := dst.Write(binary.LittleEndian.AppendUint32(nil, crc)); err != nil {
		return n, fmt.Errorf("cannot write the patch: %w", err)
	}
	return n + 4, nil
}

// thorough is the largest file whose suffixes are sorted and whose references
// are found, in bytes. In larger ones only long matches are looked for.
const thorough = 1<<31 - 2

// Need is about how much memory it takes to make a patch between files of these
// sizes, in bytes: at best, and at least.
func Need(old, data int64) (thoroughly, roughly int64) {
	return 320<<20 + 6*(old+data), 128<<20 + 2*(old+data)
}

// rough says whether only long matches can be looked for.
func (o MakeOptions) rough(old, data int64) (bool, error) {
	thoroughly, roughly := Need(old, data)
	switch {
	case o.Memory > 0 && o.Memory < roughly:
		return false, fault.New(fault.Failed, "cannot make the patch within %d MiB of memory: it needs %d", o.Memory>>20, (roughly+1<<20-1)>>20)
	case o.Memory > 0 && o.Memory < thoroughly:
		return true, nil
	}
	return max(old, data) > thorough, nil
}

// load reads a file into memory.
func load(s Source) ([]byte, error) {
	b := linux.Huge[byte](int(s.Size()))
	if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size()), b); err != nil {
		return nil, fmt.Errorf("cannot read the files to compare: %w", err)
	}
	return b, nil
}

var _ image.File = (*memory)(nil)
