package patch

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"io"

	"github.com/sealant-os/sealant/image/patch/deflate"
)

// rMember is a compressed member.
type rMember struct {
	at, folded, plain int64
	recipe            byte
}

// rUnfold puts plain texts behind a source.
func rUnfold(old []byte, members []rMember) []byte {
	out := bytes.Clone(old)
	for _, m := range members {
		for len(out)%512 != 0 {
			out = append(out, 0)
		}
		plain, err := io.ReadAll(flate.NewReader(bytes.NewReader(old[m.at:])))
		if err != nil || int64(len(plain)) != m.plain {
			panic("no such member")
		}
		out = append(out, plain...)
	}
	return out
}

// rFold compresses members again: by the same deflaters, which are compared with
// the programs themselves.
func rFold(data []byte, members []rMember) []byte {
	var out []byte
	for _, m := range members {
		before := m.at - int64(len(out))
		out = append(out, data[:before]...)
		plain := data[before:][:m.plain:m.plain]
		data = data[before+m.plain:]
		var trailer []byte
		switch m.recipe >> 6 {
		case 1:
			trailer = binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(plain))
			trailer = binary.LittleEndian.AppendUint32(trailer, uint32(len(plain)))
		case 2:
			trailer = binary.BigEndian.AppendUint32(nil, adler32.Checksum(plain))
		}
		steps := int64(1 << 40)
		r := deflate.Recipe{Program: deflate.Program(m.recipe >> 4 & 3), Level: int(m.recipe & 15)}
		stream, err := deflate.Deflate(plain, r, m.folded-int64(len(trailer)), &steps)
		if err != nil {
			panic(err)
		}
		out = append(append(out, stream...), trailer...)
	}
	return append(out, data...)
}
