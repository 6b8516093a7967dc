package elfref

// pclntab says whether a section is called as those are that golang looks into.
func (s *section) pclntab() bool {
	return s.name == ".gopclntab" || s.name == ".data.rel.ro.gopclntab"
}

// golang finds the references in the pclntab of a Go program (Go 1.18 and 1.20
// formats, 8-byte pointers): see runtime/symtab.go in Go's sources.
func (c *collector) golang() {
	s := c.named(".gopclntab")
	if s == nil {
		s = c.named(".data.rel.ro.gopclntab")
	}
	text, ro := c.named(".text"), c.named(".rodata")
	if s == nil || text == nil || ro == nil {
		return
	}
	if s.kind == typeNobits || s.off+s.size > c.Size || s.size < 72 || s.size > 1<<31 {
		return
	}
	module := c.goModule(s)
	d := c.bytes(s)
	size := int64(len(d))
	if m := le.Uint32(d); m != 0xfffffff1 && m != 0xfffffff0 || d[7] != 8 {
		return
	}
	head := func(o int) int64 { return int64(le.Uint64(d[o:])) }
	count, textAddr := head(8), head(24)
	names, units, files, values, funcs := head(32), head(40), head(48), head(56), head(64)
	for _, v := range []int64{count, names, units, files, values, funcs} {
		if v < 0 || v > size {
			return
		}
	}
	if funcs+count*8+4 > size {
		return
	}
	code := c.Loads.At(text.off)
	if p, ok := c.Place(textAddr); ok && textAddr != 0 {
		code = p
	}
	start := c.Loads.At(s.off)
	first := int64(len(c.Bases))
	data, types := c.Loads.At(ro.off), c.Loads.At(ro.off)
	if p, ok := c.Place(module.funcs); ok && module.funcs != 0 {
		data = p
	}
	if p, ok := c.Place(module.types); ok && module.types != 0 {
		types = p
	}
	for i, p := range []Place{code, start + funcs, start + names, start + values, start + units, data, start + files, types} {
		c.Bases = append(c.Bases, p)
		c.Names = append(c.Names, "go "+string(rune('0'+i)))
	}
	const (
		byCode = iota
		byFuncs
		byNames
		byValues
		byUnits
		byData
		byFiles
		byTypes
	)
	const inlined = 3 // the funcdata that is a tree of inlined calls
	var starts, trees []int64
	add := func(off int64, class Class, base int64) { c.add(s.off+off, class, first+base) }
	for i := range count {
		o := funcs + i*8
		add(o, GoEntry, byCode)
		add(o+4, GoFunc, byFuncs)
		f := funcs + int64(le.Uint32(d[o+4:]))
		if f+44 > size {
			continue
		}
		add(f, GoFuncEntry, byCode)
		add(f+4, GoName, byNames)
		for k := range int64(3) {
			if le.Uint32(d[f+16+4*k:]) != 0 {
				add(f+16+4*k, GoTable, byValues)
			}
		}
		add(f+32, GoUnit, byUnits)
		q := f + 44
		for range le.Uint32(d[f+28:]) {
			if q+4 > size {
				break
			}
			if le.Uint32(d[q:]) != 0 {
				add(q, GoValue, byValues)
			}
			q += 4
		}
		for k := range d[f+43] {
			if q+4 > size {
				break
			}
			if v := le.Uint32(d[q:]); v != 0xffffffff {
				add(q, GoFuncData, byData)
				if starts = append(starts, int64(v)); k == inlined {
					trees = append(trees, int64(v))
				}
			}
			q += 4
		}
	}
	add(funcs+count*8, GoEntry, byCode)
	for o := units; o+4 <= files; o += 4 {
		if le.Uint32(d[o:]) != 0xffffffff {
			add(o, GoFile, byFiles)
		}
	}
	if module.funcs != 0 {
		c.goTrees(module.funcs, starts, trees, units-names, first+byNames)
	}
	if module.types != 0 {
		c.goTypes(module, first+byTypes, first+byCode)
	}
}
