package exits

import (
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sealant-os/sealant/internal/linux"
)

// BenchmarkProcess is what starting and ending a process costs: alone, and while
// each source tells of it. kernel-ns/op is the time of the BPF programs, user-ns/op
// that of the reader, which the connector wakes for every process of the machine.
func BenchmarkProcess(b *testing.B) {
	if !linux.Root() {
		b.Skip("needs root")
	}
	run := func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("alone", run)
	b.Run("ebpf", func(b *testing.B) {
		source, err := OpenBPF()
		if err != nil {
			b.Fatal(err)
		}
		defer source.Close()
		stats, err := ebpf.EnableStats(uint32(unixStatsRunTime))
		if err != nil {
			b.Fatal(err)
		}
		defer stats.Close()
		read := reader(source)
		run(b)
		var kernel time.Duration
		for _, p := range source.attached {
			s, err := p.Stats()
			if err != nil {
				b.Fatal(err)
			}
			kernel += s.Runtime
		}
		b.ReportMetric(float64(kernel)/float64(b.N), "kernel-ns/op")
		b.ReportMetric(float64(read(source))/float64(b.N), "user-ns/op")
	})
	b.Run("connector", func(b *testing.B) {
		source, err := OpenConnector()
		if err != nil {
			b.Fatal(err)
		}
		read := reader(source)
		run(b)
		b.ReportMetric(float64(read(source))/float64(b.N), "user-ns/op")
	})
}

// unixStatsRunTime is BPF_STATS_RUN_TIME of linux/bpf.h.
const unixStatsRunTime = 0

// reader reads in a thread of its own and returns what ends it and tells its
// processor time.
func reader(source Source) func(Source) time.Duration {
	used := make(chan time.Duration, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread := func() time.Duration {
			var u syscall.Rusage
			syscall.Getrusage(1, &u) // RUSAGE_THREAD
			return time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		before := thread()
		for {
			if _, err := source.Read(); err != nil {
				used <- thread() - before
				return
			}
		}
	}()
	return func(s Source) time.Duration {
		s.Close()
		return <-used
	}
}

// BenchmarkCrash measures how long a crash takes the crashing program and whoever
// waits for it, with nobody watching and with a watcher that reads nothing.
func BenchmarkCrash(b *testing.B) {
	if !linux.Root() {
		b.Skip("needs root")
	}
	run := func(b *testing.B) {
		for b.Loop() {
			_ = exec.Command("/bin/sh", "-c", "ulimit -c 0; kill -SEGV $$").Run() // it fails, by design
		}
	}
	b.Run("alone", run)
	for name, open := range map[string]func() (Source, error){
		"ebpf":      func() (Source, error) { return OpenBPF() },
		"connector": func() (Source, error) { return OpenConnector() },
	} {
		b.Run(name, func(b *testing.B) {
			source, err := open()
			if err != nil {
				b.Fatal(err)
			}
			defer source.Close()
			run(b)
		})
	}
}
