package main

import "strings"

// limitedText keeps the beginning of what a program says.
type limitedText struct{ b strings.Builder }

func (l *limitedText) Write(p []byte) (int, error) {
	const most = 4 << 10
	if room := most - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// last is its last line, without what the screen puts before a failure.
func (l *limitedText) last() string {
	lines := strings.Split(strings.TrimSpace(l.b.String()), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "sealant: ")
}
