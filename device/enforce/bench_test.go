package enforce

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// programs are those that are pinned.
func (g *Guard) programs(t testing.TB) []*ebpf.Program {
	t.Helper()
	var all []*ebpf.Program
	for _, h := range hooks {
		l, err := link.LoadPinnedLink(filepath.Join(g.dir, linkPrefix+h.name), nil)
		must(t, err)
		info, err := l.Info()
		must(t, err)
		must(t, l.Close())
		p, err := ebpf.NewProgramFromID(info.Program)
		must(t, err)
		t.Cleanup(func() { p.Close() })
		all = append(all, p)
	}
	return all
}

// BenchmarkExec is what starting a process costs: alone, with the programs in the
// kernel, and from a guarded cryptex. kernel-ns/op is the time of the programs
// alone, over all hooks that one start passes.
func BenchmarkExec(b *testing.B) {
	start := func(path string) func(b *testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				if err := exec.Command(path).Run(); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("alone", start("/usr/bin/true"))
	g := guard(b)
	c := build(b, "web")
	must(b, g.Admit(c.root, c.list))
	must(b, g.SetMode(Enforce))
	programs := g.programs(b)
	measured := func(run func(b *testing.B)) func(b *testing.B) {
		return func(b *testing.B) {
			stats, err := ebpf.EnableStats(0) // BPF_STATS_RUN_TIME
			must(b, err)
			defer stats.Close()
			spent := func() (all time.Duration) {
				for _, p := range programs {
					s, err := p.Stats()
					must(b, err)
					all += s.Runtime
				}
				return all
			}
			before := spent()
			run(b)
			b.ReportMetric(float64(spent()-before)/float64(b.N), "kernel-ns/op")
		}
	}
	b.Run("guarded/base", start("/usr/bin/true"))
	b.Run("guarded/cryptex", start(c.path("listed")))
	b.Run("counted/base", measured(start("/usr/bin/true")))
	b.Run("counted/cryptex", measured(start(c.path("listed"))))
}
