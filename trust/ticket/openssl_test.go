package ticket

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// openssl runs the command line tool and returns what it printed.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("this test needs Debian's openssl: %v", err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestOpenSSL lets openssl read a ticket and check its signatures, as
// spec/ticket.md tells people to do by hand.
func TestOpenSSL(t *testing.T) {
	a := newAuthority(t, "test")
	c := example()
	der := a.issue(t, c)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole := file("ticket", der)
	listing := openssl(t, "asn1parse", "-inform", "DER", "-in", whole)
	for _, want := range []string{":IM4M", ":MANB", ":MANP", ":UDID", ":cnch", ":cx01", ":sv01", ":tc01", "priv [ " + strconv.Itoa('M'<<24|'A'<<16|'N'<<8|'B') + " ]"} {
		if !strings.Contains(listing, want) {
			t.Errorf("asn1parse doesn't show %q:\n%s", want, listing)
		}
	}

	// The third element, the signature and the certificate as openssl finds
	// them: the elements at depth 1.
	var offsets, lengths []int
	for line := range strings.Lines(listing) {
		var d, hl, l, off int
		line = strings.ReplaceAll(line, "=", " ")
		if f := strings.Fields(strings.Replace(line, ":", " ", 1)); len(f) > 6 && f[1] == "d" {
			off, _ = strconv.Atoi(f[0])
			d, _ = strconv.Atoi(f[2])
			hl, _ = strconv.Atoi(f[4])
			l, _ = strconv.Atoi(f[6])
			if d == 1 {
				offsets, lengths = append(offsets, off), append(lengths, hl+l)
			}
		}
	}
	if len(offsets) != 5 {
		t.Fatalf("asn1parse sees %d elements:\n%s", len(offsets), listing)
	}
	extract := func(n int, name string) string {
		return file(name, der[offsets[n]:offsets[n]+lengths[n]])
	}
	signed := extract(2, "signed")
	signature := filepath.Join(dir, "signature")
	openssl(t, "asn1parse", "-inform", "DER", "-in", whole, "-strparse", strconv.Itoa(offsets[3]), "-noout", "-out", signature)
	leaf := filepath.Join(dir, "leaf.pem")
	openssl(t, "x509", "-inform", "DER", "-in", file("leaf", a.leaf.cert.Raw), "-out", leaf)
	public := file("public.pem", []byte(openssl(t, "x509", "-in", leaf, "-noout", "-pubkey")))
	if out := openssl(t, "dgst", "-sha384", "-verify", public, "-signature", signature, signed); !strings.Contains(out, "Verified OK") {
		t.Errorf("dgst: %s", out)
	}
	if tk := mustParse(t, der); string(tk.Signed()) != string(der[offsets[2]:offsets[2]+lengths[2]]) {
		t.Error("openssl and Parse disagree about what is signed")
	}
	root := file("root.pem", MarshalRoot(a.root))
	// openssl doesn't know the constraints, and says so unless told.
	if out := openssl(t, "verify", "-ignore_critical", "-attime", strconv.FormatInt(begin.Unix()+60, 10), "-CAfile", root, leaf); !strings.Contains(out, "OK") {
		t.Errorf("verify: %s", out)
	}
	text := openssl(t, "x509", "-in", leaf, "-noout", "-text")
	if !strings.Contains(text, "1.2.840.113635.100.6.1.15: critical") || !strings.Contains(text, "Digital Signature") {
		t.Errorf("the leaf:\n%s", text)
	}
	if block, _ := pem.Decode(MarshalRoot(a.root)); block == nil {
		t.Error("the root is no PEM")
	}
}
