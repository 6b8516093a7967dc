package fold

import "sort"

// Data relates a file to the same with some members' plain texts in their
// places.
type Data struct {
	Members []Member
	starts  []int64 // of the plain texts
}

// NewData relates a file; its members are in order and do not overlap.
func NewData(members []Member) *Data {
	d := &Data{Members: members}
	shift := int64(0)
	for _, m := range members {
		d.starts = append(d.starts, m.At+shift)
		shift += m.Plain - m.Folded
	}
	return d
}

// Size is the size, with the plain texts, of a file of so many bytes.
func (d *Data) Size(file int64) int64 {
	for _, m := range d.Members {
		file += m.Plain - m.Folded
	}
	return file
}

// At says where an offset among the plain texts lies: in member i, at so much of
// its plain text, or, if that is -1, at an offset in the file, with left bytes
// before the next member (or left of the member's plain text).
func (d *Data) At(off int64) (i int, at, left int64) {
	i = sort.Search(len(d.starts), func(i int) bool { return d.starts[i] > off }) - 1
	shift := int64(0)
	if i >= 0 {
		m := d.Members[i]
		if off < d.starts[i]+m.Plain {
			return i, off - d.starts[i], d.starts[i] + m.Plain - off
		}
		shift = m.At + m.Folded - (d.starts[i] + m.Plain)
	}
	left = 1 << 62
	if i+1 < len(d.starts) {
		left = d.starts[i+1] - off
	}
	return -1, off + shift, left
}

// File is the offset in the file: of what lies in a member, where that starts.
func (d *Data) File(off int64) int64 {
	i, at, _ := d.At(off)
	if i >= 0 {
		return d.Members[i].At
	}
	return at
}

// From is where an offset of the file, outside all members, lies among the plain
// texts.
func (d *Data) From(off int64) int64 {
	i := sort.Search(len(d.Members), func(i int) bool { return d.Members[i].At > off }) - 1
	if i < 0 {
		return off
	}
	m := d.Members[i]
	return d.starts[i] + m.Plain + off - (m.At + m.Folded)
}

// Start is where a member's plain text starts.
func (d *Data) Start(i int) int64 { return d.starts[i] }

// Unfolded is a file in memory with the plain texts of its members, which it was
// looked through for before.
func (d *Data) Unfolded(file []byte, plain func(m Member) ([]byte, error)) ([]byte, error) {
	out := make([]byte, 0, d.Size(int64(len(file))))
	at := int64(0)
	for _, m := range d.Members {
		p, err := plain(m)
		if err != nil {
			return nil, err
		}
		out = append(append(out, file[at:m.At]...), p...)
		at = m.At + m.Folded
	}
	return append(out, file[at:]...), nil
}
