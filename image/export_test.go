package image

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"slices"
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
