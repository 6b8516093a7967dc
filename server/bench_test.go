package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store/storetest"
	"github.com/sealant-os/sealant/trust/identity"
)

// BenchmarkSignature is the peer: what a ticket can't cost less than, one
// signature with P-384 of which everything around it is counted in.
func BenchmarkSignature(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha512.Sum384([]byte("ticket"))
	cpu := usedCPU(b)
	for b.Loop() {
		if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((usedCPU(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/signature")
}

// BenchmarkTicket asks for tickets over HTTP on kept connections, each for a
// fresh nonce: request signature, checks, signature, database, audit row on disk.
// The requests are made before the clock starts. CPU is that of the whole
// process, client included.
func BenchmarkTicket(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkTicket(b, sqlite(b)) })
	b.Run("postgres", func(b *testing.B) { benchmarkTicket(b, storetest.Postgres(b)) })
}

// askers is how many devices ask at the same time.
const askers = 64

func benchmarkTicket(b *testing.B, database string) {
	w := servertest.New(b)
	w.Release(1, 100)
	n := w.Start(database, func(c *server.Config) { c.Burst, c.PerHour = 1<<30, 1<<31-1 })
	devices := make([]*servertest.Device, askers)
	for i := range devices {
		devices[i] = n.Enrolled()
	}
	requests := make([]*http.Request, b.N)
	for i := range requests {
		requests[i] = signedRequest(b, n, devices[i%askers], i)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: askers}}
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	cpu := usedCPU(b)
	for range askers {
		wg.Go(func() {
			var own []time.Duration
			for {
				i := next.Add(1) - 1
				if i >= int64(len(requests)) {
					break
				}
				begun := time.Now()
				resp, err := client.Do(requests[i])
				if err != nil {
					b.Error(err)
					break
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Errorf("%d %s %v", resp.StatusCode, body, err)
					break
				}
				own = append(own, time.Since(begun))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
		})
	}
	wg.Wait()
	b.StopTimer()
	cpu = usedCPU(b) - cpu
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	b.ReportMetric(float64(cpu.Microseconds())/float64(len(took)), "cpu-µs/ticket")
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "tickets/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// signedRequest is the i-th request, signed and ready to be sent.
func signedRequest(b *testing.B, n *servertest.Node, d *servertest.Device, i int) *http.Request {
	b.Helper()
	body, err := json.Marshal(d.Request(1, i))
	if err != nil {
		b.Fatal(err)
	}
	sig, err := identity.SignRequest(d.Key, "POST", "/v1/tickets", body, n.World.Now())
	if err != nil {
		b.Fatal(err)
	}
	req, err := http.NewRequest("POST", n.HTTP.URL+"/v1/tickets", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(identity.DeviceHeader, sig.Device)
	req.Header.Set(identity.DateHeader, sig.Date)
	req.Header.Set(identity.SignatureHeader, sig.Signature)
	return req
}

// usedCPU is the processor time that this process has used.
func usedCPU(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
