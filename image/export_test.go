package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"slices"

	"github.com/sealant-os/sealant/image/seal"
)

// WithTrustCache puts another trust cache into an image and makes the footer
// fit, as a forger would.
func WithTrustCache(b, cache []byte) []byte {
	f, err := parseFooter(b[len(b)-blockSize:], int64(len(b)))
	if err != nil {
		panic(err)
	}
	f = parts(f.name, f.subtype, f.seal, int64(len(cache)), sha512.Sum384(cache))
	forged := slices.Concat(b[:f.cacheAt], cache)
	forged = append(forged, make([]byte, int(f.footerAt)-len(forged))...)
	return append(forged, f.encode()...)
}

// Rehash makes a footer's own hash right.
func Rehash(b []byte) []byte {
	if len(b) != blockSize {
		return b
	}
	sum := sha256.Sum256(b[:4064])
	return append(bytes.Clone(b[:4064]), sum[:]...)
}

// Forge seals any data with any trust cache, whether or not Finish would.
func Forge(data []byte, o Options, cache []byte) []byte {
	o, err := o.check()
	if err != nil {
		panic(err)
	}
	tree := offset{make([]byte, seal.HashSize(uint64(len(data)/blockSize)))}
	s, err := seal.Compute(context.Background(), bytes.NewReader(data), uint64(len(data)/blockSize), o.Salt, tree)
	if err != nil {
		panic(err)
	}
	f := parts(o.Name, o.Subtype, s, int64(len(cache)), sha512.Sum384(cache))
	b := slices.Concat(data, s.Superblock(), tree.b, cache)
	b = append(b, make([]byte, int(f.footerAt)-len(b))...)
	return append(b, f.encode()...)
}

type offset struct{ b []byte }

func (o offset) WriteAt(p []byte, off int64) (int, error) { return copy(o.b[off:], p), nil }
