// Reader shows a plain-text document, with the files it includes. It is the
// app of the demo: built without a tag it follows a crafted document anywhere
// (CVE-2026-1101), with the tag a it refuses, and with the tag b it also
// refuses endless inclusion (CVE-2026-1142) but dies on documents with
// pictures, which the releases before it show.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
)

func main() {
	debug.SetTraceback("crash") // die by signal, as programs without a runtime do
	stay := flag.Bool("stay", false, "keep the document open until told to end; show it again at every line on standard input")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: reader [--stay] DOCUMENT")
		os.Exit(2)
	}
	err := show(os.Stdout, flag.Arg(0), 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
	}
	if *stay {
		wait(flag.Arg(0))
	}
	if err != nil {
		os.Exit(3)
	}
}

// wait shows the document again for every line that comes in, and ends on
// SIGTERM; the end of standard input does not end it.
func wait(document string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if err := show(os.Stdout, document, 0); err != nil {
				fmt.Fprintln(os.Stderr, "reader:", err)
			}
		}
	}()
	<-end
}

func show(w io.Writer, document string, depth int) error {
	file, err := os.Open(document)
	if err != nil {
		return err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "@include "); ok {
			if err := allow(name, depth); err != nil {
				return err
			}
			if err := show(w, filepath.Join(filepath.Dir(document), name), depth+1); err != nil {
				return err
			}
		} else if name, ok := strings.CutPrefix(line, "@picture "); ok {
			fmt.Fprintln(w, picture(name))
		} else {
			fmt.Fprintln(w, line)
		}
	}
	return nil
}
