package signing

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/sealant-os/sealant/trust/ticket"
)

// maxLeafFile is the limit for a leaf file, in bytes.
const maxLeafFile = 64 << 10

// leafLook is how often the leaf file is looked at for a newer one.
const leafLook = 10 * time.Second

// Keys finds the key that lives elsewhere, in a token for example, by its
// public part.
type Keys func(public crypto.PublicKey) (crypto.Signer, error)

// LeafFile is the signing key in a file: a PEM file with the leaf's
// certificate and its private key (PKCS #8), which `sealsrv leaf new` writes;
// or with the certificate alone of a key that lives elsewhere. The file may be
// replaced while the server runs; the next ticket is signed with the new leaf.
// A file that can't be used leaves the old leaf in force.
type LeafFile struct {
	path string
	root *x509.Certificate
	keys Keys

	mu     sync.Mutex
	leaf   *ticket.Leaf
	stamp  stamp
	looked time.Time
	broken error // why the newest file is not in use
}

// stamp tells whether a file was replaced.
type stamp struct {
	size int64
	time time.Time
}

func stampOf(info fs.FileInfo) stamp { return stamp{info.Size(), info.ModTime()} }

// OpenLeaf reads a leaf file; root is the certificate that devices pin.
func OpenLeaf(path string, root *x509.Certificate) (*LeafFile, error) {
	return OpenLeafOf(path, root, nil)
}

// OpenLeafOf reads a leaf file that may be a certificate alone; then keys finds
// its key.
func OpenLeafOf(path string, root *x509.Certificate, keys Keys) (*LeafFile, error) {
	f := &LeafFile{path: path, root: root, keys: keys}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Leaf is the leaf to sign with at the time now. An expired leaf signs no more.
func (f *LeafFile) Leaf(now time.Time) (*ticket.Leaf, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	cert := f.leaf.Certificate()
	if d := now.Sub(f.looked); d > leafLook || d < 0 || now.After(cert.NotAfter) {
		f.looked = now
		if info, err := os.Stat(f.path); err != nil || stampOf(info) != f.stamp {
			f.broken = f.load()
		}
		cert = f.leaf.Certificate()
	}
	if now.After(cert.NotAfter) {
		err := fmt.Errorf("cannot sign: the leaf expired at %s", cert.NotAfter.Format(time.RFC3339))
		return nil, errors.Join(err, f.broken)
	}
	return f.leaf, nil
}

// Expires is when the leaf in force ends.
func (f *LeafFile) Expires() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaf.Certificate().NotAfter
}

// Broken says why the newest file is not in use; nil if it is.
func (f *LeafFile) Broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

func (f *LeafFile) load() error {
	file, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("cannot read the leaf: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("cannot read the leaf: %w", err)
	}
	if info.Size() > maxLeafFile {
		return fmt.Errorf("cannot read the leaf: %s has %d bytes, at most %d are possible", f.path, info.Size(), maxLeafFile)
	}
	text := make([]byte, info.Size())
	if _, err := file.ReadAt(text, 0); err != nil {
		return fmt.Errorf("cannot read the leaf: %w", err)
	}
	leaf, err := ParseLeafOf(text, f.root, f.keys)
	if err != nil {
		return err
	}
	f.leaf, f.stamp = leaf, stampOf(info)
	return nil
}

// ParseLeaf reads a leaf file's text.
func ParseLeaf(text []byte, root *x509.Certificate) (*ticket.Leaf, error) {
	return ParseLeafOf(text, root, nil)
}

// ParseLeafOf reads a leaf file's text; where it holds the certificate alone,
// keys finds its key.
func ParseLeafOf(text []byte, root *x509.Certificate, keys Keys) (*ticket.Leaf, error) {
	var cert *x509.Certificate
	var key crypto.Signer
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE" && cert == nil:
			parsed, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("cannot read the leaf: %w", err)
			}
			cert = parsed
		case block.Type == "PRIVATE KEY" && key == nil:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("cannot read the leaf: %w", err)
			}
			signer, ok := parsed.(crypto.Signer)
			if !ok {
				return nil, errors.New("cannot read the leaf: its key can't sign")
			}
			key = signer
		default:
			return nil, fmt.Errorf("cannot read the leaf: there is a block %q too much", block.Type)
		}
		text = rest
	}
	if cert != nil && key == nil && keys != nil {
		found, err := keys(cert.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("cannot use the leaf's key: %w", err)
		}
		key = found
	}
	if cert == nil || key == nil || len(bytes.TrimSpace(text)) != 0 {
		return nil, errors.New("cannot read the leaf: it must be a certificate and a private key in PEM, and nothing else")
	}
	return ticket.NewLeaf(key, cert, root)
}

// FormatLeaf writes a leaf file's text; with the key nil, of the certificate
// alone.
func FormatLeaf(cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if key == nil {
		return text, nil
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot write the leaf: %w", err)
	}
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}
