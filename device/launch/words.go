package launch

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sealant-os/sealant/internal/fault"
)

// words make up a message of the launch socket and to a child: strings, each ended by
// a zero byte, of which a program's arguments and environment have none. They carry
// what execve(2) takes byte for byte, and cost a process that has just started next to
// nothing. spec/run.md describes the messages.
type words struct {
	b   []byte
	err error
}

func (w *words) add(list ...string) {
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	w.b = slices.Grow(w.b, size)
	for _, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			w.err = fault.New(fault.Usage, "cannot launch: a zero byte in %q", s)
		}
		w.b = append(append(w.b, s...), 0)
	}
}

func (w *words) number(n int) { w.add(strconv.Itoa(n)) }

func (w *words) flag(yes bool) {
	if yes {
		w.number(1)
	} else {
		w.number(0)
	}
}

func (w *words) mask(bits uint64) { w.add(strconv.FormatUint(bits, 16)) }

// list adds how many words there are, and these.
func (w *words) list(list []string) {
	w.number(len(list))
	w.add(list...)
}

// reading takes a message apart. What doesn't fit makes err, and zero values.
type reading struct {
	rest []byte
	err  error
}

func (r *reading) word() string {
	word, rest, ok := bytes.Cut(r.rest, []byte{0})
	if !ok {
		r.fail("it ends in the middle")
		return ""
	}
	r.rest = rest
	return string(word)
}

// number reads a decimal number without anything superfluous, of at least least and
// at most most.
func (r *reading) number(least, most int) int {
	word := r.word()
	n, err := strconv.Atoi(word)
	if err != nil || strconv.Itoa(n) != word || n < least || n > most {
		r.fail("%q is no number from %d to %d", word, least, most)
		return 0
	}
	return n
}

func (r *reading) flag() bool { return r.number(0, 1) == 1 }

func (r *reading) mask() uint64 {
	word := r.word()
	bits, err := strconv.ParseUint(word, 16, 64)
	if err != nil || strconv.FormatUint(bits, 16) != word {
		r.fail("%q is no mask", word)
		return 0
	}
	return bits
}

// list reads at most most words.
func (r *reading) list(most int) []string {
	n := r.number(0, most)
	if n > bytes.Count(r.rest, []byte{0}) {
		r.fail("it ends in the middle")
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, r.word())
	}
	return list
}

func (r *reading) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("the message makes no sense: "+format, args...)
	}
	r.rest = nil
}

// end must come when everything was read.
func (r *reading) end() error {
	if len(r.rest) > 0 {
		r.fail("something follows")
	}
	return r.err
}
