package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// TicketRequest is the body of POST /v1/tickets.
type TicketRequest struct {
	Product  string `json:"product" minLength:"1" maxLength:"64" doc:"The product that the device was enrolled as."`
	Baseline string `json:"baseline" pattern:"^[0-9a-f]{96}$" doc:"Digest of its baseline document, SHA-384 in hexadecimal."`
	Release  string `json:"release" maxLength:"64" doc:"Id of the improvement; empty for the baseline itself."`
	Domain   uint32 `json:"domain" doc:"Nonce domain; 1 is the only one in use."`
	Nonce    string `json:"nonce" pattern:"^([0-9a-f]{96})?$" doc:"The device's nonce in hexadecimal; empty for the baseline itself."`
}

// UnmarshalJSON implements json.Unmarshaler. Requests for tickets are what this
// server reads most, and huma would read each one twice and compare it with its
// schema. So they are read here, once and as strictly: exactly these members,
// each once, of these types. What their texts mean is checked where they are
// used.
func (r *TicketRequest) UnmarshalJSON(data []byte) error {
	texts := [...]struct {
		name string
		to   *string
	}{{"product", &r.Product}, {"baseline", &r.Baseline}, {"release", &r.Release}, {"nonce", &r.Nonce}}
	var have uint
	err := members(data, func(name, value []byte) error {
		bit := uint(1) << len(texts)
		if string(name) != "domain" {
			i := 0
			for i < len(texts) && string(name) != texts[i].name {
				i++
			}
			bit = 1 << i
			if i == len(texts) {
				return fmt.Errorf("there is no member %.20q", name)
			}
			if err := text(value, texts[i].to); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		} else {
			n, err := strconv.ParseUint(string(value), 10, 32)
			if err != nil {
				return errors.New("domain: not an integer below 2^32")
			}
			r.Domain = uint32(n)
		}
		if have&bit != 0 {
			return fmt.Errorf("%s is there twice", name)
		}
		have |= bit
		return nil
	})
	if err == nil && have != 1<<(len(texts)+1)-1 {
		err = errors.New("a member is missing: product, baseline, release, domain or nonce")
	}
	return err
}

// text reads a JSON string.
func text(value []byte, to *string) error {
	if value[0] != '"' {
		return errors.New("not a string")
	}
	if !bytes.ContainsFunc(value, func(r rune) bool { return r == '\\' || r > '~' }) {
		*to = string(value[1 : len(value)-1])
		return nil
	}
	return json.Unmarshal(value, to)
}

// members calls do for each member of a JSON object whose values are strings
// and numbers. The data must be valid JSON, as it is where encoding/json calls
// an Unmarshaler; names with escapes are taken as they are written.
func members(data []byte, do func(name, value []byte) error) error {
	data = trimLeft(data)
	if len(data) == 0 || data[0] != '{' {
		return errors.New("not an object")
	}
	data = trimLeft(data[1:])
	for data[0] != '}' {
		n := stringEnd(data)
		name := data[1 : n-1]
		data = trimLeft(trimLeft(data[n:])[1:]) // the colon
		switch c := data[0]; {
		case c == '"':
			n = stringEnd(data)
		case c == '-' || '0' <= c && c <= '9':
			n = bytes.IndexAny(data, " \t\r\n,}")
		default:
			return fmt.Errorf("%.20s is neither a string nor a number", name)
		}
		if err := do(name, data[:n]); err != nil {
			return err
		}
		if data = trimLeft(data[n:]); data[0] == ',' {
			data = trimLeft(data[1:])
		}
	}
	return nil
}

// stringEnd is the length of the JSON string that data begins with.
func stringEnd(data []byte) int {
	for i := 1; ; i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// trimLeft removes JSON's white space.
func trimLeft(data []byte) []byte {
	for len(data) > 0 && (data[0] == ' ' || data[0] == '\t' || data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	return data
}
