package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Endorsement is a TPM's endorsement key of one of the accepted sorts: P-384,
// P-256 or RSA-2048 by the TCG's templates. The TPM derives it from a seed that
// its maker put there.
type Endorsement struct {
	Area        []byte // TPM2B_PUBLIC
	Certificate []byte // the maker's, DER; nil if the TPM holds none
}

// MaxCertificate is the largest certificate that is read from a TPM, in bytes.
const MaxCertificate = 4096

// Sort is a sort of endorsement key: its template, where the TPM keeps the
// maker's certificate (TCG EK Credential Profile), and how it is used.
type Sort struct {
	name        string
	template    tpm2.TPMTPublic
	certificate tpm2.TPMHandle // NV index
	policy      bool           // only a policy opens it; else its empty password does
}

// sorts are the accepted ones; first those that a TPM makes fast.
var sorts = []Sort{
	{"P-256", tpm2.ECCEKTemplate, 0x01c0000a, true},
	{"P-384", templateP384, 0x01c00016, false},
	{"RSA-2048", tpm2.RSAEKTemplate, 0x01c00002, true},
}

// templateP384 is template H-3 of the TCG EK Credential Profile.
var templateP384 = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA384,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
	},
	AuthPolicy: tpm2.TPM2BDigest{Buffer: []byte{ // PolicyB with SHA-384
		0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
		0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
		0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
	}},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCNistP384,
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
}

// make makes the endorsement key, the same each time.
func (k *Sort) make(t transport.TPM) (loaded, []byte, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(k.template)}.Execute(t)
	if err != nil {
		return loaded{}, nil, fmt.Errorf("the TPM makes no endorsement key of the sort %s: %w", k.name, err)
	}
	return loaded{r.ObjectHandle, r.Name}, tpm2.Marshal(r.OutPublic), nil
}

// auth is what lets the key decrypt.
func (k *Sort) auth() tpm2.Session {
	if !k.policy {
		return tpm2.PasswordAuth(nil)
	}
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(t)
		return err
	})
}

// ReadEndorsement asks the TPM for its P-256 endorsement key.
func ReadEndorsement(t transport.TPM) (Endorsement, error) { return sorts[0].Read(t) }

// Read asks the TPM for its endorsement key of this sort, and for the maker's
// certificate. An RSA key takes a TPM seconds.
func (k *Sort) Read(t transport.TPM) (e Endorsement, err error) {
	object, area, err := k.make(t)
	if err != nil {
		return e, fmt.Errorf("cannot read endorsement key: %w", err)
	}
	return Endorsement{Area: area, Certificate: readCertificate(t, k.certificate)}, object.flush(t)
}

// Sorts are the accepted sorts, first those that this TPM's maker certified.
func Sorts(t transport.TPM) []Sort {
	order := slices.Clone(sorts)
	certified := map[string]int{}
	for _, k := range order {
		if _, err := (tpm2.NVReadPublic{NVIndex: k.certificate}).Execute(t); err != nil {
			certified[k.name] = 1
		}
	}
	slices.SortStableFunc(order, func(a, b Sort) int { return certified[a.name] - certified[b.name] })
	return order
}

// readCertificate reads the maker's certificate, nil if there is none or none
// that can be read.
func readCertificate(t transport.TPM, index tpm2.TPMHandle) []byte {
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil
	}
	public, err := r.NVPublic.Contents()
	if err != nil || public.DataSize == 0 || public.DataSize > MaxCertificate {
		return nil
	}
	const part = 512 // every TPM gives so many bytes at once
	var data []byte
	for len(data) < int(public.DataSize) {
		n := min(part, int(public.DataSize)-len(data))
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: r.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: r.NVName},
			Size:       uint16(n), Offset: uint16(len(data)),
		}.Execute(t)
		if err != nil || len(r.Data.Buffer) != n {
			return nil
		}
		data = append(data, r.Data.Buffer...)
	}
	// The index may be larger than what is in it.
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(data, &whole); err != nil {
		return nil
	}
	return whole.FullBytes
}

