package delta

import (
	"github.com/sealant-os/sealant/image/patch/align"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

// differences codes where the plain bytes of runs differ from the old data, as
// gaps between different bytes, and by how much they differ.
type differences struct {
	gap  int64 // equal bytes still to come before the next different one; -1: not known yet
	gaps []uint64
	next int // encoding: first of gaps not yet coded

	gapMixer *entropy.Mixer
	long     [4]entropy.Numbers
	g1, g2   uint64 // the gaps before
	g3       uint64
	mixer    *entropy.Mixer
	d1, d2   byte // the differences before
	ctx      [7]uint32
	gapCtx   [5]uint32
}

func newDifferences(s Shape) differences {
	return differences{
		gap:      -1,
		gapMixer: entropy.NewMixer(entropy.Shape{Contexts: 5, Bits: min(s.Bits, 16), Selectors: 4}),
		mixer:    entropy.NewMixer(entropy.Shape{Contexts: 7, Bits: min(s.Bits, 16), Selectors: 8}),
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
		if d.gap < 0 {
			w.nextGap()
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
		old := w.old.At(o)
		g1 := uint32(min(d.g1, 7))
		c1, c2 := uint32(w.back(1)), uint32(w.back(2))
		d.ctx = [7]uint32{
			uint32(old) | 1<<24,
			uint32(old) | c1<<8 | 2<<24,
			uint32(old) | c1<<8 | c2<<16 | 3<<24,
			uint32(d.d1) | g1<<8 | 4<<24,
			uint32(old) | uint32(w.old.At(o+1))<<8 | c1<<16 | 5<<24,
			uint32(d.d1) | uint32(d.d2)<<8 | g1<<16 | 6<<24,
			c1 | c2<<8 | uint32(w.back(3))<<16 | 7<<24,
		}
		var by byte
		if w.encoding {
			by = w.view[w.pos-w.base] - old
		}
		by = d.mixer.Code(w.c, d.ctx[:], int(g1), 0, by)
		w.put(old + by)
		d.d2, d.d1 = d.d1, by
		o, n, d.gap = o+1, n-1, -1
		if err := w.stop(); err != nil {
			return err
		}
	}
	return nil
}

// nextGap codes the number of equal plain bytes before the next different one.
func (w *walker) nextGap() {
	d := &w.differences
	v := uint64(0)
	if w.encoding {
		v = d.gaps[d.next]
		d.next++
	}
	class := 3
	switch {
	case d.g1 == 0:
		class = 0
	case d.g1 < 4:
		class = 1
	case d.g1 < 64:
		class = 2
	}
	g1, g2, g3 := uint32(min(d.g1, 255)), uint32(min(d.g2, 255)), uint32(min(d.g3, 255))
	d.gapCtx = [5]uint32{
		uint32(class) + 7777,
		g1 | 1<<16,
		g1 | g2<<8 | 1<<20,
		uint32(d.d1) | g1<<8 | 1<<24,
		g1 | g2<<8 | g3<<16 | 1<<26,
	}
	short := d.gapMixer.Code(w.c, d.gapCtx[:], class, 0, byte(min(v, 255)))
	if short == 255 {
		v = d.long[class].Code(w.c, v-255)
		v = min(v, 1<<62) + 255
	} else {
		v = uint64(short)
	}
	d.g3, d.g2, d.g1 = d.g2, d.g1, v
	d.gap = int64(v)
}

// measure collects the gaps that encoding will code.
func (w *walker) measure(o, n int64) {
	d := &w.differences
	if d.gap < 0 {
		d.gap = 0
	}
	data, old := w.view[w.pos-w.base:][:n], w.old.Bytes(o, n)
	w.pos += n
	for {
		k := align.Common(data, old)
		d.gap += int64(k)
		if k == len(data) {
			return
		}
		d.gaps = append(d.gaps, uint64(d.gap))
		d.gap = 0
		data, old = data[k+1:], old[k+1:]
	}
}
