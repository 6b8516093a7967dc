package patch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/internal/fault"
)

// magic begins every patch. Its first byte has the top bit set and its last two
// are a line end, so that a transfer as text shows.
const magic = "\x89SEALP\r\n"

// version of the container.
const version = 2

// Limits of a header.
const (
	maxHeader     = 64 << 10 // bytes
	maxTransforms = 16
	maxSegments   = 16
	maxSize       = 1 << 46 // bytes of any file
	maxName       = 31
)

// Transform names a way of coding that a decoder must know, in one version of
// it. A decoder refuses what it does not know.
type Transform struct {
	ID      uint64 `json:"id"`
	Version uint64 `json:"version"`
	Name    string `json:"name"`
}

// The transforms of this package.
const (
	walkTransform = 1 // runs, differences and literals
	elfTransform  = 2 // references within ELF files
	sealTransform = 3 // verity tree, trust cache and footer are recomputed
	foldTransform = 4 // compressed members are taken apart, and compressed again
)

// transformNames are their names, and the versions this package knows.
var transformNames = map[uint64]struct {
	name    string
	version uint64
}{
	walkTransform: {"walk", 3},
	elfTransform:  {"elf", 4},
	sealTransform: {"seal", 1},
	foldTransform: {"fold", 1},
}

// newTransform is a transform in the version that this package knows.
func newTransform(id uint64) Transform {
	return Transform{ID: id, Version: transformNames[id].version}
}

// Seal are the parameters of a sealed image whose verity tree, trust cache and
// footer the applier computes itself.
type Seal struct {
	Name     string        `json:"name"`
	Subtype  image.Subtype `json:"subtype"`
	Salt     [32]byte      `json:"-"`
	DataSize int64         `json:"data_size"`
}

// Segment is a part of the result that is coded by itself.
type Segment struct {
	Size   int64 `json:"size"`  // bytes of the result
	Coded  int64 `json:"coded"` // bytes of the patch
	Bits   int   `json:"model_bits"`
	Light  bool  `json:"light"`  // coded for speed
	Primed bool  `json:"primed"` // the models know the source
	Packed int64 `json:"packed"` // bytes of the patch, before Coded, that are packed literals; 0: they are modelled
	Window int   `json:"window"` // of packed literals: log2 of how far they look back
	Watch  int   `json:"watch"`  // how long differences are watched for, 0 to 3
}

// shape is what the segment's models look like.
func (s Segment) shape() delta.Shape {
	return delta.Shape{Bits: uint(s.Bits), Light: s.Light, Packed: s.Packed > 0, Window: uint(s.Window), Watch: uint(s.Watch), Primed: s.Primed}
}

// Marks in a segment's mode.
const (
	packed = 1 << iota // literals are packed; their window and size follow
	light              // coded for speed
	primed             // the models know the source
	watch              // and the bit above: how long differences are watched for
	modes  = 1<<5 - 1
)

// Header is what a patch says about itself.
type Header struct {
	Source     image.Digest
	SourceSize int64
	Result     image.Digest
	ResultSize int64
	Memory     int64 // bytes that applying takes at most
	Transforms []Transform
	Tables     int64 // bytes of tables of references to keep
	Seal       *Seal // nil: the result is coded to its last byte
	Fold       *Fold // nil: no member is compressed again
	Runs       int64 // stretches copied from the source
	MapSize    int64 // bytes of the patch that describe them
	Segments   []Segment
	Size       int64 // bytes of the whole patch
}

// data is the size of the result as far as it is coded.
func (h *Header) data() int64 {
	if h.Seal != nil {
		return h.Seal.DataSize
	}
	return h.ResultSize
}

// has says whether the patch needs a transform.
func (h *Header) has(id uint64) bool {
	for _, t := range h.Transforms {
		if t.ID == id {
			return true
		}
	}
	return false
}

