package patch

import (
	"bytes"
	"testing"
)

// TestMakeBoth holds that both patches are the ones that Make makes.
func TestMakeBoth(t *testing.T) {
	for name, pair := range map[string][2][]byte{
		"bytes":  {noise(1, 5000), variant(2, noise(1, 5000))},
		"sealed": {sealed(t, "one"), sealed(t, "two")},
	} {
		var there, back bytes.Buffer
		last := int64(0)
		a, b, err := MakeBoth(&there, &back, bytes.NewReader(pair[0]), bytes.NewReader(pair[1]), MakeOptions{Progress: func(done, total int64) {
			if done < last || done > total {
				t.Errorf("%s: progress is %d of %d after %d", name, done, total, last)
			}
			last = done
		}})
		if err != nil {
			t.Fatal(err)
		}
		if a.Size != int64(there.Len()) || b.Size != int64(back.Len()) {
			t.Errorf("%s: sizes are not those that were told", name)
		}
		if !bytes.Equal(there.Bytes(), make1(t, pair[0], pair[1])) || !bytes.Equal(back.Bytes(), make1(t, pair[1], pair[0])) {
			t.Errorf("%s: they are others than Make's", name)
		}
	}
}

// TestRough makes a patch within little memory.
func TestRough(t *testing.T) {
	old := noise(1, 3<<20)
	data := append(noise(2, 100_000), old...)
	copy(data[2<<20:], "a change")
	_, least := Need(int64(len(old)), int64(len(data)))
	var p, again bytes.Buffer
	for _, b := range []*bytes.Buffer{&p, &again} {
		if _, err := Make(b, bytes.NewReader(old), bytes.NewReader(data), MakeOptions{Memory: least}); err != nil {
			t.Fatal(err)
		}
		least += 1 << 20
	}
	if p.Len() > 101_000 || !bytes.Equal(p.Bytes(), again.Bytes()) {
		t.Errorf("the patch has %d bytes, and then %d", p.Len(), again.Len())
	}
	if got, err := apply1(old, p.Bytes()); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the result differs: %v", err)
	}
	if _, err := Make(&p, bytes.NewReader(old), bytes.NewReader(data), MakeOptions{Memory: 1 << 20}); err == nil {
		t.Error("1 MiB is enough")
	}
}

// TestToil makes a patch of data that changes so regularly that its models would
// foresee everything: the decoder's bound of work must hold, and the result be
// right.
func TestToil(t *testing.T) {
	old := bytes.Repeat(noise(1, 1<<10), 3<<10)
	data := bytes.Clone(old)
	for i := 0; i < len(data); i += 3 {
		data[i]++
	}
	p := make1(t, old, data)
	if got, err := apply1(old, p); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a patch of %d bytes: %v", len(p), err)
	}
}

// TestRegular holds that the bound of work leaves room for changes that take
// hardly any bytes to tell: bsdiff needs 145 for these.
func TestRegular(t *testing.T) {
	old := noise(3, 1_000_000)
	data := bytes.Clone(old)
	for i := 0; i < len(data); i += 10 {
		data[i]++
	}
	p := make1(t, old, data)
	if len(p) > 145+145/100+256 {
		t.Errorf("a patch of %d bytes", len(p))
	}
	if got, err := apply1(old, p); err != nil || !bytes.Equal(got, data) {
		t.Error(err)
	}
}
