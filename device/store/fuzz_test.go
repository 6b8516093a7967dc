package store

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// FuzzSet: whatever a set's document holds, what is accepted is a set that can
// be written again, and names that stay in their folder.
func FuzzSet(f *testing.F) {
	whole, err := json.Marshal(setDocument{setSchema, sampleSet("SI-2026-0001", "t")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"schema":"sealant.set/1"}`))
	f.Add(bytes.Replace(whole, []byte("web"), []byte("../"), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		var doc setDocument
		if decodeDocument(data, "set.json", setSchema, &doc) != nil || doc.check() != nil {
			return
		}
		if checkWord(doc.ID) != nil || len(doc.Cryptexes) == 0 {
			t.Errorf("accepted: %s", data)
		}
		again, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		var back setDocument
		if err := decodeDocument(again, "set.json", setSchema, &back); err != nil {
			t.Errorf("can't be read back: %v", err)
		}
	})
}

// FuzzHistory: no content makes reading or appending fail otherwise than by an
// error, and what was appended to a whole history is whole.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-11-23T18:00:00Z","event":"staged","reason":"asked","actor":"auto","prev":""}` + "\n"))
	f.Add([]byte("\n\n"))
	f.Add([]byte(`{"seq":`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path("history"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		before, wasBroken := s.History()
		if err := s.Append(Record{Event: "x", Reason: "y", Actor: "auto"}); err != nil {
			return
		}
		after, err := s.History()
		if wasBroken == nil && (err != nil || len(after) != len(before)+1) {
			t.Errorf("%d records, then %d: %v", len(before), len(after), err)
		}
	})
}
