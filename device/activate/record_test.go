package activate

import (
	"encoding/json"
	"testing"

	"github.com/sealant-os/sealant/test/rig"
)

func TestRecordVectors(t *testing.T) {
	rig.DocumentVectors(t, "../../spec/vectors/run", "boot", func(name string, data []byte, ok bool) {
		if _, err := parseRecord(data); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	rig.DocumentVectors(f, "../../spec/vectors/run", "boot", func(_ string, data []byte, _ bool) { f.Add(data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecord(again); err != nil {
			t.Errorf("%q reads, but what it means doesn't: %v", data, err)
		}
	})
}
