package elfref

import (
	"bytes"
	"maps"
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

// TestDebug finds what a program with debugging information refers to.
func TestDebug(t *testing.T) {
	const n = sample.Functions
	for _, machine := range []uint16{machineX86, machineARM} {
		for _, more := range []int{0, 5} {
			data := sample.Debug(machine, more)
			e, table := only(t, data)
			text, _ := e.Named(".text")
			names, size := e.Named(".debug_str")
			found := map[Class]int{}
			in := map[string]int{}
			for i := range table.Len() {
				r := table.At(i)
				if s := e.Section(r.Offset); r.Class >= DebugAddr {
					found[r.Class]++
					in[s]++
				}
				to := r.Target
				switch r.Class {
				case DebugAddr:
					if to < text || (to-text)%2 != 0 || to > text+n*32+int64(more)*4 {
						t.Errorf("%s: an address leads to %#x", e.Section(r.Offset), to)
					}
				case DebugString:
					if to < names || to >= names+size || data[to-1] != 0 {
						t.Errorf("%s: a string begins at %#x", e.Section(r.Offset), to)
					}
				case DebugUnit:
					if !bytes.HasPrefix(data[to:], []byte("\x03int\x00")) {
						t.Errorf("a type is at %#x", to)
					}
				}
			}
			want := map[Class]int{
				DebugLength: 3 * n, DebugLength4: n, DebugString: 2*n + n + 2, DebugUnit: 2 * n, DebugEntry: 2*n + 1, DebugOffset: 2*3 + 2*n + n,
				// Functions and variables of two units; lines of two; frames, ranges and
				// addresses; pairs of ranges; five in each list of locations; three of the
				// new ranges have two.
				DebugAddr: 2*2*n + 2*n + 3*n + 2*n + 2*5*n + n + 3,
			}
			if !maps.Equal(found, want) {
				t.Errorf("machine %d: found %v, want %v; by section %v", machine, found, want, in)
			}
			pointers := 0
			for i := range table.Len() {
				if r := table.At(i); r.Class == Pointer && e.Section(r.Offset) == ".data.rel.ro" {
					pointers++
				}
			}
			if pointers != n {
				t.Errorf("%d pointers, not %d", pointers, n)
			}
		}
	}
}

// only is the one ELF file of data, and its references.
func only(t *testing.T, data []byte) (*Element, *Table) {
	t.Helper()
	es, err := Find(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(es) != 1 {
		t.Fatalf("%d ELF files: %v", len(es), err)
	}
	return es[0], es[0].Table(data)
}

// TestDamagedDebug damages every byte of a program, and holds that the same is
// found whether it is in memory or read piece by piece.
func TestDamagedDebug(t *testing.T) {
	whole := sample.Debug(machineX86, 2)
	for i := range whole {
		data := bytes.Clone(whole)
		data[i] = [...]byte{0, 255, whole[i] ^ 1<<(i/3%8)}[i%3]
		es, err := Find(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			table := e.Table(data[e.Base:][:e.Size])
			packed, err := e.Pack(reader(data).read)
			if err != nil {
				t.Fatal(err)
			}
			c := packed.Cursor(reader(data))
			if c.Len() != table.Len() {
				t.Fatalf("byte %d: %d references, packed %d", i, table.Len(), c.Len())
			}
			for k := range table.Len() {
				if a, b := table.At(k), c.At(k); a != b {
					t.Fatalf("byte %d: reference %d is %+v, packed %+v", i, k, a, b)
				}
			}
		}
	}
}
