package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
)

// TPMKey is a device key that lives in a TPM 2.0: its public part, and the
// private part as only that TPM can read it. This package takes the file apart
// without a TPM, so that a program can know the device's id and has no TPM code
// in it; package tpm makes and uses the key.
//
// The file is PEM of the type "TSS2 PRIVATE KEY", which other TPM software
// reads too:
//
//	SEQUENCE { OBJECT IDENTIFIER 2.23.133.10.1.3, [0] BOOLEAN TRUE (no password),
//	  INTEGER 0x40000001 (the owner's storage key),
//	  OCTET STRING TPM2B_PUBLIC, OCTET STRING TPM2B_PRIVATE }
type TPMKey struct {
	Public      *ecdsa.PublicKey // P-256
	PublicArea  []byte           // TPM2B_PUBLIC
	PrivateArea []byte           // TPM2B_PRIVATE
}

const (
	tpmKeyBlock = "TSS2 PRIVATE KEY"
	tpmOwner    = 0x40000001
	maxPrivate  = 512 // bytes of a TPM2B_PRIVATE
)

// Attributes of the only sort of key that is accepted: made in this TPM, bound
// to it and to its parent, for signatures, without a password.
const tpmAttributes = 1<<1 | 1<<4 | 1<<5 | 1<<6 | 1<<10 | 1<<18 // fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA sign

var oidLoadableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

type tpmKeyFile struct {
	Type    asn1.ObjectIdentifier
	Empty   bool `asn1:"optional,explicit,tag:0"`
	Parent  int64
	Public  []byte
	Private []byte
}

// NewTPMKey puts together what a TPM returned when it made a key.
func NewTPMKey(publicArea, privateArea []byte) (*TPMKey, error) {
	public, err := parsePublicArea(publicArea)
	if err != nil {
		return nil, fmt.Errorf("cannot use TPM key: %w", err)
	}
	if len(privateArea) < 3 || len(privateArea) > maxPrivate || int(binary.BigEndian.Uint16(privateArea)) != len(privateArea)-2 {
		return nil, errors.New("cannot use TPM key: its private part is malformed")
	}
	return &TPMKey{public, publicArea, privateArea}, nil
}

// MarshalTPMKey writes the key's file. It is no secret: only its TPM can use it.
func MarshalTPMKey(k *TPMKey) ([]byte, error) {
	der, err := asn1.Marshal(tpmKeyFile{oidLoadableKey, true, tpmOwner, k.PublicArea, k.PrivateArea})
	if err != nil {
		return nil, fmt.Errorf("cannot write TPM key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: tpmKeyBlock, Bytes: der}), nil
}

// IsTPMKey says whether a key file is that of a key in a TPM.
func IsTPMKey(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil && block.Type == tpmKeyBlock
}

// ParseTPMKey reads what MarshalTPMKey wrote.
func ParseTPMKey(text []byte) (*TPMKey, error) {
	if len(text) > MaxKey {
		return nil, fmt.Errorf("cannot read TPM key: %d bytes, at most %d are possible", len(text), MaxKey)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != tpmKeyBlock {
		return nil, errors.New("cannot read TPM key: it is not one in PEM")
	}
	var f tpmKeyFile
	if rest, err := asn1.Unmarshal(block.Bytes, &f); err != nil || len(rest) != 0 {
		return nil, errors.New("cannot read TPM key: it is malformed")
	}
	if !f.Type.Equal(oidLoadableKey) || !f.Empty || f.Parent != tpmOwner {
		return nil, errors.New("cannot read TPM key: it is not a loadable key without a password below the owner's storage key")
	}
	k, err := NewTPMKey(f.Public, f.Private)
	if err != nil {
		return nil, err
	}
	if again, err := asn1.Marshal(f); err != nil || !bytes.Equal(again, block.Bytes) {
		return nil, errors.New("cannot read TPM key: it is not in its only form")
	}
	return k, nil
}

// PublicOf reads the public key out of a device's key file, of either sort. It
// needs no TPM.
func PublicOf(text []byte) (*ecdsa.PublicKey, error) {
	if IsTPMKey(text) {
		k, err := ParseTPMKey(text)
		if err != nil {
			return nil, err
		}
		return k.Public, nil
	}
	k, err := ParseKey(text)
	if err != nil {
		return nil, err
	}
	return &k.PublicKey, nil
}

// parsePublicArea reads a TPM2B_PUBLIC, which must describe the one sort of key
// that is accepted (TPM 2.0 Library, part 2, 12.2.4):
//
//	size | 0023 ECC | 000b SHA-256 | attributes | 0000 no policy |
//	0010 no symmetric | 0018 000b ECDSA with SHA-256 | 0003 P-256 | 0010 no KDF | 0020 x | 0020 y
func parsePublicArea(area []byte) (*ecdsa.PublicKey, error) {
	head := []byte{0, 88, 0x00, 0x23, 0x00, 0x0b}
	head = binary.BigEndian.AppendUint32(head, tpmAttributes)
	head = append(head, 0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10)
	x, y := len(head)+2, len(head)+2+32+2
	if len(area) != y+32 || !bytes.HasPrefix(area, head) || area[x-2] != 0 || area[x-1] != 32 || area[y-2] != 0 || area[y-1] != 32 {
		return nil, errors.New("it is not a P-256 key for signatures that was made in a TPM and can't leave it")
	}
	point := append([]byte{4}, area[x:x+32]...)
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(point, area[y:]...))
}
