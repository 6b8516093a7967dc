package patch

import (
	"bytes"
	"testing"
)

func BenchmarkMake(b *testing.B) {
	old, data := program(b, "amd64", ""), program(b, "amd64", moreCode)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		make1(b, old, data)
	}
}

func BenchmarkApply(b *testing.B) {
	old, data := program(b, "amd64", ""), program(b, "amd64", moreCode)
	p := make1(b, old, data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Apply(&memory{}, bytes.NewReader(old), bytes.NewReader(p), ApplyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
