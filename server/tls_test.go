package server_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sealant-os/sealant/server/servertest"
	"github.com/sealant-os/sealant/trust/identity"
)

// certificateOf is what a device shows in a TLS handshake: its key, signed by
// itself.
func certificateOf(t testing.TB, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(50, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestCertificateInPlaceOfSignature(t *testing.T) {
	w := servertest.New(t)
	w.Release(1, 100)
	n := w.Start(sqlite(t))
	d, other := n.Enrolled(), n.Enrolled()
	stranger := w.Device()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(n.Server)
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	defer srv.Close()
	ask := func(key crypto.Signer, header http.Header) servertest.Answer {
		t.Helper()
		config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		if key != nil {
			config.Certificates = []tls.Certificate{certificateOf(t, key)}
		}
		body, err := json.Marshal(d.Request(1, 1))
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest("POST", srv.URL+"/v1/tickets", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if header != nil {
			req.Header = header
		}
		req.Header.Set("Content-Type", "application/json")
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var data bytes.Buffer
		if _, err := data.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return servertest.Answer{Status: resp.StatusCode, Header: resp.Header, Body: data.Bytes()}
	}
	signed := func(as *servertest.Device) http.Header {
		body, _ := json.Marshal(d.Request(1, 1))
		sig, err := identity.SignRequest(as.Key, "POST", "/v1/tickets", body, w.Now())
		if err != nil {
			t.Fatal(err)
		}
		return http.Header{identity.DeviceHeader: {sig.Device}, identity.DateHeader: {sig.Date}, identity.SignatureHeader: {sig.Signature}}
	}
	want(t, ask(d.Key, nil), 200, "")
	want(t, ask(nil, nil), 401, "bad-signature")
	want(t, ask(stranger.Key, nil), 401, "unknown-device")
	want(t, ask(rsaKey, nil), 401, "unknown-device")
	// Headers count alone, once they are there: whoever holds the connection
	// can't speak for the device that is named in them.
	want(t, ask(d.Key, http.Header{identity.DeviceHeader: {d.ID.Hex()}}), 401, "bad-signature")
	want(t, ask(d.Key, http.Header{identity.DeviceHeader: {other.ID.Hex()}}), 401, "bad-signature")
	want(t, ask(d.Key, http.Header{identity.DateHeader: {"2026-11-23T18:00:00Z"}}), 401, "bad-signature")
	want(t, ask(rsaKey, signed(d)), 200, "") // a proxy with a certificate of its own
	want(t, ask(d.Key, signed(other)), 200, "")
	if list, err := n.DB.Tickets(t.Context(), other.ID, 10); err != nil || len(list) != 2 {
		t.Errorf("the signature's device, not the connection's, must have the ticket: %d, %v", len(list), err)
	}
	if err := n.DB.Block(t.Context(), d.ID, "x", w.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, ask(d.Key, nil), 403, "refused")
}
