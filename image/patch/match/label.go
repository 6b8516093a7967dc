package match

import (
	"hash/fnv"

	"github.com/sealant-os/sealant/image/patch/elfref"
)

// label gives places an identity that survives a new build: the name of the
// symbol that is there, or that is bound there when the program starts.
func (f *File) label() {
	f.labels = map[elfref.Place]uint64{}
	for _, e := range f.Elements {
		for _, s := range e.Symbols(f.Tables.Of(e)) {
			hash := fnv.New64a()
			hash.Write([]byte(s.Name))
			hash.Write([]byte{byte(s.Role)})
			h := hash.Sum64() | 1
			if _, twice := f.labels[s.Place]; twice {
				continue
			}
			f.labels[s.Place] = h
			if s.Role == elfref.Slot && s.Place < elfref.Unbacked {
				f.slots = append(f.slots, s.Place)
			}
		}
	}
}

// unique turns labels around; what several places share is nowhere.
func unique(labels map[elfref.Place]uint64) map[uint64]elfref.Place {
	places := make(map[uint64]elfref.Place, len(labels))
	for p, h := range labels {
		if _, twice := places[h]; twice {
			places[h] = -1
		} else {
			places[h] = p
		}
	}
	return places
}
