package servertest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/sealant-os/sealant/server"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/ticket"
)

// Device is a device as the server sees it: a key, and a baseline.
type Device struct {
	Key   *ecdsa.PrivateKey
	ID    identity.ID
	world *World
}

// Device makes a device that never enrolled.
func (w *World) Device() *Device {
	w.tb.Helper()
	key, err := identity.NewKey(rand.Reader)
	w.must(err)
	id, err := identity.IDOf(key.Public())
	w.must(err)
	return &Device{Key: key, ID: id, world: w}
}

// Nonce is the n-th nonce of any device.
func Nonce(n int) [48]byte { return sha512.Sum384(fmt.Appendf(nil, "nonce %d", n)) }

// Answer is what the server said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Code is the stable code of a problem, "" for a success.
func (a Answer) Code() string {
	var p server.Problem
	if a.Status == http.StatusOK || json.Unmarshal(a.Body, &p) != nil {
		return ""
	}
	return p.Code
}

// String shows an answer in a test's message.
func (a Answer) String() string { return fmt.Sprintf("%d %s", a.Status, bytes.TrimSpace(a.Body)) }

// Post signs a body and sends it; tamper may change the request first.
func (d *Device) Post(n *Node, path string, body any, tamper ...func(*http.Request)) Answer {
	d.world.tb.Helper()
	data, ok := body.([]byte)
	if !ok {
		var err error
		data, err = json.Marshal(body)
		d.world.must(err)
	}
	sig, err := identity.SignRequest(d.Key, "POST", path, data, d.world.Now())
	d.world.must(err)
	req, err := http.NewRequest("POST", n.HTTP.URL+path, bytes.NewReader(data))
	d.world.must(err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(identity.DeviceHeader, sig.Device)
	req.Header.Set(identity.DateHeader, sig.Date)
	req.Header.Set(identity.SignatureHeader, sig.Signature)
	for _, f := range tamper {
		f(req)
	}
	return n.Do(req)
}

// Do sends any request.
func (n *Node) Do(req *http.Request) Answer {
	n.World.tb.Helper()
	resp, err := n.HTTP.Client().Do(req)
	if err != nil {
		n.World.tb.Error(err)
		return Answer{}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.World.tb.Error(err)
	}
	return Answer{resp.StatusCode, resp.Header, data}
}

// Get fetches a path.
func (n *Node) Get(path string, change ...func(*http.Request)) Answer {
	n.World.tb.Helper()
	req, err := http.NewRequest("GET", n.HTTP.URL+path, nil)
	n.World.must(err)
	for _, f := range change {
		f(req)
	}
	return n.Do(req)
}

// Enrolment is the body of the device's enrolment.
func (d *Device) Enrolment(token string) server.Enrolment {
	key, err := identity.MarshalPublic(d.Key.Public())
	d.world.must(err)
	return server.Enrolment{Token: token, PublicKey: key, Product: Product, Baseline: d.world.Baseline.Digest().String()}
}

// Enrol enrols the device by a token.
func (d *Device) Enrol(n *Node, token string) Answer {
	d.world.tb.Helper()
	return d.Post(n, "/v1/enroll", d.Enrolment(token))
}

// Request is the body that asks for a ticket: of a release, or of the baseline
// with level 0.
func (d *Device) Request(level, nonce int) server.TicketRequest {
	r := server.TicketRequest{Product: Product, Baseline: d.world.Baseline.Digest().String(), Domain: ticket.Domain}
	if level > 0 {
		value := Nonce(nonce)
		r.Release, r.Nonce = ID(level), hex.EncodeToString(value[:])
	}
	return r
}

// Ask asks for a ticket.
func (d *Device) Ask(n *Node, level, nonce int) Answer {
	d.world.tb.Helper()
	return d.Post(n, "/v1/tickets", d.Request(level, nonce))
}

// Expect is what the device expects of its ticket.
func (d *Device) Expect(level, nonce int) ticket.Expect {
	e := ticket.Expect{Device: d.ID, Product: Product, Baseline: d.world.Baseline.Digest(), AnySet: true}
	if level == 0 {
		e.OfBaseline = true
		return e
	}
	e.Release, e.Nonce = ID(level), Nonce(nonce)
	return e
}

// Enrolled makes a device and enrols it.
func (n *Node) Enrolled() *Device {
	n.World.tb.Helper()
	d := n.World.Device()
	if a := d.Enrol(n, n.Token(1)); a.Status != http.StatusOK {
		n.World.tb.Fatalf("cannot enrol: %s", a)
	}
	return d
}
