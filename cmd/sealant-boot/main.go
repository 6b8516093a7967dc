// Sealant-boot attaches the device's cryptexes early at boot: a set that is
// staged and valid, else the current one, else the baseline. It links no
// network code and starts no programs; of a device whose key is in a TPM it reads
// the TPM's counter. See sealant-boot(8).
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sealant-os/sealant/device/activate"
	"github.com/sealant-os/sealant/device/store"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
)

const usage = `usage: sealant-boot [--root DIR] [--run DIR]

Attaches the cryptexes of the set that is to be used at /usr/lib/cryptexes and
says on standard error, and in /run/sealant/boot.json, which one that is and
why others were passed over. It is run once, early at boot, when /usr and
/var/lib/sealant are mounted.

  --root DIR   the folder that the device's file system starts at (default /)
  --run DIR    the folder that will be its /run (default: run below the root).
               In an initrd: --root /sysroot --run /run, as the initrd's /run is
               moved over that of the new root when the root is switched

Exit codes: 0 the wanted set is attached; 2 wrong usage; else it was not, and
the code is that of the first refusal: 31 its ticket, 32 its content, 21 policy
wants the kernel to guard it and this one can't, 1 another reason. What could be attached instead is attached even then.
`

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("sealant-boot", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	root := flags.String("root", "/", "")
	runtime := flags.String("run", "", "")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil || flags.NArg() > 0:
		flags.Usage()
		return fault.Usage.ExitCode()
	}
	if !linux.Root() {
		fmt.Fprintln(stderr, "sealant-boot: cannot attach anything: it needs root")
		return fault.Failed.ExitCode()
	}
	st := store.Below(*root)
	if *runtime != "" {
		st = st.WithRun(*runtime)
	}
	record, err := activate.BootStore(context.Background(), st)
	for _, r := range record.Refused {
		fmt.Fprintf(stderr, "sealant-boot: refused %s: %s\n", subject(r), r.Text)
	}
	fmt.Fprintf(stderr, "sealant-boot: %s\n", outcome(record))
	if err != nil && len(record.Refused) == 0 {
		fmt.Fprintf(stderr, "sealant-boot: %v\n", err)
	}
	return fault.ExitCode(err)
}

// subject names what was refused: "next SI-2026-0007", "the state".
func subject(r activate.Refusal) string {
	switch {
	case r.Slot == "":
		return "the state"
	case r.Release != "":
		return string(r.Slot) + " " + r.Release
	case r.Cryptex != "":
		return string(r.Slot) + " " + r.Cryptex
	}
	return string(r.Slot)
}

func outcome(r activate.Record) string {
	if r.Slot == "" {
		return "nothing is attached"
	}
	names := make([]string, len(r.Cryptexes))
	for i, c := range r.Cryptexes {
		names[i] = c.Name
	}
	what := r.OSVersion + " baseline"
	if r.Release != "" {
		what = r.OSVersion + " " + r.Label + " " + r.Release
	}
	line := fmt.Sprintf("attached %s (%s) from %s: %s", what, r.Enforcement, r.Slot, strings.Join(names, ", "))
	if r.TriesLeft != nil && r.Slot == store.Next {
		line += fmt.Sprintf("; tries left: %d", *r.TriesLeft)
	}
	return line
}
