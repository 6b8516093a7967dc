package delta

import (
	"encoding/binary"

	"github.com/sealant-os/sealant/image/patch/elfref"
	"github.com/sealant-os/sealant/image/patch/entropy"
)

var le = binary.LittleEndian

// references codes the fields of runs that refer to something.
type references struct {
	predictor *Predictor
	missed    [elfref.Classes * states * 32]entropy.Flag
	history   [elfref.Classes]uint32 // whether the last references of a class were missed
	size      uint32                 // bytes of the last correction
	place     elfref.Place           // where the last reference really leads
	hex       entropy.Flag
	mixer     *entropy.Mixer
}

func newReferences(l *Layout, s Shape, m *entropy.Memory) references {
	return references{predictor: NewPredictor(l), mixer: m.Mixer(entropy.Shape{Contexts: 3, Bits: min(s.Bits, 16), Selectors: 2})}
}

// value is what a field at offset p must hold so that it leads to place. loads
// are those of the new element.
func (w *walker) value(r *elfref.Ref, old []byte, p int64, loads *elfref.Loads, place elfref.Place) (uint64, bool) {
	switch r.Kind {
	case elfref.Length:
		v := place + 1 - w.references.place
		return uint64(v), v >= 0 && v < 1<<31
	case elfref.Scaled:
		return uint64(uint32((place - w.references.predictor.Base(r.Base)) / r.Adjust)), true
	case elfref.File:
		return uint64(loads.Offset(place)), true
	}
	addr, ok := loads.Addr(place)
	if !ok {
		return 0, false
	}
	from, ok := addr, true
	switch r.Kind {
	case elfref.Absolute:
		return uint64(addr), true
	case elfref.FromBase:
		from, ok = loads.Addr(w.references.predictor.Base(r.Base))
	case elfref.FromTable:
		from, ok = loads.Addr(p - (r.Off - r.Base))
	default:
		from, ok = loads.Addr(p)
	}
	switch r.Kind {
	case elfref.Relative:
		return uint64(uint32(addr - from - r.Adjust)), ok
	case elfref.Backward:
		return uint64(uint32(from - addr)), ok
	case elfref.FromBase, elfref.FromTable:
		return uint64(uint32(addr - from)), ok
	}
	return uint64(elfref.ArmField(r.Kind, le.Uint32(old), addr, from, r.Adjust)), ok
}

// leads is the place that a field at offset p with value v leads to.
func (w *walker) leads(r *elfref.Ref, p int64, loads *elfref.Loads, v uint64) (elfref.Place, bool) {
	switch r.Kind {
	case elfref.Length:
		return w.references.place + int64(v) - 1, v < 1<<40
	case elfref.Scaled:
		return w.references.predictor.Base(r.Base) + int64(uint32(v))*r.Adjust, true
	case elfref.File:
		return loads.At(int64(v & (1<<56 - 1))), v < 1<<40
	case elfref.Absolute:
		if v == 0 {
			return 0, false // nothing, not the start of the file
		}
		if r.Width == 4 {
			return loads.Place(int64(int32(v)))
		}
		return loads.Place(int64(v))
	}
	from, ok := int64(0), true
	switch r.Kind {
	case elfref.FromBase:
		from, ok = loads.Addr(w.references.predictor.Base(r.Base))
	case elfref.FromTable:
		from, ok = loads.Addr(p - (r.Off - r.Base))
	default:
		from, ok = loads.Addr(p)
	}
	if !ok {
		return 0, false
	}
	switch r.Kind {
	case elfref.Relative:
		return loads.Place(from + r.Adjust + int64(int32(v)))
	case elfref.Backward:
		return loads.Place(from - int64(uint32(v)))
	case elfref.FromBase, elfref.FromTable:
		return loads.Place(from + int64(int32(v)))
	}
	addr, ok := elfref.ArmTarget(r.Kind, uint32(v), from)
	if !ok {
		return 0, false
	}
	return loads.Place(addr)
}

func get(b []byte, width int64) uint64 {
	if width == 8 {
		return le.Uint64(b)
	}
	return uint64(le.Uint32(b))
}

