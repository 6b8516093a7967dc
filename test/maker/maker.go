// Package maker is a maker of TPMs, for tests: software TPMs with endorsement
// certificates as real ones are shipped, and the maker's own root and
// intermediate. It needs Debian's swtpm and swtpm-tools.
package maker

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Maker is a maker: swtpm's local authority, in a folder of its own.
type Maker struct{ dir string }

// New founds a maker.
func New(tb testing.TB) *Maker {
	tb.Helper()
	m := &Maker{tb.TempDir()}
	authority, err := exec.LookPath("swtpm_localca")
	if err != nil {
		tb.Fatalf("this test needs Debian's swtpm-tools: %v", err)
	}
	for name, text := range map[string]string{
		"ca.conf":    fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/key.pem\nissuercert = %[1]s/issuer.pem\ncertserial = %[1]s/serial\n", m.dir),
		"options":    "--tpm-manufacturer IBM\n--tpm-model swtpm-libtpms\n--tpm-version 2\n--platform-manufacturer Example\n--platform-version 1\n--platform-model kiosk\n",
		"setup.conf": fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %[2]s/ca.conf\ncreate_certs_tool_options = %[2]s/options\n", authority, m.dir),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return m
}

// TPM makes a TPM with certificates for an RSA-2048 and a P-384 endorsement
// key, and returns the folder of its memory.
func (m *Maker) TPM(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", dir, "--create-ek-cert", "--config", filepath.Join(m.dir, "setup.conf"), "--overwrite").CombinedOutput()
	if err != nil {
		tb.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	return dir
}

// Certificates are the maker's, root and intermediate. They exist once it has
// made a TPM.
func (m *Maker) Certificates(tb testing.TB) []*x509.Certificate {
	tb.Helper()
	var all []*x509.Certificate
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuer.pem"} {
		text, err := os.ReadFile(filepath.Join(m.dir, name))
		if err != nil {
			tb.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			tb.Fatalf("%s is not PEM", name)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}
