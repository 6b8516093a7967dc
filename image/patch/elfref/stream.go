package elfref

// streamWindow is how much a stream reads at a time, in bytes.
const streamWindow = 16 << 10

// stream reads a stretch of the file from its start to its end, in a small
// buffer: so many bytes at a time, and then twice as many, up to streamWindow. What would go beyond the end gives zeros, and ends it.
type stream struct {
	c       *collector
	buf     []byte // what was read, of which
	i, n    int    // so many bytes are behind us, and there to be taken
	window  int64  // how many bytes are read next
	at, end int64  // where in the file buf starts, and where the stretch ends
	over    bool   // something went beyond the end
}

// stream reads n bytes from an offset of the file, which has them.
func (c *collector) stream(off, n int64) stream {
	r := stream{c: c, at: off, end: off + n, window: streamWindow}
	if c.read == nil {
		r.buf, r.n = c.data[off:off+n], int(n)
	}
	return r
}

// pos is the offset in the file of what comes next.
func (r *stream) pos() int64 { return r.at + int64(r.i) }

// fail ends the stream.
func (r *stream) fail() { r.over, r.n = true, 0 }

// until lets the stream end elsewhere, and go on if it was over.
func (r *stream) until(end int64) {
	r.over, r.end = false, end
	r.n = int(max(min(int64(len(r.buf)), end-r.at), 0))
}

// more says whether something comes, and nothing went wrong.
func (r *stream) more() bool { return !r.over && r.pos() < r.end }

// next are the next n bytes, few, without going on; nil if there are fewer.
func (r *stream) next(n int) []byte {
	if r.over || r.pos()+int64(n) > r.end {
		r.fail()
		return nil
	}
	if r.i+n > r.n {
		r.at, r.i = r.pos(), 0
		size := min(r.window, r.end-r.at)
		if int64(cap(r.buf)) < size {
			r.buf = make([]byte, size)
		}
		r.window = min(2*r.window, streamWindow)
		r.buf = r.buf[:size]
		r.c.fill(r.buf, r.at)
		r.n = len(r.buf)
	}
	return r.buf[r.i:][:n]
}

// take is a number of n bytes; 0 if there are fewer.
func (r *stream) take(n int) (v uint64) {
	b := r.next(n)
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	r.i += len(b)
	return v
}

// seek goes to an offset of the file, which is not behind the end.
func (r *stream) seek(off int64) {
	if off < r.at || off > r.at+int64(len(r.buf)) {
		r.at, r.buf, r.n = off, r.buf[:0], 0
	}
	r.i = int(off - r.at)
}

func (r *stream) skip(n uint64) {
	if r.over || n > uint64(r.end-r.pos()) {
		r.fail()
		return
	}
	r.seek(r.pos() + int64(n))
}

func (r *stream) u8() byte {
	if r.i < r.n {
		r.i++
		return r.buf[r.i-1]
	}
	return byte(r.take(1))
}

func (r *stream) u16() uint16 { return uint16(r.take(2)) }
func (r *stream) u32() uint32 { return uint32(r.take(4)) }
func (r *stream) u64() uint64 { return r.take(8) }

// leb is an unsigned LEB128 number of at most ten bytes, modulo 2^64.
func (r *stream) leb() (v uint64) {
	if r.i < r.n && r.buf[r.i] < 128 {
		r.i++
		return uint64(r.buf[r.i-1])
	}
	for shift := uint(0); shift < 70; shift += 7 {
		b := r.u8()
		v |= uint64(b&127) << shift
		if b < 128 {
			return v
		}
	}
	r.fail()
	return 0
}

// text skips bytes up to a zero.
func (r *stream) text() {
	for r.u8() != 0 && !r.over {
	}
}
