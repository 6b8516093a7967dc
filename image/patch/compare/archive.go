package compare

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// nested is how deep archives within archives are looked into.
const nested = 3

// archives compares what two archives of the same kind hold, and says whether
// they are such.
func (f *File) archives(old, data []byte, depth int) (bool, error) {
	if depth >= nested {
		return false, nil
	}
	if a, b := gunzip(old), gunzip(data); a != nil && b != nil {
		if bytes.Equal(a, b) {
			f.Repacked = true
			return true, nil
		}
		inner, err := compare(a, b, depth+1)
		inner.OldSize, inner.NewSize = f.OldSize, f.NewSize
		*f = inner
		return true, err
	}
	if a, b := unzip(old), unzip(data); a != nil && b != nil {
		members, err := trees(a, b, func(string) {}, depth+1)
		if err != nil {
			return false, nil // damaged, or with a name twice: compared as it is
		}
		f.Members, f.Repacked = members, len(members) == 0
		return true, nil
	}
	return false, nil
}

// gunzip is what a gzip file holds, nil if it is none or holds more than is
// compared.
func gunzip(b []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1))
	if err != nil || len(plain) > maxUnpacked {
		return nil
	}
	return plain
}

// maxUnpacked is how much of a gzip file is compared, in bytes.
const maxUnpacked = 256 << 20

// unzip is what a zip archive (jar, xpi, whl) holds, nil if it is none.
func unzip(b []byte) fs.FS {
	if !bytes.HasPrefix(b, []byte("PK")) {
		return nil
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil
	}
	return z
}

// text compares the lines of two texts, and does nothing if they are none.
func (f *File) text(old, data []byte) {
	if !isText(old) || !isText(data) {
		return
	}
	lines := func(b []byte) []string { return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") }
	f.LinesAdded, f.LinesRemoved = difference(lines(old), lines(data))
}

func isText(b []byte) bool { return !bytes.ContainsRune(b, 0) && utf8.Valid(b) }
