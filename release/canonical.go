package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"unicode/utf8"
)

// maxInteger is the largest integer that every JSON reader keeps exactly.
const maxInteger = 1<<53 - 1

// document is what every document of this package can do.
type document interface{ validate() error }

// encode validates a document and returns its canonical bytes.
func encode(kind string, limit int, d document) ([]byte, error) {
	if err := d.validate(); err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", kind, err)
	}
	data, err := canonical(d)
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", kind, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("cannot write %s: %d bytes, the limit is %d", kind, len(data), limit)
	}
	return data, nil
}

// parse fills d from canonical bytes, or says what is wrong with them.
func parse(kind string, limit int, data []byte, d document) error {
	if len(data) > limit {
		return fmt.Errorf("cannot read %s: %d bytes, the limit is %d", kind, len(data), limit)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(d); err != nil {
		return fmt.Errorf("cannot read %s: %w", kind, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot read %s: more bytes after the document", kind)
	}
	if err := d.validate(); err != nil {
		return fmt.Errorf("cannot read %s: %w", kind, err)
	}
	again, err := canonical(d)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", kind, err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("cannot read %s: not in canonical form (first difference at byte %d)", kind, difference(again, data))
	}
	return nil
}

// difference is the index of the first byte in which a and b differ.
func difference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// canonical encodes v by RFC 8785, which for documents of integers, booleans
// and strings comes down to: members sorted by name (names here are ASCII), no
// white space, and only the escapes that JSON demands.
func canonical(v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	return appendCanonical(nil, tree)
}

func appendCanonical(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		if v {
			return append(b, "true"...), nil
		}
		return append(b, "false"...), nil
	case json.Number:
		if n, err := v.Int64(); err != nil || n > maxInteger || n < -maxInteger {
			return nil, fmt.Errorf("%s is not an integer below 2^53", v)
		}
		return append(b, v.String()...), nil
	case string:
		return appendString(b, v), nil
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendCanonical(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names)
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, name), ':')
			if b, err = appendCanonical(b, v[name]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("cannot encode a %T", v)
}

// appendString writes a JSON string with the fewest escapes.
func appendString(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
