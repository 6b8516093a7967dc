package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// typePIN asks on the terminal itself and shows nothing of what is typed.
func typePIN() (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("cannot ask for the PIN: there is no terminal (give --pin-file, or " + pinEnv + ")")
	}
	defer tty.Close()
	fmt.Fprint(tty, "PIN of the token: ")
	pin, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	if err != nil {
		return "", fmt.Errorf("cannot read the PIN: %w", err)
	}
	return string(pin), nil
}
