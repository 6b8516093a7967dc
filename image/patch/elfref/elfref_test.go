package elfref

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/sealant-os/sealant/image/patch/elfref/sample"
)

// self is the program that runs this test.
func self(t testing.TB) []byte {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFind(t *testing.T) {
	data := append(make([]byte, 1024), self(t)...)
	es, err := Find(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 1 || es[0].Base != 1024 {
		t.Fatalf("found %d elements", len(es))
	}
	e := es[0]
	table := e.Table(data[e.Base : e.Base+e.Size])
	var count [Classes]int
	end := int64(0)
	for i := range table.Len() {
		r := table.At(i)
		count[r.Class]++
		if r.Off < end || r.Off+r.Width > e.Base+e.Size {
			t.Fatalf("reference %d at %d overlaps or is outside", i, r.Off)
		}
		end = r.Off + r.Width
		if j := table.From(r.Offset); j != i {
			t.Fatalf("reference %d is found as %d", i, j)
		}
	}
	for _, c := range []Class{Call, GoEntry, GoFunc, GoName, SectionAddr, SectionOff} {
		if count[c] == 0 {
			t.Errorf("no %v reference was found", c)
		}
	}
}

// TestDamaged holds that no file makes parsing fail, however damaged.
func TestDamaged(t *testing.T) {
	whole := self(t)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		data := bytes.Clone(whole)
		if round%4 == 3 {
			data = data[:r.IntN(len(data))]
		}
		e0, err := Find(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			t.Fatal(err)
		}
		// Damage headers and tables rather than code.
		for range 1 + r.IntN(200) {
			at := r.IntN(len(data))
			if s := e0[0].sections[r.IntN(len(e0[0].sections))]; r.IntN(2) == 0 && s.kind != typeNobits && s.size > 0 {
				at = int(s.off) + r.IntN(int(min(s.size, 4096)))
			} else if r.IntN(2) == 0 {
				at = s.header + r.IntN(sectSize)
			}
			if at < len(data) {
				data[at] = byte(r.Uint32())
			}
		}
		look(t, data)
	}
}

// look finds all there is to find in data.
func look(t testing.TB, data []byte) {
	es, err := Find(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		b, err := e.Read(func(b []byte, off int64) error { copy(b, data[off:]); return nil })
		if err != nil {
			t.Fatal(err)
		}
		table := e.Table(b)
		for i := range table.Len() {
			table.At(i)
		}
		e.Symbols(table)
	}
	Extents(es)
}

func FuzzFind(f *testing.F) {
	f.Add(self(f)[:8192])
	f.Add(sample.Debug(machineX86, 3))
	f.Add(sample.Debug(machineARM, 0))
	f.Fuzz(func(t *testing.T, data []byte) { look(t, data) })
}

// TestDecode compares lengths of instructions with their encodings in the
// processor's manual.
func TestDecode(t *testing.T) {
	for _, c := range []struct {
		bytes []byte
		want  instruction
	}{
		{[]byte{0xe8, 1, 2, 3, 4}, instruction{size: 5, field: 1, branch: true}},       // call
		{[]byte{0x0f, 0x84, 1, 2, 3, 4}, instruction{size: 6, field: 2, branch: true}}, // je
		{[]byte{0x48, 0x8d, 0x05, 1, 2, 3, 4}, instruction{size: 7, field: 3}},         // lea rip
		{[]byte{0x83, 0x3d, 1, 2, 3, 4, 0}, instruction{size: 7, field: 2, after: 1}},  // cmp [rip], imm8
		{[]byte{0xc7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8}, instruction{size: 10, field: 2, after: 4, absolute: 6}},
		{[]byte{0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, instruction{size: 10}},                     // movabs
		{[]byte{0x66, 0x90}, instruction{size: 2}},                                              // nop
		{[]byte{0xf3, 0x0f, 0x1e, 0xfa}, instruction{size: 4}},                                  // endbr64
		{[]byte{0xc5, 0xf8, 0x77}, instruction{size: 3}},                                        // vzeroupper
		{[]byte{0xf7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8}, instruction{size: 10, field: 2, after: 4}}, // test [rip], imm32
		{[]byte{0x06}, instruction{}},
		{[]byte{0xe8, 1, 2}, instruction{}},
	} {
		if got := decode(c.bytes); got != c.want {
			t.Errorf("%x: %+v, want %+v", c.bytes, got, c.want)
		}
	}
}

// TestArmField holds that what is put into an instruction can be read from it.
func TestArmField(t *testing.T) {
	for _, k := range []Kind{Branch26, Branch19, Branch14} {
		for _, d := range []int64{0, 4, -4, 32760, -32768} {
			w := ArmField(k, 0x94000000, 0x10000+d, 0x10000, 0)
			if got, _ := ArmTarget(k, w, 0x10000); got != 0x10000+d {
				t.Errorf("kind %d: %x leads to %x", k, d, got)
			}
		}
	}
	for _, d := range []int64{0, 0x1000, -0x1000, 0x7ffff000} {
		w := ArmField(Page, 0x90000000, 0x123000+d, 0x123456, 0)
		if got := pageOf(w, 0x123456); got != 0x123000+d {
			t.Errorf("page %x is read as %x", 0x123000+d, got)
		}
	}
}
