package publish

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
)

// file is one file of a test tree.
type file struct {
	content string
	mode    uint32
	uid     uint32
	target  string // of a symbolic link
	xattr   string
}

type tree map[string]file

// with is the tree with some files replaced; an empty file{} takes one away.
func (tr tree) with(changes tree) tree {
	out := tree{}
	for name, f := range tr {
		out[name] = f
	}
	for name, f := range changes {
		if f == (file{}) {
			delete(out, name)
		} else {
			out[name] = f
		}
	}
	return out
}

// node makes the tree that erofs writes.
func (tr tree) node() *erofs.Node {
	root := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
	folders := map[string]*erofs.Node{".": root}
	var folder func(name string) *erofs.Node
	folder = func(name string) *erofs.Node {
		if n := folders[name]; n != nil {
			return n
		}
		n := &erofs.Node{Mode: erofs.ModeDirectory | 0o755}
		folders[name] = n
		above := folder(filepath.Dir(name))
		above.Children = append(above.Children, erofs.Child{Name: filepath.Base(name), Node: n})
		return n
	}
	for name, f := range tr {
		n := &erofs.Node{Mode: erofs.ModeRegular | f.mode, UID: f.uid, Size: int64(len(f.content))}
		n.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(f.content)), nil }
		if f.target != "" {
			n = &erofs.Node{Mode: erofs.ModeSymlink | 0o777, Target: f.target}
		}
		if f.xattr != "" {
			n.Xattrs = []erofs.Xattr{{Name: "user.x", Value: []byte(f.xattr)}}
		}
		above := folder(filepath.Dir(name))
		above.Children = append(above.Children, erofs.Child{Name: filepath.Base(name), Node: n})
	}
	return root
}

// build writes the tree as an image.
func (tr tree) build(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name+".cryptex"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := image.BuildTree(context.Background(), f, tr.node(), image.Options{Name: name, Subtype: image.App}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// elfFile is the smallest shared library that says what it exports.
func elfFile(id string, text string, exports ...string) string {
	const header, section = 64, 64
	names := "\x00.dynsym\x00.dynstr\x00.note\x00.shstrtab\x00"
	dynstr := "\x00"
	dynsym := make([]byte, 24)
	for _, e := range exports {
		s := make([]byte, 24)
		binary.LittleEndian.PutUint32(s, uint32(len(dynstr)))
		s[4] = 1<<4 | 2                            // global, function
		binary.LittleEndian.PutUint16(s[6:], 1)    // defined in section 1
		binary.LittleEndian.PutUint64(s[8:], 4096) // value
		dynsym = append(dynsym, s...)
		dynstr += e + "\x00"
	}
	note := binary.LittleEndian.AppendUint32(nil, 4)
	note = binary.LittleEndian.AppendUint32(note, uint32(len(id)))
	note = binary.LittleEndian.AppendUint32(note, 3)
	note = append(append(note, "GNU\x00"...), id...)
	body := append(append(append(append([]byte{}, dynsym...), dynstr...), note...), names...)
	offset := func(i int) uint64 {
		at := header
		for _, part := range []int{len(dynsym), len(dynstr), len(note)}[:i] {
			at += part
		}
		return uint64(at)
	}
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	for _, v := range []any{
		uint16(3), uint16(62), uint32(1), uint64(0), uint64(0), uint64(header + len(body)),
		uint32(0), uint16(header), uint16(0), uint16(0), uint16(section), uint16(5), uint16(4),
	} {
		binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(body)
	add := func(name, kind uint32, off uint64, size int, link uint32, entry uint64) {
		for _, v := range []any{name, kind, uint64(0), uint64(0), off, uint64(size), link, uint32(1), uint64(1), entry} {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	add(0, 0, 0, 0, 0, 0)
	add(1, 11, offset(0), len(dynsym), 2, 24)
	add(9, 3, offset(1), len(dynstr), 0, 0)
	add(17, 7, offset(2), len(note), 0, 0)
	add(23, 3, offset(3), len(names), 0, 0)
	b.WriteString(text)
	return b.String()
}

var base = tree{
	"usr/lib/libweb.so.1": {content: elfFile("\x8d\x1e", strings.Repeat("some machine code ", 900)+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close"), mode: 0o644},
	"usr/bin/browser":     {content: "#!/bin/sh\nexec libweb\n", mode: 0o755},
	"usr/share/web/index": {content: strings.Repeat("text\n", 2000), mode: 0o644},
	"usr/lib/libweb.so":   {target: "libweb.so.1"},
}

// fixed is what a security fix should look like: one file, nothing else.
var fixed = base.with(tree{
	"usr/lib/libweb.so.1": {content: elfFile("\x41\xfa", strings.Repeat("same machine code ", 900)+"\x00libweb/4.1 (x86)\x00", "web_open", "web_close"), mode: 0o644},
})
