package seal_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"strconv"
	"testing"

	"github.com/sealant-os/sealant/image/seal"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/vectors"
)

const vectorDir = "../../spec/vectors/seal"

var update = flag.Bool("update", false, "write the test vectors anew")

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	all, err := vectors.Read(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		err := check(v)
		switch {
		case v.Expect == "ok" && err != nil:
			t.Errorf("%s (%s): %v", v.Name, v.Header["comment"], err)
		case v.Expect == "refused" && fault.KindOf(err) != fault.Seal:
			t.Errorf("%s (%s): got %v", v.Name, v.Header["comment"], err)
		}
	}
}

// check reads a vector as spec/seal.md says: the body is data, superblock and
// tree, the root comes from somewhere trustworthy.
func check(v vectors.Vector) error {
	blocks, err := strconv.ParseUint(v.Header["data-blocks"], 10, 64)
	if err != nil {
		return err
	}
	at := blocks * seal.BlockSize
	if uint64(len(v.Body)) < at+seal.BlockSize {
		return fault.New(fault.Seal, "cut short")
	}
	s, err := seal.ParseSuperblock(v.Body[at : at+seal.BlockSize])
	if err != nil {
		return err
	}
	if s.DataBlocks != blocks {
		return fault.New(fault.Seal, "the superblock names other data")
	}
	root, err := hex.DecodeString(v.Header["root"])
	if err != nil {
		return err
	}
	copy(s.Root[:], root)
	if err := seal.Verify(context.Background(), bytes.NewReader(v.Body[:at]), bytes.NewReader(v.Body[at+seal.BlockSize:]), s); err != nil {
		return err
	}
	if digest := fmt.Sprintf("%x", s.Digest()); v.Expect == "ok" && digest != v.Header["digest"] {
		return fmt.Errorf("the digest is %s", digest)
	}
	return nil
}

func writeVectors(t *testing.T) {
	put := func(name, expect, comment string, s seal.Seal, body []byte) {
		v := vectors.Vector{Name: name, Expect: expect, Body: body, Header: map[string]string{
			"comment": comment, "root": s.String(), "data-blocks": fmt.Sprint(s.DataBlocks),
		}}
		if expect == "ok" {
			v.Header["digest"] = fmt.Sprintf("%x", s.Digest())
			v.Header["salt"] = hex.EncodeToString(s.Salt[:])
		}
		if err := v.Write(vectorDir); err != nil {
			t.Fatal(err)
		}
	}
	// Each data block is full of its own number.
	numbered := func(blocks int) []byte {
		b := make([]byte, blocks*seal.BlockSize)
		for i := range b {
			b[i] = byte(i / seal.BlockSize)
		}
		return b
	}
	whole := func(blocks int) (seal.Seal, []byte) {
		data := numbered(blocks)
		s, tree := compute(t, data)
		return s, bytes.Join([][]byte{data, s.Superblock(), tree}, nil)
	}
	for _, blocks := range []int{1, 2, 128, 129} {
		s, body := whole(blocks)
		put(fmt.Sprintf("blocks-%03d", blocks), "ok", fmt.Sprintf("%d data blocks, each full of its number modulo 256", blocks), s, body)
	}
	s, body := whole(129)
	damage := func(name, comment string, change func(b []byte) []byte) {
		put(name, "refused", comment, s, change(bytes.Clone(body)))
	}
	data := 129 * seal.BlockSize
	damage("data-bit", "one bit of the last data block is flipped", func(b []byte) []byte { b[data-1] ^= 1; return b })
	damage("tree-top-bit", "one bit of the highest hash block is flipped", func(b []byte) []byte { b[data+seal.BlockSize] ^= 0x80; return b })
	damage("tree-leaf-bit", "one bit of a leaf hash block is flipped", func(b []byte) []byte { b[data+2*seal.BlockSize] ^= 1; return b })
	damage("tree-padding", "the padding of the last hash block is not zero", func(b []byte) []byte { b[len(b)-1] = 1; return b })
	damage("tree-short", "the last hash block is missing", func(b []byte) []byte { return b[:len(b)-seal.BlockSize] })
	damage("superblock-salt", "one bit of the salt is flipped", func(b []byte) []byte { b[data+88] ^= 1; return b })
	damage("superblock-uuid", "one bit of the UUID is flipped", func(b []byte) []byte { b[data+16] ^= 1; return b })
	damage("superblock-algorithm", "the algorithm is sha512", func(b []byte) []byte { copy(b[data+32:], "sha512"); return b })
	damage("superblock-padding", "a byte after the superblock is not zero", func(b []byte) []byte { b[data+512] = 1; return b })
	damage("superblock-blocks", "the superblock names one data block less", func(b []byte) []byte { b[data+72]--; return b })
	other := s
	other.Root[0] ^= 1
	put("other-root", "refused", "all is consistent, but the root is not the expected one", other, body)
}
