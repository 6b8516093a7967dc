package device

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/trust/identity"
	"github.com/sealant-os/sealant/trust/tpm"
)

// Where the device's key may be.
const (
	IdentityAuto = "auto" // in the TPM if there is one, else in a file
	IdentityTPM  = "tpm"
	IdentityFile = "file"
)

// key is the device's key, ready to sign, wherever it is.
func (d *Device) key() (crypto.Signer, error) {
	text, err := d.Store.IdentityKey()
	if err != nil {
		return nil, err
	}
	if !identity.IsTPMKey(text) {
		return identity.ParseKey(text)
	}
	k, err := identity.ParseTPMKey(text)
	if err != nil {
		return nil, err
	}
	return &tpmSigner{d, k}, nil
}

// tpmSigner opens the TPM for each signature, so that nothing holds it between.
type tpmSigner struct {
	device *Device
	key    *identity.TPMKey
}

func (s *tpmSigner) Public() crypto.PublicKey { return s.key.Public }

func (s *tpmSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	t, err := s.device.openTPM()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return tpm.Signer(t, s.key).Sign(rand, digest, opts)
}

// openTPM opens this machine's TPM. An error of fs.ErrNotExist means that it
// has none.
func (d *Device) openTPM() (transport.TPMCloser, error) {
	//lint:ignore SA1019 it opens the socket of a software TPM as well as a device
	t, err := transport.OpenTPM(d.Store.TPMPath())
	if err != nil {
		return nil, fmt.Errorf("cannot use the TPM: %w", err)
	}
	return t, nil
}

// keyID is the device's id by its key, enrolled or not.
func (d *Device) keyID() (identity.ID, error) {
	text, err := d.Store.IdentityKey()
	if err != nil {
		return identity.ID{}, err
	}
	public, err := identity.PublicOf(text)
	if err != nil {
		return identity.ID{}, err
	}
	return identity.IDOf(public)
}

// identityPlace says where the key is: IdentityTPM or IdentityFile.
func (d *Device) identityPlace() string {
	if text, err := d.Store.IdentityKey(); err == nil && identity.IsTPMKey(text) {
		return IdentityTPM
	}
	return IdentityFile
}

// wouldKeep says where an enrolment would keep the key.
func (d *Device) wouldKeep(place string) string {
	if _, err := d.Store.IdentityKey(); err == nil {
		return d.identityPlace()
	}
	if _, err := os.Stat(d.Store.TPMPath()); place == IdentityFile || place != IdentityTPM && err != nil {
		return IdentityFile
	}
	return IdentityTPM
}

// makeKey makes the device's key where it shall be. A TPM that is there but
// doesn't work is no reason to stay without improvements, unless the TPM was
// asked for.
func (d *Device) makeKey(place string, report Report) ([]byte, error) {
	if place != IdentityFile {
		text, err := d.makeTPMKey()
		switch {
		case err == nil:
			return text, nil
		case place == IdentityTPM:
			return nil, fault.New(fault.Failed, "%w", err).Hint("--identity file keeps the key in a file")
		case !errors.Is(err, fs.ErrNotExist):
			report.warn("identity", "%v; the key is kept in a file", err)
		}
	}
	key, err := identity.NewKey(d.Rand)
	if err != nil {
		return nil, err
	}
	return identity.MarshalKey(key)
}

func (d *Device) makeTPMKey() ([]byte, error) {
	if _, err := os.Stat(d.Store.TPMPath()); err != nil {
		return nil, fmt.Errorf("cannot use the TPM: %w", err)
	}
	t, err := d.openTPM()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	k, err := tpm.NewKey(t)
	if err != nil {
		return nil, err
	}
	// A key in the TPM goes with its counter, or not at all: that is how the
	// boot knows from the key alone that it must ask for it.
	if _, err := anyCounter(t); err != nil {
		return nil, err
	}
	return identity.MarshalTPMKey(k)
}