// reference codes the field of r, whose old bytes are old, at the present place,
// in new element e.
func (w *walker) reference(r *elfref.Ref, old []byte, e int) error {
	if w.measuring {
		w.pos += r.Width
		return nil
	}
	if r.Kind == elfref.HexID {
		return w.hexID(r)
	}
	k := &w.references
	p := w.pos
	loads := w.loadsOf(e)
	place, state := k.predictor.Place(r.Target)
	predicted, ok := w.value(r, old, p, loads, place)
	if !ok {
		predicted, state = get(old, r.Width), unknown
	}
	actual := predicted
	if w.encoding {
		actual = get(w.view[p-w.base:], r.Width)
	}
	class := uint32(r.Class)
	history := &k.history[class]
	miss := 0
	if actual != predicted {
		miss = 1
	}
	before := w.c.Spent()
	miss = k.missed[(int(class)*states+state)*32+int(*history&7)<<2+w.runClass].Code(w.c, miss)
	*history = *history<<1 | uint32(miss)
	if miss != 0 {
		actual = k.correct(w.c, r, class, uint32(state), predicted, actual)
		w.costs.Missed[class]++
		w.work += 8 * int64(k.size+1)
	}
	w.charge(&w.costs.References[class], References, p, before)
	if !w.encoding {
		if r.Width == 8 {
			w.view = le.AppendUint64(w.view, actual)
		} else {
			w.view = le.AppendUint32(w.view, uint32(actual))
		}
	}
	w.pos += r.Width
	if state != unknown {
		if to, ok := w.leads(r, p, loads, actual); ok {
			k.predictor.learn(r.Target, to, place, state)
			k.place = to
		}
	}
	return w.stop()
}

// correct codes the difference between a predicted and the actual value.
func (k *references) correct(c *entropy.Coder, r *elfref.Ref, class, state uint32, predicted, actual uint64) uint64 {
	d := int64(actual - predicted)
	if r.Width == 4 {
		d = int64(int32(uint32(actual) - uint32(predicted)))
	}
	u := entropy.Zigzag(d)
	n := uint32(0)
	for x := u; x > 0; x >>= 8 {
		n++
	}
	n = uint32(k.mixer.Code(c, []uint32{class + 1000, class*8 + state + 2000, class<<8 + 3000 + k.size}, 0, 0, byte(n)))
	n = min(n, 8)
	var v uint64
	for i := int(n) - 1; i >= 0; i-- {
		at := n*16 + uint32(i)
		x := k.mixer.Code(c, []uint32{
			class<<8 + at + 1<<20, uint32(v)*0x3779 + at + 1<<21, class<<16 + uint32(v)*77 + at + 1<<22,
		}, 1, 0, byte(u>>(8*uint(i))))
		v = v<<8 | uint64(x)
	}
	k.size = n
	actual = predicted + uint64(entropy.Unzigzag(v))
	if r.Width == 4 {
		actual = uint64(uint32(actual))
	}
	return actual
}

// hexID codes the name of a debug file, which is the build-id but its first
// byte in hex.
func (w *walker) hexID(r *elfref.Ref) error {
	const digits = "0123456789abcdef"
	at, _ := w.references.predictor.projection.At(r.Target)
	var id [19]byte
	if at >= w.start && at+19 <= w.pos {
		if err := w.readBack(id[:], at); err != nil {
			return err
		}
	}
	var expected [38]byte
	for i, b := range id {
		expected[2*i], expected[2*i+1] = digits[b>>4], digits[b&15]
	}
	other := 0
	if w.encoding && string(expected[:]) != string(w.view[w.pos-w.base:][:38]) {
		other = 1
	}
	other = w.references.hex.Code(w.c, other)
	for _, v := range expected {
		if other != 0 {
			if w.encoding {
				v = w.view[w.pos-w.base]
			}
			v = w.references.mixer.Code(w.c, []uint32{1, 2, 3}, 0, 0, v)
		}
		w.put(v)
	}
	return w.stop()
}
