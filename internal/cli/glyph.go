package cli

import (
	"fmt"

	"github.com/sealant-os/sealant/internal/amount"
)

// The glyphs: each has a word beside it wherever it is printed, an ASCII form
// for other locales, and a colour that only repeats it.

func (s *Screen) glyph(utf, ascii string, color int) string {
	g := ascii
	if s.UTF8 {
		g = utf
	}
	return s.paint(g, color)
}

func (s *Screen) paint(text string, color int) string {
	if !s.Color {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", color, text)
}

const (
	red    = 31
	green  = 32
	yellow = 33
	dim    = 2
	bold   = 1
)

// Good marks what was checked and holds.
func (s *Screen) Good() string { return s.glyph("✓", "ok", green) }

// Bad marks what was checked and does not hold.
func (s *Screen) Bad() string { return s.glyph("✗", "x", red) }

// Warn marks what a person should know.
func (s *Screen) Warn() string { return s.paint("!", yellow) }

// Full, Half and Empty say how far an improvement is active.
func (s *Screen) Full() string { return s.glyph("●", "*", green) }

// Half is active in part.
func (s *Screen) Half() string { return s.glyph("◐", "~", yellow) }

// Empty is not active.
func (s *Screen) Empty() string { return s.glyph("○", "o", yellow) }

// Dash stands for "nothing".
func (s *Screen) Dash() string { return s.glyph("–", "-", 0) }

// Dot separates facts on one line.
func (s *Screen) Dot() string { return s.glyph("·", "-", 0) }

// Arrow leads from an old to a new.
func (s *Screen) Arrow() string { return s.glyph("→", "->", 0) }

// Ellipsis stands for what was cut.
func (s *Screen) Ellipsis() string { return s.glyph("…", "..", 0) }

// Strong is bold where the terminal can.
func (s *Screen) Strong(text string) string { return s.paint(text, bold) }

// Faint is dim where the terminal can.
func (s *Screen) Faint(text string) string { return s.paint(text, dim) }

// Alarm is red where the terminal can.
func (s *Screen) Alarm(text string) string { return s.paint(text, red) }

// Short cuts a digest in hexadecimal to its ends: "3fa1…c07e".
func (s *Screen) Short(hex string) string {
	if len(hex) <= 9 {
		return hex
	}
	return hex[:4] + s.Ellipsis() + hex[len(hex)-4:]
}

// Bytes is a size for people: "29 025 bytes", "4.1 MB".
func Bytes(n int64) string { return amount.Bytes(n) }
