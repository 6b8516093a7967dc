package elfref

// What follows an opcode.
const (
	modrm  = 1 << iota // a ModRM byte
	imm8               // 1 byte
	immz               // 2 or 4 bytes, by operand size
	imm16              // 2 bytes
	bad                // no instruction in 64-bit mode
	rel32              // 4 bytes, relative
	prefix             //
	moffs              // 8 bytes
)

// one and two are the opcodes of one byte and those after 0x0f. The tables are
// rules first and exceptions after, as in the opcode maps of Intel's manual
// (volume 2, appendix A).
var one, two = opcodes()

func opcodes() (one, two [256]uint8) {
	set := func(t *[256]uint8, v uint8, at ...int) {
		for _, i := range at {
			t[i] = v
		}
	}
	span := func(t *[256]uint8, v uint8, from, to int) {
		for i := from; i < to; i++ {
			t[i] = v
		}
	}
	arithmetic := [8]uint8{modrm, modrm, modrm, modrm, imm8, immz, bad, bad}
	for i := range 0x40 {
		one[i] = arithmetic[i&7]
	}
	set(&one, prefix, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3)
	set(&one, bad, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea)
	span(&one, imm8, 0x70, 0x80)
	span(&one, modrm, 0x84, 0x90)
	span(&one, moffs, 0xa0, 0xa4)
	span(&one, imm8, 0xb0, 0xb8)
	span(&one, immz, 0xb8, 0xc0)
	span(&one, modrm, 0xd0, 0xd4)
	span(&one, modrm, 0xd8, 0xe0)
	span(&one, imm8, 0xe0, 0xe8)
	set(&one, modrm, 0x63, 0xf6, 0xf7, 0xfe, 0xff)
	set(&one, immz, 0x68, 0xa9)
	set(&one, imm8, 0x6a, 0xa8, 0xcd, 0xeb)
	set(&one, modrm|immz, 0x69, 0x81, 0xc7)
	set(&one, modrm|imm8, 0x6b, 0x80, 0x83, 0xc0, 0xc1, 0xc6)
	set(&one, imm16, 0xc2, 0xca)
	set(&one, imm16|imm8, 0xc8)
	set(&one, rel32, 0xe8, 0xe9)

	span(&two, modrm, 0, 256)
	set(&two, 0, 5, 6, 7, 8, 9, 0xb, 0xe, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa)
	span(&two, 0, 0xc8, 0xd0)
	span(&two, rel32, 0x80, 0x90)
	set(&two, modrm|imm8, 0xf, 0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6)
	set(&two, bad, 4, 0xa, 0xc, 0x24, 0x25, 0x26, 0x27, 0x36, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f)
	return one, two
}

// instruction is what decode finds out. Offsets are from the instruction's
// start; 0 means there is none.
type instruction struct {
	size     uint8
	field    uint8 // of 4 bytes relative to the instruction's end
	after    uint8 // bytes of the instruction after field
	absolute uint8 // of 4 bytes that may be an address
	branch   bool  // field is the target of a branch
}

// maxInstruction is the longest instruction in bytes.
const maxInstruction = 15

// decode reads the instruction at the start of b. Its size is 0 if there is
// none, or if b ends before it does.
func decode(b []byte) (in instruction) {
	limit := min(len(b), maxInstruction)
	i, short := 0, false
	for ; i < limit && one[b[i]] == prefix; i++ {
		short = short || b[i] == 0x66
	}
	wide := false
	if i < limit && b[i]&0xf0 == 0x40 { // REX
		wide = b[i]&8 != 0
		i++
	}
	if i >= limit {
		return in
	}
	op := b[i]
	i++
	var rule uint8
	first := false // op is of the one-byte map
	switch op {
	case 0x0f:
		if i >= limit {
			return in
		}
		op = b[i]
		i++
		switch op {
		case 0x38, 0x3a:
			rule = modrm
			if op == 0x3a {
				rule = modrm | imm8
			}
			if i >= limit {
				return in
			}
			op = b[i]
			i++
		default:
			rule = two[op]
		}
	case 0xc5, 0xc4, 0x62: // VEX, EVEX
		n, table := 1, byte(1)
		switch op {
		case 0xc4:
			n = 2
		case 0x62:
			n = 3
		}
		if i+n >= limit {
			return in
		}
		if op == 0xc4 {
			table = b[i] & 0x1f
		} else if op == 0x62 {
			table = b[i] & 7
		}
		evex := op == 0x62
		i += n
		op = b[i]
		i++
		switch table {
		case 1:
			rule = two[op] &^ rel32
			if evex || op != 0x77 {
				rule |= modrm
			}
		case 2, 5, 6:
			rule = modrm
		case 3:
			rule = modrm | imm8
		default:
			return in
		}
	default:
		rule, first = one[op], true
	}
	if rule&(bad|prefix) != 0 {
		return in
	}
	z := 4
	if short && !wide {
		z = 2
	}
	imm := 0
	if rule&imm8 != 0 {
		imm++
	}
	if rule&imm16 != 0 {
		imm += 2
	}
	if rule&immz != 0 {
		if first && wide && op >= 0xb8 && op < 0xc0 {
			imm = 8
		} else {
			imm += z
		}
	}
	if rule&moffs != 0 {
		imm = 8
	}
	if rule&modrm != 0 {
		if i >= limit {
			return in
		}
		m := b[i]
		i++
		mod, rm := m>>6, m&7
		if first && m>>3&7 < 2 { // test
			if op == 0xf6 {
				imm = 1
			} else if op == 0xf7 {
				imm = z
			}
		}
		if mod != 3 {
			based := true
			if rm == 4 {
				if i >= limit {
					return in
				}
				based = b[i]&7 != 5
				i++
			}
			switch {
			case mod == 0 && rm == 5:
				in.field, in.after = uint8(i), uint8(imm)
				i += 4
			case mod == 2, mod == 0 && !based:
				in.absolute = uint8(i)
				i += 4
			case mod == 1:
				i++
			}
		}
	}
	if rule&rel32 != 0 {
		in.field, in.branch = uint8(i), true
		i += 4
	}
	if imm == 4 && rule&immz != 0 {
		in.absolute = uint8(i)
	}
	i += imm
	if i > limit {
		return instruction{}
	}
	in.size = uint8(i)
	return in
}