// castagnoli is made at its first use: most programs that link this package start
// without making or applying a patch.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// marshal returns the header's bytes, its checksum included.
func (h *Header) marshal() []byte {
	var b []byte
	num := func(v int64) { b = binary.AppendUvarint(b, uint64(v)) }
	num(h.SourceSize)
	b = append(b, h.Source[:]...)
	num(h.ResultSize)
	b = append(b, h.Result[:]...)
	num(h.Memory)
	num(int64(len(h.Transforms)))
	for _, t := range h.Transforms {
		num(int64(t.ID))
		num(int64(t.Version))
		switch t.ID {
		case elfTransform:
			num(h.Tables)
		case sealTransform:
			num(h.Seal.DataSize)
			b = append(b, byte(len(h.Seal.Name)))
			b = append(b, h.Seal.Name...)
			b = append(b, byte(h.Seal.Subtype))
			b = append(b, h.Seal.Salt[:]...)
		case foldTransform:
			b = h.Fold.marshal(b)
		}
	}
	num(h.Runs)
	num(h.MapSize)
	num(int64(len(h.Segments)))
	for _, s := range h.Segments {
		num(s.Size)
		num(s.Coded)
		mode := byte(0)
		if s.Light {
			mode |= light
		}
		if s.Primed {
			mode |= primed
		}
		if s.Packed > 0 {
			mode |= packed
		}
		mode |= byte(s.Watch) * watch
		b = append(b, byte(s.Bits), mode)
		if s.Packed > 0 {
			b = append(b, byte(s.Window))
			num(s.Packed)
		}
	}
	out := []byte(magic)
	out = binary.LittleEndian.AppendUint16(out, version)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(b)))
	out = append(out, b...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli()))
}

// fields reads the fields of a header; the first error sticks.
type fields struct {
	b   []byte
	err error
}

func (f *fields) fail(what string) {
	if f.err == nil {
		f.err = fmt.Errorf("%s", what)
	}
	f.b = nil
}

func (f *fields) bytes(n int) []byte {
	if len(f.b) < n {
		f.fail("header is too short")
		return make([]byte, n)
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

// num reads a number of at most limit in its shortest form.
func (f *fields) num(limit uint64, what string) int64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || n > 1 && f.b[n-1] == 0 {
		f.fail("malformed number: " + what)
		return 0
	}
	f.b = f.b[n:]
	if v > limit {
		f.fail(fmt.Sprintf("%s is %d, more than the limit of %d", what, v, limit))
		return 0
	}
	return int64(v)
}

// damaged is the refusal of a patch that is not what an encoder writes.
func damaged(format string, args ...any) *fault.Error {
	return fault.New(fault.Seal, "cannot read the patch: "+format, args...).Hint("the patch is damaged or no patch: fetch it again")
}

// readHeader reads the header and nothing more.
func readHeader(r io.Reader) (*Header, int64, error) {
	pre := make([]byte, len(magic)+6)
	if _, err := io.ReadFull(r, pre); err != nil {
		return nil, 0, readFailure(err)
	}
	if string(pre[:len(magic)]) != magic {
		return nil, 0, damaged("it does not begin like a patch")
	}
	if v := binary.LittleEndian.Uint16(pre[len(magic):]); v != version {
		return nil, 0, fault.New(fault.Failed, "cannot read the patch: its format version is %d, this program knows version %d", v, version).Hint("a newer sealant may read it")
	}
	size := binary.LittleEndian.Uint32(pre[len(magic)+2:])
	if size > maxHeader {
		return nil, 0, damaged("header of %d bytes is longer than %d", size, maxHeader)
	}
	rest := make([]byte, size+4)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, 0, readFailure(err)
	}
	if crc32.Update(crc32.Checksum(pre, castagnoli()), castagnoli(), rest[:size]) != binary.LittleEndian.Uint32(rest[size:]) {
		return nil, 0, damaged("the header's checksum is wrong")
	}
	h, err := parseHeader(rest[:size])
	if err != nil {
		return nil, 0, err
	}
	n := int64(len(pre) + len(rest))
	h.Size = n + h.MapSize + 4
	for _, s := range h.Segments {
		h.Size += s.Coded + s.Packed
	}
	return h, n, nil
}

// readFailure tells a short patch from a failing reader.
func readFailure(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged("it ends too early")
	}
	return fmt.Errorf("cannot read the patch: %w", err)
}

