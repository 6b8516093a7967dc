package server_test

import (
	"encoding/json"
	"testing"

	"github.com/sealant-os/sealant/server"
)

// FuzzTicketRequest compares the server's own reading with encoding/json's:
// what it accepts must be read alike there, unknown members refused.
func FuzzTicketRequest(f *testing.F) {
	for _, s := range []string{
		`{"product":"ExampleOS","baseline":"ab","release":"SI-2026-0001","domain":1,"nonce":""}`,
		` { "nonce" : "\u0061\"}," , "domain" : 4294967295 , "product":"\\", "release":"","baseline":"ÿ"} `,
		`{"product":"a","product":"b"}`, `{"domain":-1}`, `{"domain":1e2}`, `{}`, `[]`, `null`, `{"\u0070roduct":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var own server.TicketRequest
		if json.Unmarshal(data, &own) != nil || string(data) == "null" {
			return
		}
		type plain server.TicketRequest
		var peer plain
		if err := json.Unmarshal(data, &peer); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", data, err)
		}
		again, _ := json.Marshal(own)
		want, _ := json.Marshal(peer)
		if string(again) != string(want) {
			t.Errorf("read %s, encoding/json %s", again, want)
		}
	})
}
