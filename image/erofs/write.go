package erofs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Options of an image that are no part of the tree.
type Options struct {
	UUID     [16]byte                // the file system's UUID
	Label    string                  // its label; what exceeds 16 bytes is cut
	Progress func(done, total int64) // told of bytes written; may be nil
}

// Write writes the tree as an image and returns its size, a multiple of
// BlockSize. w must read as zeros where it is not written. The bytes depend on
// the tree and the options alone; the order of children does not matter.
func Write(ctx context.Context, w io.WriterAt, root *Node, o Options) (int64, error) {
	p, err := layOut(root)
	if err != nil {
		return 0, err
	}
	if _, err := w.WriteAt(p.superblock(o), 0); err != nil {
		return 0, err
	}
	report := o.Progress
	if report == nil {
		report = func(int64, int64) {}
	}
	c := copier{w: w, buf: make([]byte, 1<<20), report: report, total: p.size()}
	c.step(BlockSize)
	for _, in := range p.inodes {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if in.inline {
			continue
		}
		switch {
		case in.node.Mode&ModeType == ModeRegular && in.node.Size > 0:
			if err := c.copyFile(in); err != nil {
				return 0, err
			}
		case in.size > 0:
			if _, err := w.WriteAt(p.content(in), int64(in.block)*BlockSize); err != nil {
				return 0, err
			}
		}
	}
	meta := make([]byte, p.metaSize)
	for _, in := range p.inodes {
		if err := p.encode(meta, in); err != nil {
			return 0, err
		}
	}
	if _, err := w.WriteAt(meta, int64(p.metaBlock)*BlockSize); err != nil {
		return 0, err
	}
	c.step(p.size())
	return p.size(), nil
}

// copier copies content into the image.
type copier struct {
	w           io.WriterAt
	buf         []byte
	done, total int64
	report      func(done, total int64)
}

func (c *copier) step(n int64) {
	c.done = min(c.done+n, c.total)
	c.report(c.done, c.total)
}

// copyFile copies a file's content to its blocks. Runs of zeros are left out:
// the image reads as zeros there anyway, and a sparse file stays sparse.
func (c *copier) copyFile(in *inode) error {
	r, err := in.node.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	at := int64(in.block) * BlockSize
	var copied int64
	for {
		n, err := io.ReadFull(r, c.buf)
		copied += int64(n)
		if copied > in.node.Size {
			break
		}
		if n > 0 && !allZero(c.buf[:n]) {
			if _, err := c.w.WriteAt(c.buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		c.step(int64(n))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", in.path, err)
		}
	}
	if copied != in.node.Size {
		return fmt.Errorf("cannot keep %s: its size changed while it was read", in.path)
	}
	return nil
}

var zeros [64 << 10]byte

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// superblock is block 0.
func (p *plan) superblock(o Options) []byte {
	b := make([]byte, BlockSize)
	sb := b[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(sb[0:], superMagic)
	le.PutUint32(sb[8:], compatMtime)
	sb[12] = 12 // log2 of the block size
	le.PutUint16(sb[14:], uint16(p.inodes[0].nid))
	le.PutUint64(sb[16:], uint64(len(p.inodes)))
	le.PutUint64(sb[24:], uint64(p.epoch))
	le.PutUint32(sb[36:], uint32(p.size()/BlockSize))
	le.PutUint32(sb[40:], p.metaBlock)
	copy(sb[48:64], o.UUID[:])
	copy(sb[64:80], o.Label)
	return b
}

// content is what an inode holds besides a regular file's content from disk.
func (p *plan) content(in *inode) []byte {
	if in.node.Mode&ModeType == ModeSymlink {
		return []byte(in.node.Target)
	}
	b := make([]byte, 0, in.size)
	names := in.names
	for len(names) > 0 {
		n := fitDirents(names)
		at := len(b)
		if at%BlockSize != 0 {
			at = int(align(int64(at), BlockSize))
			b = b[:at]
		}
		nameOff := n * direntSize
		for _, d := range names[:n] {
			b = binary.LittleEndian.AppendUint64(b, d.inode.nid)
			b = binary.LittleEndian.AppendUint16(b, uint16(nameOff))
			b = append(b, direntType(d.inode.node.Mode), 0)
			nameOff += len(d.name)
		}
		for _, d := range names[:n] {
			b = append(b, d.name...)
		}
		names = names[n:]
	}
	return b
}

// direntType is the type in a directory entry.
func direntType(mode uint32) byte {
	switch mode & ModeType {
	case ModeDirectory:
		return typeDirectory
	case ModeSymlink:
		return typeSymlink
	}
	return typeRegular
}

// encode puts an inode, its attributes and its inline content into meta.
func (p *plan) encode(meta []byte, in *inode) error {
	b := meta[in.nid*slot:]
	le := binary.LittleEndian
	layout := uint16(layoutPlain)
	if in.inline {
		layout = layoutInline
	}
	xattrs := uint16(0)
	if in.xattrSize > 0 {
		xattrs = uint16((in.xattrSize-xattrHeader)/4 + 1)
	}
	le.PutUint16(b[2:], xattrs)
	le.PutUint16(b[4:], uint16(in.node.Mode))
	le.PutUint32(b[16:], in.block)
	if in.core == compactSize {
		le.PutUint16(b[0:], layout<<1)
		le.PutUint16(b[6:], uint16(in.nlink))
		le.PutUint32(b[8:], uint32(in.size))
		le.PutUint16(b[24:], uint16(in.node.UID))
		le.PutUint16(b[26:], uint16(in.node.GID))
	} else {
		le.PutUint16(b[0:], layout<<1|1)
		le.PutUint64(b[8:], uint64(in.size))
		le.PutUint32(b[24:], in.node.UID)
		le.PutUint32(b[28:], in.node.GID)
		le.PutUint64(b[32:], uint64(in.mtime))
		le.PutUint32(b[44:], in.nlink)
	}
	b = b[in.core:]
	if in.xattrSize > 0 {
		encodeXattrs(b[:in.xattrSize], in.xattrs)
		b = b[in.xattrSize:]
	}
	if !in.inline {
		return nil
	}
	if in.node.Mode&ModeType != ModeRegular {
		copy(b, p.content(in))
		return nil
	}
	r, err := in.node.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.ReadFull(r, b[:in.size]); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot read %s: %w", in.path, err)
	} else if err != nil || !atEnd(r) {
		return fmt.Errorf("cannot keep %s: its size changed while it was read", in.path)
	}
	return nil
}

func atEnd(r io.Reader) bool {
	n, err := r.Read(make([]byte, 1))
	return n == 0 && (err == nil || errors.Is(err, io.EOF))
}

func encodeXattrs(b []byte, xattrs []storedXattr) {
	b = b[xattrHeader:]
	for _, x := range xattrs {
		b[0] = byte(len(x.name))
		b[1] = x.index
		binary.LittleEndian.PutUint16(b[2:], uint16(len(x.value)))
		copy(b[xattrEntry:], x.name)
		copy(b[xattrEntry+len(x.name):], x.value)
		b = b[x.size():]
	}
}
