package delta

import (
	"math/bits"

	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// differences codes where the plain bytes of runs differ from the old data, and
// by how much. Differences come in flocks. So after each one every byte is asked
// for, until watch bytes in a row were the same; then the length of the silence
// is told.
type differences struct {
	watch int64 // how many bytes are asked for after a difference
	quiet int64 // same bytes since the last difference
	gap   int64 // same bytes still to come before asking begins again; -1: not known yet
	gaps  []uint64
	next  int // encoding: first of gaps not yet coded

	asked  *entropy.BitMixer
	silent *entropy.Mixer
	long   [4]entropy.Numbers
	g1, g2 uint64 // the silences before
	mixer  *entropy.Mixer
	d1, d2 byte   // the differences before
	o1     byte   // the old byte of the last difference
	p1     uint32 // the new byte before it
	far    uint32 // how far the last two differences were apart

	ctx      [8]uint32 // the best first
	used     int       // how many of them the shape uses
	askCtx   [7]uint32
	askUsed  int
	quietCtx [4]uint32
}

// watch is for how many bytes after a difference every byte is asked for.
func (s Shape) watch() int64 { return 32 << (2 * s.Watch) }

func newDifferences(s Shape, m *entropy.Memory) differences {
	return differences{
		watch: s.watch(), quiet: s.watch(), gap: -1,
		asked:  m.BitMixer(s.asked(), s.askedBits(), 3*(quietClasses+1)),
		silent: m.Mixer(entropy.Shape{Contexts: 4, Bits: min(s.Bits, 14), Selectors: 4}),
		mixer:  m.Mixer(s.differences()),
		used:   s.differences().Contexts, askUsed: s.asked(),
	}
}

// plain codes n bytes of a run without references, which stand at old offset o.
func (w *walker) plain(o, n int64) error {
	if w.measuring {
		w.measure(o, n)
		return nil
	}
	d := &w.differences
	for n > 0 {
		if d.quiet >= d.watch {
			if d.gap < 0 {
				before := w.c.Spent()
				w.silence()
				w.charge(&w.costs.Gaps, Differences, w.pos, before)
			}
			same := min(d.gap, n)
			if err := w.copy(o, same); err != nil {
				return err
			}
			d.gap -= same
			o, n = o+same, n-same
			if n == 0 {
				return nil
			}
			d.gap = -1 // the next byte differs
		} else if !w.ask(o) {
			if !w.encoding {
				w.view = append(w.view, w.old.At(o))
			}
			w.pos++
			d.quiet++
			o, n = o+1, n-1
			continue
		}
		w.differ(o)
		o, n = o+1, n-1
		if err := w.stop(); err != nil {
			return err
		}
	}
	return nil
}

// quietClass puts the length of a silence into quietClasses classes.
func quietClass(n int64) uint32 {
	if n < 16 {
		return uint32(n)
	}
	l := uint32(bits.Len64(uint64(n)))
	return min(16+(l-5)*4+uint32(n>>(l-3))&3, quietClasses)
}

const quietClasses = 40

// ask codes whether the byte at old offset o differs.
func (w *walker) ask(o int64) bool {
	d := &w.differences
	old, next := uint32(w.old.At(o)), uint32(w.old.At(o+1))
	c1, c2, c3 := uint32(w.back(1)), uint32(w.back(2)), uint32(w.back(3))
	like := uint32(0)
	if old == uint32(d.o1) {
		like = 1
	}
	if c1 == d.p1 {
		like |= 2
	}
	quiet := quietClass(d.quiet)
	d.askCtx = [7]uint32{
		quiet | min(d.far, 255)<<8 | like<<16 | 3<<24,
		c1 | c2<<8 | 1<<24,
		old | uint32(d.d1)<<8 | like<<16 | 4<<24,
		c1 | old<<8 | 2<<24,
		c1 | c2<<8 | c3<<16 | 5<<27,
		old | next<<8 | c1<<16 | 6<<27,
		like | quiet>>2<<2 | uint32(w.runClass)<<8 | uint32(d.d1)<<16 | 7<<24,
	}
	differs := 0
	if w.encoding && w.view[w.pos-w.base] != byte(old) {
		differs = 1
	}
	before := w.c.Spent()
	w.work++
	differs = d.asked.Code(w.c, d.askCtx[:d.askUsed], int(like&1+like>>1)*(quietClasses+1)+int(quiet), differs)
	w.charge(&w.costs.Gaps, Differences, w.pos, before)
	return differs != 0
}

// differ codes the difference of the byte at old offset o.
func (w *walker) differ(o int64) {
	d := &w.differences
	old, next := uint32(w.old.At(o)), uint32(w.old.At(o+1))
	quiet := uint32(min(d.quiet, 7))
	c1, c2 := uint32(w.back(1)), uint32(w.back(2))
	d.ctx = [8]uint32{
		old | c1<<8 | 2<<24,
		uint32(d.d1) | quiet<<8 | 4<<24,
		old | uint32(d.o1)<<8 | uint32(d.d1)<<16 | 8<<24,
		old | c1<<8 | c2<<16 | 3<<24,
		old | 1<<24,
		old | next<<8 | c1<<16 | 5<<24,
		uint32(d.d1) | uint32(d.d2)<<8 | quiet<<16 | 6<<24,
		c1 | c2<<8 | uint32(w.back(3))<<16 | 7<<24,
	}
	var by byte
	if w.encoding {
		by = w.view[w.pos-w.base] - byte(old)
	}
	before := w.c.Spent()
	w.work += 8
	by = d.mixer.Code(w.c, d.ctx[:d.used], int(quiet), 0, by)
	w.charge(&w.costs.Differences, Differences, w.pos, before)
	d.far, d.quiet, d.o1, d.p1 = uint32(min(d.quiet, 255)), 0, byte(old), c1
	w.put(byte(old) + by)
	d.d2, d.d1 = d.d1, by
}

// silence codes the number of same bytes before the next difference, beyond
// those that were asked for.
func (w *walker) silence() {
	d := &w.differences
	v := uint64(0)
	if w.encoding {
		v = d.gaps[d.next]
		d.next++
	}
	class := int(min(bitLen(d.g1)>>1, 3))
	g1, g2 := uint32(min(d.g1, 255)), uint32(min(d.g2, 255))
	d.quietCtx = [4]uint32{
		uint32(class) + 7777,
		g1 | 1<<16,
		bitLen(d.g1) | bitLen(d.g2)<<8 | 1<<20,
		uint32(d.d1) | g2<<8 | 1<<24,
	}
	w.work += 8
	short := d.silent.Code(w.c, d.quietCtx[:], class, 0, byte(min(v, 255)))
	if short == 255 {
		v = min(d.long[class].Code(w.c, v-255), maxOffset) + 255
	} else {
		v = uint64(short)
	}
	d.g2, d.g1 = d.g1, v
	d.gap = int64(v)
}

// measure collects the silences that encoding will code.
func (w *walker) measure(o, n int64) {
	d := &w.differences
	data, old := w.view[w.pos-w.base:][:n], w.old.Bytes(o, n)
	w.pos += n
	for len(data) > 0 {
		if d.quiet < d.watch {
			d.quiet++
			if data[0] != old[0] {
				d.quiet = 0
			}
			data, old = data[1:], old[1:]
			continue
		}
		if d.gap < 0 {
			d.gap = 0
		}
		k := align.Common(data, old)
		d.gap += int64(k)
		if k == len(data) {
			return
		}
		d.gaps = append(d.gaps, uint64(d.gap))
		d.gap, d.quiet = -1, 0
		data, old = data[k+1:], old[k+1:]
	}
}
