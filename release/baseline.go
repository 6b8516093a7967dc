package release

import "fmt"

// BaselineSchema names the form of Baseline.
const BaselineSchema = "sealant.baseline/1"

// Limits of a baseline.
const (
	MaxBaseline  = 256 << 10 // bytes of the document
	MaxCryptexes = 100       // a ticket numbers its cryptexes 00 to 99
	MaxImageSize = 1 << 40   // bytes of one cryptex
	blockSize    = 4096      // a seal counts blocks of this size
)

// Baseline is the exact group of cryptexes that one OS update installed. Its
// digest is what everything else binds to: an improvement, a ticket, an advice.
type Baseline struct {
	Schema    string  `json:"schema"`
	Product   string  `json:"product"`
	OSVersion string  `json:"os_version"`
	Cryptexes []Image `json:"cryptexes"` // sorted by name, at least one
}

// Image says which bytes one cryptex has.
type Image struct {
	Name       string  `json:"name"`
	Subtype    Subtype `json:"subtype"`
	Digest     Digest  `json:"digest"` // SHA-384 of the whole file
	Size       int64   `json:"size"`   // bytes of the whole file
	Seal       Seal    `json:"seal"`
	TrustCache Digest  `json:"trust_cache"` // SHA-384 of the trust cache's bytes
}

// Seal is the verity seal of an image: what the kernel checks at every read.
type Seal struct {
	Root       Hash   `json:"root"`        // verity root hash
	Salt       Hash   `json:"salt"`        //
	DataBlocks int64  `json:"data_blocks"` // blocks of 4096 bytes that it covers
	Digest     Digest `json:"digest"`      // SHA-384 of superblock and root, as tickets carry it
}

// Subtype says what a cryptex holds.
type Subtype uint8

// The subtypes.
const (
	SubtypeOS  Subtype = 1 // framework components, libraries
	SubtypeApp Subtype = 2 // one application
)

// String is "os" or "app".
func (s Subtype) String() string {
	switch s {
	case SubtypeOS:
		return "os"
	case SubtypeApp:
		return "app"
	}
	return fmt.Sprintf("subtype-%d", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s Subtype) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts "os" and "app".
func (s *Subtype) UnmarshalText(text []byte) error {
	switch string(text) {
	case "os":
		*s = SubtypeOS
	case "app":
		*s = SubtypeApp
	default:
		return fmt.Errorf("%q is no subtype (os or app)", text)
	}
	return nil
}

// ParseBaseline reads the canonical bytes of a baseline.
func ParseBaseline(data []byte) (Baseline, error) {
	var b Baseline
	if err := parse("the baseline", MaxBaseline, data, &b); err != nil {
		return Baseline{}, err
	}
	return b, nil
}

// Encode validates the baseline and returns its canonical bytes.
func (b Baseline) Encode() ([]byte, error) { return encode("the baseline", MaxBaseline, &b) }

// Digest is the SHA-384 of the canonical bytes. Only a baseline that was parsed
// or encoded without an error has a digest that anybody else would compute.
func (b Baseline) Digest() Digest { return digestOf(&b) }

func digestOf(d document) Digest {
	data, err := canonical(d)
	if err != nil {
		return Digest{}
	}
	return DigestOf(data)
}

// Cryptex finds an image of the baseline by name.
func (b Baseline) Cryptex(name string) (Image, bool) { return find(b.Cryptexes, name) }

func find(images []Image, name string) (Image, bool) {
	for _, c := range images {
		if c.Name == name {
			return c, true
		}
	}
	return Image{}, false
}

func (b *Baseline) validate() error {
	if err := checkSchema(b.Schema, BaselineSchema); err != nil {
		return err
	}
	if err := CheckProduct(b.Product); err != nil {
		return err
	}
	if err := CheckOSVersion(b.OSVersion); err != nil {
		return err
	}
	if n := len(b.Cryptexes); n < 1 || n > MaxCryptexes {
		return fmt.Errorf("%d cryptexes, there must be 1 to %d", n, MaxCryptexes)
	}
	for i := range b.Cryptexes {
		if err := b.Cryptexes[i].validate(); err != nil {
			return fmt.Errorf("cryptex %q: %w", b.Cryptexes[i].Name, err)
		}
	}
	return checkOrder("cryptexes", len(b.Cryptexes), func(i int) string { return b.Cryptexes[i].Name })
}

func (c *Image) validate() error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	if c.Subtype != SubtypeOS && c.Subtype != SubtypeApp {
		return fmt.Errorf("%s is unknown", c.Subtype)
	}
	switch {
	case c.Digest.IsZero():
		return fmt.Errorf("the digest is zero")
	case c.TrustCache.IsZero():
		return fmt.Errorf("the trust cache's digest is zero")
	case c.Seal.Digest.IsZero():
		return fmt.Errorf("the seal's digest is zero")
	case c.Seal.Root == Hash{}:
		return fmt.Errorf("the seal's root is zero")
	case c.Size < blockSize || c.Size > MaxImageSize || c.Size%blockSize != 0:
		return fmt.Errorf("size %d is not a whole number of blocks up to %d", c.Size, int64(MaxImageSize))
	case c.Seal.DataBlocks < 1 || c.Seal.DataBlocks >= c.Size/blockSize:
		return fmt.Errorf("%d sealed blocks do not fit in %d bytes", c.Seal.DataBlocks, c.Size)
	}
	return nil
}
