package compare

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"reflect"
	"testing"
)

func packed(t *testing.T, level int, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func archive(t *testing.T, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		w, err := z.Create(members[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(members[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func data(t *testing.T, old, data []byte) File {
	t.Helper()
	f, err := Data(old, data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestText(t *testing.T) {
	f := data(t, []byte("one\ntwo\nthree\n"), []byte("one\nthree\nfour\n"))
	if !reflect.DeepEqual(f.LinesAdded, []string{"four"}) || !reflect.DeepEqual(f.LinesRemoved, []string{"two"}) {
		t.Errorf("%+v", f)
	}
	if f := data(t, []byte("one\x00"), []byte("two\x00")); f.LinesAdded != nil {
		t.Errorf("no text: %+v", f)
	}
}

func TestGzip(t *testing.T) {
	old := packed(t, 9, "one\ntwo\n")
	f := data(t, old, packed(t, 9, "one\nthree\n"))
	if f.Repacked || !reflect.DeepEqual(f.LinesAdded, []string{"three"}) || f.OldSize != int64(len(old)) {
		t.Errorf("%+v", f)
	}
	if f := data(t, old, packed(t, 1, "one\ntwo\n")); !f.Repacked || f.LinesAdded != nil {
		t.Errorf("packed anew: %+v", f)
	}
	cut := old[:len(old)-1]
	if f := data(t, old, cut); f.Repacked || f.LinesAdded != nil {
		t.Errorf("damaged: %+v", f)
	}
}

func TestZip(t *testing.T) {
	inner := string(archive(t, "deep", "one\n"))
	old := archive(t, "same", "one", "text", "one\ntwo\n", "gone", "x", "inner.jar", inner)
	f := data(t, old, archive(t, "same", "one", "text", "one\nthree\n", "come", "y", "inner.jar", string(archive(t, "deep", "two\n"))))
	var paths []string
	for _, m := range f.Members {
		paths = append(paths, string(m.Change)+" "+m.Path)
	}
	if want := []string{"added come", "removed gone", "changed inner.jar", "changed text"}; !reflect.DeepEqual(paths, want) {
		t.Fatalf("%q", paths)
	}
	if deep := f.Members[2].Members; len(deep) != 1 || !reflect.DeepEqual(deep[0].LinesAdded, []string{"two"}) {
		t.Errorf("%+v", deep)
	}
	if !reflect.DeepEqual(f.Members[3].LinesRemoved, []string{"two"}) {
		t.Errorf("%+v", f.Members[3])
	}
	if f := data(t, old, append(bytes.Clone(old[:len(old)-22]), old[len(old)-22:]...)); !f.Repacked {
		t.Errorf("the same: %+v", f)
	}
}

// TestZipLies compares archives of which one has a member larger than it says.
func TestZipLies(t *testing.T) {
	old := archive(t, "a", "one one one one")
	lie := bytes.Clone(archive(t, "a", "two two two two"))
	at := bytes.LastIndex(lie, []byte("PK\x01\x02"))
	lie[at+24] = 3 // the size of the member in the directory
	if f := data(t, old, lie); f.Members != nil || f.Repacked {
		t.Errorf("%+v", f)
	}
}
