package layout

import "testing"

// BenchmarkRunning is what reading the kernel's types costs once per process; the
// library keeps them, so only the first round counts: -benchtime 1x.
func BenchmarkRunning(b *testing.B) {
	for b.Loop() {
		k, err := Running()
		if Missing(err) {
			b.Skip("this kernel doesn't describe its types")
		}
		if err != nil {
			b.Fatal(err)
		}
		if k.Field("task_struct", "tgid"); k.Err() != nil {
			b.Fatal(k.Err())
		}
	}
}
