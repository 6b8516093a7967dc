package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/release"
	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/server/store"
	"github.com/sealant-os/sealant/server/store/storetest"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

// asSealsrv makes the test's own binary be sealsrv.
const asSealsrv = "SEALSRV_BENCHMARK"

// beSealsrv runs sealsrv instead of tests, and writes a profile of it to the
// file that SEALSRV_PROFILE names.
func beSealsrv() {
	name := os.Getenv("SEALSRV_PROFILE")
	if name == "" || !slices.Contains(os.Args, "serve") {
		cli.Main(root())
	}
	f, err := os.Create(name)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	exit(err)
	code := cli.Run(root(), os.Args[1:], os.Stdout, os.Stderr)
	pprof.StopCPUProfile()
	os.Exit(code)
}

// BenchmarkServe measures the whole cost of a ticket: a sealsrv serve in a
// process of its own, 64 devices on kept TLS connections, each ticket for a
// fresh nonce, its row on disk. First as fast as it goes: tickets/s and the
// server's processor time per ticket. Then at half that rate, with arrivals at
// random moments: p50 and p99. BenchmarkSignature in package server is the peer.
func BenchmarkServe(b *testing.B) {
	for name, database := range map[string]func(testing.TB) string{
		"sqlite":   func(tb testing.TB) string { return filepath.Join(tb.TempDir(), "fleet.db") },
		"postgres": storetest.Postgres,
	} {
		for _, how := range []string{"certificate", "signature"} {
			b.Run(name+"/"+how, func(b *testing.B) { benchmarkServe(b, database(b), how == "signature") })
		}
	}
}

const benchDevices = 64