// public reads the area and checks that it is of one of the accepted sorts.
// Whether a TPM is behind it only its maker's certificate, or the list of known
// ones, can tell.
func (e Endorsement) public() (*Sort, *tpm2.TPMTPublic, error) {
	if len(e.Area) > maxPublicArea {
		return nil, nil, errors.New("it is too long")
	}
	area, err := tpm2.Unmarshal[tpm2.TPM2BPublic](e.Area)
	if err != nil {
		return nil, nil, err
	}
	public, err := area.Contents()
	if err != nil {
		return nil, nil, err
	}
	if bytes.Equal(tpm2.Marshal(*area), e.Area) {
		for i := range sorts {
			if k := &sorts[i]; k.template.Type == public.Type && bytes.Equal(tpm2.Marshal(bare(*public)), tpm2.Marshal(bare(k.template))) {
				return k, public, nil
			}
		}
	}
	return nil, nil, errors.New("it is not one of the TCG's endorsement keys: P-256, P-384, RSA-2048")
}

// bare is a public area without the key: what the template says.
func bare(p tpm2.TPMTPublic) tpm2.TPMTPublic {
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	if p.Type == tpm2.TPMAlgRSA {
		p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	}
	return p
}

// ID identifies the TPM: SHA-256 of the endorsement key (SPKI, DER). A
// server's list of known TPMs is made of it.
func (e Endorsement) ID() ([32]byte, error) {
	_, public, err := e.public()
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement key: %w", err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement key: %w", err)
	}
	return idOf(key)
}

// idOf is the id of the TPM that has this endorsement key.
func idOf(key crypto.PublicKey) ([32]byte, error) {
	good := false
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		good = k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
	case *rsa.PublicKey:
		good = k.N.BitLen() == 2048 && k.E == 65537
	}
	if !good {
		return [32]byte{}, errors.New("cannot use endorsement key: it is neither P-256 nor P-384 nor RSA-2048")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [32]byte{}, fmt.Errorf("cannot use endorsement key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// CertifiedID is the ID of the endorsement key that a TPM maker's certificate is
// for. The certificate is believed: whoever makes the list looked at it.
func CertifiedID(cert *x509.Certificate) ([32]byte, error) {
	id, err := idOf(cert.PublicKey)
	if err != nil {
		return id, fmt.Errorf("cannot use endorsement certificate: %w", err)
	}
	return id, nil
}

// Makers are certificates of makers of TPMs, as an operator chose them: roots,
// and intermediates, which TPMs seldom hold.
type Makers struct{ roots, between *x509.CertPool }

// NewMakers sorts certificates: those that issued themselves are the roots.
func NewMakers(certs []*x509.Certificate) (*Makers, error) {
	m := &Makers{x509.NewCertPool(), x509.NewCertPool()}
	roots := 0
	for _, c := range certs {
		switch {
		case !c.IsCA:
			return nil, fmt.Errorf("cannot believe %s: it is no authority", c.Subject)
		case bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil:
			m.roots.AddCert(c)
			roots++
		default:
			m.between.AddCert(c)
		}
	}
	if roots == 0 {
		return nil, errors.New("cannot believe makers of TPMs: there is no root among their certificates")
	}
	return m, nil
}

// Object identifiers of the TCG and of X.509 that endorsement certificates use.
var (
	oidEndorsement = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	oidAltName     = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// Certified says whether a maker certified the endorsement key, now.
func (m *Makers) Certified(e Endorsement, now time.Time) error {
	fail := func(err error) error { return fmt.Errorf("cannot believe endorsement certificate: %w", err) }
	if len(e.Certificate) == 0 || len(e.Certificate) > MaxCertificate {
		return fail(fmt.Errorf("it has %d bytes, 1 to %d are possible", len(e.Certificate), MaxCertificate))
	}
	cert, err := x509.ParseCertificate(e.Certificate)
	if err != nil {
		return fail(err)
	}
	own, err := e.ID()
	if err != nil {
		return err
	}
	if id, err := CertifiedID(cert); err != nil || id != own {
		return fail(errors.New("it is for another key"))
	}
	if cert.IsCA || !slices.ContainsFunc(cert.UnknownExtKeyUsage, oidEndorsement.Equal) {
		return fail(errors.New("it is not a certificate of an endorsement key"))
	}
	// The name of the TPM's model stands in a critical extension as a directory
	// name, which crypto/x509 does not read. It decides nothing here.
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, oidAltName.Equal)
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: m.roots, Intermediates: m.between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fail(err)
	}
	return nil
}
