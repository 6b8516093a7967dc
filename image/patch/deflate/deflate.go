// Package deflate makes again, bit by bit, what GNU gzip and zlib make of data,
// so that a compressed member of a file can be patched as the plain data it
// holds, and compressed again.
//
// Both programs look for repetitions along hash chains and write blocks of
// RFC 1951; what they write follows from the data, the program and its level,
// which a Recipe names. The rules stand in spec/patch-fold.md. They are a part of
// the patch format: a change here is a new version of the transform.
//
// The plain data may be hostile: how many candidates are looked at is bounded by
// the caller, and so is the size of what is made.
package deflate

import (
	"errors"
	"fmt"
)

// Program is what compressed a member.
type Program byte

// The programs.
const (
	Gzip  Program = iota // GNU gzip
	Zlib8                // zlib with the usual memory, memLevel 8
	Zlib9                // zlib with memLevel 9
	programs
)

func (p Program) String() string {
	if p >= programs {
		return "unknown"
	}
	return [programs]string{"gzip", "zlib", "zlib, memLevel 9"}[p]
}

// Recipe says how a member was compressed.
type Recipe struct {
	Program Program
	Level   int // 1 to 9
}

// Valid says whether this package knows the recipe.
func (r Recipe) Valid() bool { return r.Program < programs && r.Level >= 1 && r.Level <= 9 }

func (r Recipe) String() string { return fmt.Sprintf("%v -%d", r.Program, r.Level) }

// Errors of Deflate.
var (
	ErrSteps = errors.New("compressing takes more steps than it may")
	ErrSize  = errors.New("the compressed data is too long")
	errOther = errors.New("the compressed data is another")
)

// Memory is what one Deflate takes besides plain and compressed data, in bytes.
const Memory = 1 << 20

// Slack is how much room plain data should have behind it, in bytes; where it
// has less it is copied. Deflate writes there.
const Slack = 320

// MaxPlain is how much plain data may be, in bytes: places are kept in 32 bits.
const MaxPlain = 1<<31 - 1 - Slack

// Deflate compresses plain data into a stream of at most so many bytes, for which
// it makes room. It looks at no more candidates for repetitions than *steps, and
// takes off what it looked at.
func Deflate(plain []byte, r Recipe, most int64, steps *int64) ([]byte, error) {
	w := &writer{most: most, out: make([]byte, 0, most)}
	err := deflate(plain, r, w, steps)
	return w.out, err
}

// Recognise finds the recipe by which plain data becomes exactly this stream, and
// the steps that takes. The likely recipe is tried first.
func Recognise(stream, plain []byte, likely Recipe, most int64) (Recipe, int64, bool) {
	try := func(r Recipe) (int64, bool) {
		left := most
		w := &writer{most: int64(len(stream)), want: stream}
		err := deflate(plain, r, w, &left)
		return most - left, err == nil && w.done == int64(len(stream))
	}
	if likely.Valid() {
		if steps, ok := try(likely); ok {
			return likely, steps, true
		}
	}
	// The usual levels first.
	for _, level := range [...]int{6, 9, 1, 8, 7, 5, 4, 3, 2} {
		for p := range programs {
			if r := (Recipe{p, level}); r != likely {
				if steps, ok := try(r); ok {
					return r, steps, true
				}
			}
		}
	}
	return Recipe{}, 0, false
}