// parseHeader reads the header's fields.
func parseHeader(b []byte) (*Header, error) {
	f := &fields{b: b}
	h := &Header{}
	h.SourceSize = f.num(maxSize, "source size")
	copy(h.Source[:], f.bytes(len(h.Source)))
	h.ResultSize = f.num(maxSize, "result size")
	copy(h.Result[:], f.bytes(len(h.Result)))
	h.Memory = f.num(maxSize, "memory")
	last := int64(0)
	for range f.num(maxTransforms, "number of transforms") {
		t := Transform{ID: uint64(f.num(1<<16, "transform")), Version: uint64(f.num(1<<16, "transform version"))}
		if f.err != nil {
			break
		}
		known, ok := transformNames[t.ID]
		if !ok || known.version != t.Version {
			return nil, fault.New(fault.Failed, "cannot read the patch: it needs transform %d version %d, which this program does not know", t.ID, t.Version).Hint("a newer sealant may read it")
		}
		if int64(t.ID) <= last {
			return nil, damaged("transforms are not in order")
		}
		last, t.Name = int64(t.ID), known.name
		switch t.ID {
		case elfTransform:
			h.Tables = f.num(maxSize, "memory for references")
		case sealTransform:
			s := &Seal{DataSize: f.num(maxSize, "data size")}
			s.Name = string(f.bytes(int(f.bytes(1)[0])))
			s.Subtype = image.Subtype(f.bytes(1)[0])
			copy(s.Salt[:], f.bytes(len(s.Salt)))
			if len(s.Name) > maxName {
				f.fail("name is too long")
			}
			h.Seal = s
		case foldTransform:
			h.Fold = parseFold(f)
		}
		h.Transforms = append(h.Transforms, t)
	}
	h.Runs = f.num(maxSize, "number of runs")
	h.MapSize = f.num(maxSize, "size of the map")
	total := int64(0)
	for range f.num(maxSegments, "number of segments") {
		s := Segment{Size: f.num(maxSize, "segment size"), Coded: f.num(maxSize, "coded size")}
		s.Bits = int(f.bytes(1)[0])
		mode := f.bytes(1)[0]
		s.Watch = int(mode / watch & 3)
		s.Light, s.Primed = mode&light != 0, mode&primed != 0
		if mode&^modes != 0 {
			f.fail("mode of a segment is unknown")
		}
		if s.Primed && (h.from() > delta.MaxPrimed || mode&packed != 0) {
			f.fail("the source is too large to know")
		}
		if mode&packed != 0 {
			s.Window = int(f.bytes(1)[0])
			if s.Window < delta.MinWindow || s.Window > delta.MaxWindow {
				f.fail("window of packed literals is out of range")
			}
			if s.Packed = f.num(maxSize, "size of packed literals"); s.Packed == 0 {
				f.fail("no packed literals")
			}
		}
		if s.Bits < delta.MinBits || s.Bits > delta.MaxBits {
			f.fail("model size is out of range")
		}
		if f.err != nil {
			break
		}
		if s.Size == 0 {
			f.fail("empty segment")
		}
		total += s.Size
		h.Segments = append(h.Segments, s)
	}
	switch {
	case f.err != nil:
		return nil, damaged("%w", f.err)
	case len(f.b) != 0:
		return nil, damaged("%d bytes after the header's last field", len(f.b))
	case len(h.Transforms) == 0 || h.Transforms[0].ID != walkTransform:
		return nil, damaged("the walk is not among the transforms")
	case h.data() > h.ResultSize:
		return nil, damaged("data of %d bytes is larger than the result of %d", h.data(), h.ResultSize)
	}
	if err := h.Fold.check(h); err != nil {
		return nil, damaged("%w", err)
	}
	switch {
	case total != h.coded():
		return nil, damaged("segments of %d bytes make no data of %d", total, h.coded())
	case h.Runs > h.coded() || h.Runs > maxRuns(h.MapSize, h.coded()):
		return nil, damaged("%d runs are more than a map of %d bytes may have", h.Runs, h.MapSize)
	}
	return h, nil
}

// maxRuns is how many runs a map of a size may describe, for so much data: what
// a decoder takes to go through them is bounded by that.
func maxRuns(size, data int64) int64 { return 1<<16 + 256*size + data/1024 }

// Inspect reads the header of a patch.
func Inspect(p io.Reader) (*Header, error) {
	h, _, err := readHeader(p)
	return h, err
}

// Is says whether data begins like a patch.
func Is(data []byte) bool { return bytes.HasPrefix(data, []byte(magic)) }
