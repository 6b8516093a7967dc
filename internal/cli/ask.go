package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/sealant-os/sealant/internal/fault"
)

// Confirm asks for a word to be typed before something that opens a flaw
// again or stops others. yes skips the question, never a check. Where no
// terminal can answer and nothing is piped in, it refuses and names --yes.
func (s *Screen) Confirm(word string, yes bool) error {
	if yes {
		return nil
	}
	fmt.Fprintf(s.Err, "Type %s: ", word)
	line, err := bufio.NewReader(io.LimitReader(s.In, 1024)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(s.Err)
		return fault.New(fault.Usage, "cannot ask for confirmation: no answer on standard input").Hint("--yes skips the question")
	}
	if strings.TrimSpace(line) != word {
		return fault.New(fault.Failed, "nothing was changed: %q was not typed", word)
	}
	return nil
}

// Secret reads a passphrase without showing it.
func (s *Screen) Secret(prompt string) ([]byte, error) {
	f, ok := s.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, fault.New(fault.Usage, "cannot ask for a passphrase: standard input is no terminal")
	}
	fmt.Fprintf(s.Err, "%s: ", prompt)
	secret, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(s.Err)
	if err != nil {
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	return secret, nil
}
