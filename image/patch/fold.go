package patch

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sealant-os/sealant/image/patch/deflate"
	"github.com/sealant-os/sealant/image/patch/delta"
	"github.com/sealant-os/sealant/image/patch/fold"
)

// Fold are the compressed members that a patch takes apart: the walk goes along
// the source with the plain texts of some members behind it, and through the
// data with plain texts in their members' places.
type Fold struct {
	From []fold.Member `json:"source"`
	To   []fold.Member `json:"result"`
}

// from is the size of what runs stem from: the source and plain texts.
func (h *Header) from() int64 {
	if h.Fold == nil {
		return h.SourceSize
	}
	return fold.Size(h.SourceSize, h.Fold.From)
}

// coded is the size of what the segments code: the data, with plain texts in
// their members' places.
func (h *Header) coded() int64 {
	if h.Fold == nil {
		return h.data()
	}
	return fold.NewData(h.Fold.To).Size(h.data())
}

// marshal appends the transform's parameters.
func (x *Fold) marshal(b []byte) []byte {
	num := func(v int64) { b = binary.AppendUvarint(b, uint64(v)) }
	num(int64(len(x.From)))
	before := int64(0)
	for _, m := range x.From {
		num(m.At - before)
		num(m.Plain)
		before = m.At + 1
	}
	num(int64(len(x.To)))
	before = 0
	for _, m := range x.To {
		num(m.At - before)
		num(m.Folded)
		num(m.Plain)
		b = append(b, m.Recipe)
		before = m.At + m.Folded
	}
	return b
}

// Members of each file that a patch may take apart.
const maxMembers = 1 << 14

// parseFold reads the transform's parameters.
func parseFold(f *fields) *Fold {
	x := &Fold{}
	at := int64(0)
	for range f.num(maxMembers, "number of members of the source") {
		m := fold.Member{At: at + f.num(maxSize, "place of a member"), Plain: f.num(deflate.MaxPlain, "size of a member")}
		x.From, at = append(x.From, m), m.At+1
		if f.err != nil {
			return x
		}
	}
	at = 0
	for range f.num(maxMembers, "number of members of the result") {
		m := fold.Member{At: at + f.num(maxSize, "place of a member"), Folded: f.num(deflate.MaxPlain, "size of a member"), Plain: f.num(deflate.MaxPlain, "size of a member"), Recipe: f.bytes(1)[0]}
		if _, _, ok := m.Made(); !ok {
			f.fail("recipe of a member is unknown")
		}
		if m.Folded == 0 || m.Plain == 0 {
			f.fail("empty member")
		}
		x.To, at = append(x.To, m), m.At+m.Folded
		if f.err != nil {
			return x
		}
	}
	return x
}

// check looks whether all members are where they can be.
func (x *Fold) check(h *Header) error {
	if x == nil {
		return nil
	}
	if n := len(x.From); n > 0 && x.From[n-1].At >= h.SourceSize {
		return fmt.Errorf("a member lies outside the source")
	}
	n := len(x.To)
	if n > 0 && x.To[n-1].At+x.To[n-1].Folded > h.data() {
		return fmt.Errorf("a member lies outside the result")
	}
	data, end := fold.NewData(x.To), int64(0)
	for _, s := range h.Segments {
		end += s.Size
		if i, at, _ := data.At(end); i >= 0 && at > 0 {
			return fmt.Errorf("a segment ends within a member")
		}
	}
	return nil
}

// memory is what members take while a patch is applied, in bytes.
func (x *Fold) memory() int64 {
	if x == nil {
		return 0
	}
	n, most := int64(0), int64(0)
	for _, m := range x.From {
		n += m.Plain + deflate.Slack
	}
	for _, m := range x.To {
		n += m.Plain + deflate.Slack
		most = max(most, m.Folded)
	}
	if len(x.To) > 0 {
		n += decoders * (most + deflate.Memory)
	}
	return n
}

// steps is how many steps deflaters may take in all: no member that is worth it
// comes near.
func (h *Header) steps() int64 { return 1<<25 + h.SourceSize + h.ResultSize }

// unfold inflates the source's members.
func (a *applier) unfold() error {
	x := a.header.Fold
	if x == nil {
		return nil
	}
	s, err := fold.Unfold(a.old, a.header.SourceSize, x.From)
	if err != nil {
		return damaged("%w", err)
	}
	a.from = s
	return nil
}

// folding is what all segments share about the result's members.
type folding struct {
	*fold.Data
	plain [][]byte // by member, as far as it is decoded
	steps int64    // that are left
}

func newFolding(h *Header) *folding {
	var members []fold.Member
	if h.Fold != nil {
		members = h.Fold.To
	}
	return &folding{Data: fold.NewData(members), plain: make([][]byte, len(members)), steps: h.steps()}
}

// folder takes what one segment codes, and writes the result: what is a member's
// plain text is compressed when all of it is there.
type folder struct {
	*sharer
	segment int
	at      int64 // in what is coded
}

// write takes the next piece.
func (f *folder) write(b []byte) error {
	for len(b) > 0 {
		i, at, left := f.folding.At(f.at)
		n := min(int64(len(b)), left)
		if i < 0 {
			f.shift = f.at - at
			if err := f.writeAt(b[:n], at); err != nil {
				return err
			}
			if err := f.wrote(f.segment, n); err != nil {
				return err
			}
		} else if err := f.member(i, b[:n]); err != nil {
			return err
		}
		f.at, b = f.at+n, b[n:]
	}
	return nil
}

// member takes a piece of a member's plain text.
func (f *folder) member(i int, b []byte) error {
	m := f.folding.Members[i]
	plain := &f.folding.plain[i]
	if *plain == nil {
		*plain = make([]byte, 0, m.Plain+deflate.Slack)
	}
	*plain = append(*plain, b...)
	if int64(len(*plain)) < m.Plain {
		return nil
	}
	f.mu.Lock()
	left := f.folding.steps
	f.mu.Unlock()
	used := left
	out, err := m.Fold(*plain, &left)
	f.mu.Lock()
	f.folding.steps -= used - left
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := f.writeOnly(out, m.At); err != nil {
		return err
	}
	return f.wrote(f.segment, m.Folded)
}

// readBack reads what was written, as it was coded.
func (f *folder) readBack(b []byte, off int64) error {
	for len(b) > 0 {
		i, at, left := f.folding.At(off)
		n := min(int64(len(b)), left)
		if i >= 0 {
			if at+n > int64(len(f.folding.plain[i])) {
				return io.ErrUnexpectedEOF
			}
			copy(b[:n], f.folding.plain[i][at:])
		} else if _, err := io.ReadFull(io.NewSectionReader(f.dst, at, n), b[:n]); err != nil {
			return err
		}
		off, b = off+n, b[n:]
	}
	return nil
}

// account is told places of the file for places among plain texts.
func (x *Fold) account(to delta.Account) delta.Account {
	if x == nil || to == nil {
		return to
	}
	data := fold.NewData(x.To)
	return func(off int64, what delta.What, bits int64) { to(data.File(off), what, bits) }
}
