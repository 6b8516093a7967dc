package patch

import (
	"bytes"
	"testing"
)

// TestExplain holds that the bytes of a patch are all accounted for, and that
// they are accounted to the file that changed.
func TestExplain(t *testing.T) {
	old, data := sealed(t, "one"), sealed(t, "another")
	p := make1(t, old, data)
	out := &memory{}
	files, err := Explain(out, bytes.NewReader(old), bytes.NewReader(p), ApplyOptions{})
	if err != nil || !bytes.Equal(out.data, data) {
		t.Fatalf("the result differs: %v", err)
	}
	sum, named := int64(0), map[string]bool{}
	for _, f := range files {
		sum += f.Bytes
		named[f.Path] = f.Literals+f.Differences > 0
	}
	h, n, err := readHeader(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	if spent := h.Size - n - 4; sum < spent*3/4 || sum > spent+int64(len(files)) {
		t.Errorf("%d bytes are accounted for, of %d", sum, spent)
	}
	if !named["bin/tool"] && !named["/bin/tool"] {
		t.Errorf("the file that changed is not among %+v", files)
	}
}
