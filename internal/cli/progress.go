package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Progress shows how far one long step has come: a line that redraws itself on
// a terminal, a line per 10 % elsewhere once it takes long, nothing with -q or
// --json. Its methods may be called from several goroutines.
type Progress struct {
	mu     sync.Mutex
	screen *Screen
	label  string
	total  int64 // bytes; 0 where it is not known
	done   int64
	begun  time.Time
	drawn  time.Time
	tenth  int64
	shown  bool
}

// redraw bounds how often a terminal line is drawn again; a step that ends
// within patience writes no lines where there is no terminal.
const (
	redraw   = 100 * time.Millisecond
	patience = 2 * time.Second
)

// Progress begins a step of total bytes.
func (s *Screen) Progress(label string, total int64) *Progress {
	return &Progress{screen: s, label: label, total: total, begun: time.Now()}
}

// Set says how many bytes of the step are done, and how many there are in all.
func (p *Progress) Set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
	if p.screen.Quiet || p.screen.JSON {
		return
	}
	now := time.Now()
	if p.screen.Live {
		if now.Sub(p.drawn) < redraw {
			return
		}
		p.drawn, p.shown = now, true
		fmt.Fprintf(p.screen.Err, "\r\x1b[K  %s", p.line(now))
		return
	}
	if total <= 0 || now.Sub(p.begun) < patience {
		return
	}
	if tenth := done * 10 / total; tenth > p.tenth && done < total {
		p.tenth = tenth
		fmt.Fprintf(p.screen.Err, "  %s %d %%\n", p.label, tenth*10)
	}
}

// Add counts n more bytes.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	done, total := p.done+n, p.total
	p.mu.Unlock()
	p.Set(done, total)
}

// End clears the line of a terminal; what comes next says how the step ended.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.screen.Err, "\r\x1b[K")
		p.shown = false
	}
}

// line is "download    ███████▌░░░ 3.2/4.1 MB  2.6 MB/s  ETA 1 s".
func (p *Progress) line(now time.Time) string {
	elapsed := now.Sub(p.begun).Seconds()
	rate := 0.0
	if elapsed > 0 {
		rate = float64(p.done) / elapsed
	}
	if p.total <= 0 {
		return fmt.Sprintf("%-11s %s  %s/s", p.label, Bytes(p.done), Bytes(int64(rate)))
	}
	eta := ""
	if rate > 0 && elapsed > 0.5 {
		left := float64(p.total-p.done) / rate
		eta = "  ETA " + (time.Duration(left+1) * time.Second).String()
	}
	width := min(24, max(8, p.screen.Width-60))
	return fmt.Sprintf("%-11s %s %s of %s  %s/s%s", p.label, p.bar(width), Bytes(p.done), Bytes(p.total), Bytes(int64(rate)), eta)
}

func (p *Progress) bar(width int) string {
	full, rest := "█", "░"
	if !p.screen.UTF8 {
		full, rest = "#", "."
	}
	n := int(int64(width) * min(p.done, p.total) / p.total)
	return strings.Repeat(full, n) + strings.Repeat(rest, width-n)
}
