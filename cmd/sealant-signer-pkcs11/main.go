// Sealant-signer-pkcs11 lets Sealant sign with keys in a PKCS #11 token: a
// smart card, an HSM, SoftHSM. It talks the signer protocol of spec/keys.md
// over its standard input and output, and is started by the commands that sign.
//
// It is a module and a program of its own because PKCS #11 modules are C
// libraries: nothing else of Sealant is built with cgo or loads a library at
// run time.
package main

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ThalesGroup/crypto11"

	"github.com/sealant-os/sealant/trust/signer"
)

const usage = `usage: sealant-signer-pkcs11 --module FILE --token LABEL [--pin-file FILE] [--generate KEY | --public KEY]

Signs with keys in a PKCS #11 token, for the commands that start it:

  sealant-signer-pkcs11 --module /usr/lib/softhsm/libsofthsm2.so --token vendor --generate ticket-root
  sealpub keys attach ticket-root --key ticket-root -- \
      sealant-signer-pkcs11 --module /usr/lib/softhsm/libsofthsm2.so --token vendor --pin-file /run/pin

Without --generate and --public it answers requests on standard input until that
ends (spec/keys.md). The PIN is read from --pin-file, from SEALANT_PKCS11_PIN, or
typed on the terminal.

`

// pinEnv is the environment's variable with the PIN.
const pinEnv = "SEALANT_PKCS11_PIN"

const maxPIN = 256 // bytes of a file with a PIN

// Exit codes, as everywhere in Sealant.
const (
	failed     = 1
	wrongUsage = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sealant-signer-pkcs11", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	module := flags.String("module", "", "the token's PKCS #11 library")
	token := flags.String("token", "", "the token's label")
	pinFile := flags.String("pin-file", "", "file with the user's PIN (also: "+pinEnv+")")
	generate := flags.String("generate", "", "make a P-384 key pair with this label in the token, and print its public key")
	public := flags.String("public", "", "print the public key with this label")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return wrongUsage
	}
	if *module == "" || *token == "" || flags.NArg() > 0 || *generate != "" && *public != "" {
		flags.Usage()
		return wrongUsage
	}
	if err := use(*module, *token, *pinFile, *generate, *public, stdin, stdout); err != nil {
		fmt.Fprintf(stderr, "sealant-signer-pkcs11: %v\n", err)
		return failed
	}
	return 0
}

func use(module, token, pinFile, generate, public string, stdin io.Reader, stdout io.Writer) error {
	pin, err := readPIN(pinFile)
	if err != nil {
		return err
	}
	ctx, err := crypto11.Configure(&crypto11.Config{Path: module, TokenLabel: token, Pin: pin})
	if err != nil {
		return fmt.Errorf("cannot open token %s: %w", token, err)
	}
	defer ctx.Close()
	find := func(label string) (crypto.Signer, error) { return find(ctx, token, label) }
	switch {
	case generate != "":
		if _, err := find(generate); err == nil {
			return fmt.Errorf("cannot make key %s: the token has one of that name", generate)
		}
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return err
		}
		key, err := ctx.GenerateECDSAKeyPairWithLabel(id, []byte(generate), elliptic.P384())
		if err != nil {
			return fmt.Errorf("cannot make key %s: %w", generate, err)
		}
		return printPublic(stdout, key)
	case public != "":
		key, err := find(public)
		if err != nil {
			return err
		}
		return printPublic(stdout, key)
	default:
		return signer.Serve(stdin, stdout, find)
	}
}

// find looks a key pair up by its label, which must be the only one.
func find(ctx *crypto11.Context, token, label string) (crypto.Signer, error) {
	if label == "" {
		return nil, &signer.Refusal{Code: signer.CodeUnknownKey, Text: "keys have names"}
	}
	keys, err := ctx.FindKeyPairs(nil, []byte(label))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot look for key %s in token %s: %w", label, token, err)
	case len(keys) == 0:
		return nil, &signer.Refusal{Code: signer.CodeUnknownKey, Text: fmt.Sprintf("there is no key %s in token %s", label, token)}
	case len(keys) > 1:
		return nil, &signer.Refusal{Code: signer.CodeUnknownKey, Text: fmt.Sprintf("there are %d keys called %s in token %s", len(keys), label, token)}
	}
	return keys[0], nil
}

func printPublic(w io.Writer, key crypto.Signer) error {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// readPIN finds the PIN without touching standard input, which belongs to the
// protocol.
func readPIN(file string) (string, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("cannot read the PIN: %w", err)
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxPIN+1))
		if err != nil || len(text) > maxPIN {
			return "", fmt.Errorf("cannot read the PIN from %s: larger than %d bytes or unreadable", file, maxPIN)
		}
		if pin := strings.TrimRight(string(text), "\r\n"); pin != "" {
			return pin, nil
		}
		return "", fmt.Errorf("cannot read the PIN: %s is empty", file)
	}
	if pin := os.Getenv(pinEnv); pin != "" {
		return pin, nil
	}
	return typePIN()
}