func benchmarkServe(b *testing.B, database string, sign bool) {
	f := newFleet(b, database, sign)
	// Rounds of tickets and rounds of bare signatures take turns, so that both
	// meet the same machine: its clock, its caches, its other guests.
	const rounds, seconds = 6, 0.7
	list := f.prepare(b, 20_000)
	b.ResetTimer()
	var took int
	var elapsed, cpu, bare time.Duration
	for range rounds {
		bare += bareSignature(b, 100)
		before, begun := f.cpu(b), time.Now()
		n := len(f.flood(b, list, begun.Add(time.Duration(seconds*float64(time.Second)))))
		elapsed += time.Since(begun)
		cpu += f.cpu(b) - before
		took, list = took+n, list[n+benchDevices:] // as many may have been taken too late
	}
	most := float64(took) / elapsed.Seconds()
	b.ReportMetric(most, "tickets/s")
	b.ReportMetric(float64(took)/cpu.Seconds(), "tickets/s/core")
	ticket := float64(cpu.Microseconds()) / float64(took)
	b.ReportMetric(ticket, "server-cpu-µs/ticket")
	b.ReportMetric(ticket/(float64(bare.Nanoseconds())/1000/rounds), "x-bare-signature")
	half := f.trickle(b, f.prepare(b, int(most/2*3)), most/2)
	slices.Sort(half)
	b.ReportMetric(half[len(half)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(half[len(half)*99/100].Seconds()*1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// bareSignature is the processor time of one P-384 signature as the server
// makes them, with every core signing, as the flood keeps every core busy.
func bareSignature(b *testing.B, each int) time.Duration {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha512.Sum384([]byte("ticket"))
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := used()
	var all sync.WaitGroup
	for range runtime.NumCPU() {
		all.Go(func() {
			for range each {
				if _, err := key.Sign(nil, digest[:], crypto.SHA384); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return (used() - begun) / time.Duration(each*runtime.NumCPU())
}

// fleet is a running server and devices that ask it.
type fleet struct {
	url     string
	pid     int
	keys    []*ecdsa.PrivateKey
	clients []*http.Client
	sign    bool
	nonce   int
}

// asked is one request that is ready to be sent.
type asked struct {
	device int
	body   []byte
	sig    identity.Signature
}

func newFleet(b *testing.B, database string, sign bool) *fleet {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "vendor")
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(labVendor(dir, 1, 1))
	pool := benchTLS(b, dir)
	config := fmt.Sprintf(`listen = "127.0.0.1:0"
database = %q
repository = "repo"
root = "root.json"
state = "state"
[tls]
cert = "tls.pem"
key = "tls.key"
[tickets]
root = "ticket-root.pem"
leaf = "leaf.pem"
[keys]
online = ["keys/online/rollout.key", "keys/online/snapshot.key", "keys/online/timestamp.key"]
[limits]
burst = 1000000
tickets_per_hour = 1000000
`, database)
	must(os.WriteFile(filepath.Join(dir, "sealsrv.toml"), []byte(config), 0o644))
	f := &fleet{sign: sign}
	run := func(args ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], append(args, "--config", filepath.Join(dir, "sealsrv.toml"))...)
		cmd.Env = append(os.Environ(), asSealsrv+"=1")
		cmd.Stderr = io.Discard
		return cmd
	}
	leaf := run("leaf", "new", "--root", filepath.Join(dir, "ticket-root.pem"), "--key", filepath.Join(dir, "keys", "ticket-root.key"), "--out", filepath.Join(dir, "leaf.pem"))
	must(leaf.Run())
	must(run("rollout", "start", servertest.ID(1), "--percent", "100").Run())
	serve := run("serve")
	out, err := serve.StdoutPipe()
	must(err)
	must(serve.Start())
	b.Cleanup(func() {
		serve.Process.Signal(os.Interrupt)
		serve.Wait()
	})
	f.pid = serve.Process.Pid
	line, err := bufio.NewReader(out).ReadString('\n')
	must(err)
	f.url = strings.TrimSpace(line)

	db, err := store.Open(b.Context(), database)
	must(err)
	defer db.Close()
	secret, _, err := db.NewToken(b.Context(), "bench", benchDevices, time.Now(), time.Now().Add(time.Hour))
	must(err)
	base := servertest.Baseline()
	for range benchDevices {
		key, err := identity.NewKey(rand.Reader)
		must(err)
		spki, err := identity.MarshalPublic(key.Public())
		must(err)
		id, err := identity.IDOf(key.Public())
		must(err)
		_, err = db.Enrol(b.Context(), secret, store.Device{ID: id, Key: spki, Product: base.Product, Baseline: base.Digest()}, time.Now())
		must(err)
		tlsConfig := &tls.Config{RootCAs: pool}
		if !sign {
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(50, 0, 0)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			must(err)
			tlsConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		}
		f.keys = append(f.keys, key)
		f.clients = append(f.clients, &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConnsPerHost: 4}})
	}
	// The connections stand before anything is measured.
	for _, a := range f.prepare(b, benchDevices) {
		if _, err := f.send(a); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

// benchTLS makes the server's own certificate.
func benchTLS(b *testing.B, dir string) *x509.CertPool {
	b.Helper()
	key, err := identity.NewKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	private, err := identity.MarshalKey(key)
	if err != nil {
		b.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"tls.pem": cert, "tls.key": private} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// prepare makes requests, so that what a device does is not measured.
func (f *fleet) prepare(b *testing.B, n int) []asked {
	b.Helper()
	base := servertest.Baseline()
	list := make([]asked, n)
	for i := range list {
		a := &list[i]
		a.device = i % benchDevices
		f.nonce++
		nonce := servertest.Nonce(f.nonce)
		var err error
		a.body, err = json.Marshal(server.TicketRequest{
			Product: base.Product, Baseline: release.Digest(base.Digest()).String(), Release: servertest.ID(1),
			Domain: ticket.Domain, Nonce: hex.EncodeToString(nonce[:]),
		})
		if err == nil && f.sign {
			a.sig, err = identity.SignRequest(f.keys[a.device], "POST", "/v1/tickets", a.body, time.Now())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return list
}

// send sends one request and returns how long the answer took.
func (f *fleet) send(a asked) (time.Duration, error) {
	req, err := http.NewRequest("POST", f.url+"/v1/tickets", bytes.NewReader(a.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if f.sign {
		req.Header.Set(identity.DeviceHeader, a.sig.Device)
		req.Header.Set(identity.DateHeader, a.sig.Date)
		req.Header.Set(identity.SignatureHeader, a.sig.Signature)
	}
	begun := time.Now()
	resp, err := f.clients[a.device].Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return time.Since(begun), err
}

// flood sends as fast as the devices can, each one request at a time, until
// the moment end.
func (f *fleet) flood(b *testing.B, list []asked, end time.Time) []time.Duration {
	b.Helper()
	var next atomic.Int64
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	for range benchDevices {
		wg.Go(func() {
			var own []time.Duration
			for i := next.Add(1) - 1; i < int64(len(list)) && time.Now().Before(end); i = next.Add(1) - 1 {
				d, err := f.send(list[i])
				if err != nil {
					b.Error(err)
					break
				}
				own = append(own, d)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	wg.Wait()
	return all
}

// trickle sends at a rate, at random moments, whether or not earlier requests
// were answered: as a fleet does that does not know how busy the server is.
func (f *fleet) trickle(b *testing.B, list []asked, perSecond float64) []time.Duration {
	b.Helper()
	took := make([]time.Duration, len(list))
	var wg sync.WaitGroup
	at := time.Now()
	for i, a := range list {
		at = at.Add(time.Duration(mathrand.ExpFloat64() / perSecond * float64(time.Second)))
		time.Sleep(time.Until(at))
		wg.Go(func() {
			due := at
			if _, err := f.send(a); err != nil {
				b.Error(err)
			}
			took[i] = time.Since(due)
		})
	}
	wg.Wait()
	return took
}

// cpu is the processor time that the server has used: of its threads, which Go
// keeps, to the nanosecond.
func (f *fleet) cpu(b *testing.B) (sum time.Duration) {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", f.pid))
	if err != nil || len(threads) == 0 {
		b.Fatal("the server is gone", err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		own, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(own, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n)
	}
	return sum
}
