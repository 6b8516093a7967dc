// Package cli is what Sealant's programs have in common on a terminal: global
// flags, exit codes, JSON documents, glyphs, progress and questions.
//
// The rules it keeps: stdout is data, stderr is for people; meaning is a glyph
// and a word, colour only repeats it; ASCII where the locale is not UTF-8; a
// command that only shows can always show JSON.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sealant-os/sealant/internal/fault"
)

// Version of the programs; the build sets it with -ldflags -X.
var Version = "0.1.0-dev"

// New makes a program's root command with the flags that every command has.
func New(name, short, long string) *cobra.Command {
	root := &cobra.Command{
		Use:           name,
		Short:         short,
		Long:          long + "\n\n" + exitCodes(),
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.Bool("json", false, "print one JSON document, with its schema and version, instead of text")
	flags.Bool("no-color", false, "no colours (also: NO_COLOR in the environment)")
	flags.BoolP("quiet", "q", false, "print results and errors only")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.New(fault.Usage, "%w", err).Hint("%s --help", cmd.CommandPath())
	})
	return root
}

// exitCodes is the table for --help and the man page.
func exitCodes() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n   0  ok\n")
	for _, k := range fault.Kinds() {
		fmt.Fprintf(&b, "  %2d  %s\n", k.ExitCode(), k.Text())
	}
	return strings.TrimRight(b.String(), "\n")
}

// Run runs a program to its end and returns its exit code. Interrupt and
// terminate cancel the command's context, so that it can clean up; a second
// one ends it at once.
func Run(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	for _, generator := range generators {
		root.AddCommand(generator(root))
	}
	strict(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if isUsage(err) {
		err = fault.New(fault.Usage, "%w", err).Hint("%s --help", cmd.CommandPath())
	}
	report(For(cmd), err)
	return fault.ExitCode(err)
}

// generators add commands that only builds of the documentation have.
var generators []func(root *cobra.Command) *cobra.Command

// Main is Run over the process's own arguments and streams.
func Main(root *cobra.Command) {
	os.Exit(Run(root, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit ends a command with a kind's exit code and no message: for the codes
// that are answers rather than failures, such as "an improvement is available".
func Exit(kind fault.Kind) error { return &answer{kind} }

// answer is an exit code without a message.
type answer struct{ kind fault.Kind }

func (a *answer) Error() string { return a.kind.Text() }
func (a *answer) Unwrap() error { return fault.New(a.kind, "%s", a.kind.Text()) }

// report prints a failure: as JSON on stdout when JSON was asked for, so that
// a program that reads us needs no second parser, and for people on stderr.
func report(s *Screen, err error) {
	var silent *answer
	if errors.As(err, &silent) {
		return
	}
	if s.JSON {
		s.Document("sealant.error/1", Failure{
			Error: err.Error(), Reason: fault.KindOf(err).String(), Hint: fault.HintOf(err), ExitCode: fault.ExitCode(err),
		})
		return
	}
	fmt.Fprintf(s.Err, "%s %s\n", s.Bad(), err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(s.Err, "  hint: %s\n", hint)
	}
}

// Failure is the JSON document of a failed command.
type Failure struct {
	Error    string `json:"error"`
	Reason   string `json:"reason"`
	Hint     string `json:"hint,omitempty"`
	ExitCode int    `json:"exit_code"`
}

// isUsage says whether cobra itself refused the command line; its errors have
// no type, only these beginnings.
func isUsage(err error) bool {
	var f *fault.Error
	if errors.As(err, &f) {
		return false
	}
	for _, start := range []string{"unknown command", "accepts ", "requires ", "required flag", "if any flags in the group", "at least one of the flags", "unknown flag", "invalid argument"} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

// strict makes every command that only groups others refuse unknown words
// instead of printing help with exit code 0.
func strict(cmd *cobra.Command) {
	if cmd.HasSubCommands() && cmd.Run == nil && cmd.RunE == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return fault.New(fault.Usage, "unknown command %q for %q", args[0], c.CommandPath()).Hint("%s --help", c.CommandPath())
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// Screen is where a command prints, and how.
type Screen struct {
	Out   io.Writer // data
	Err   io.Writer // people
	In    io.Reader
	JSON  bool
	Quiet bool
	Color bool // stdout understands colours and wants them
	UTF8  bool
	Live  bool // stderr is a terminal: progress may redraw its line
	Width int  // columns of stderr
}

// For reads a command's flags and streams.
func For(cmd *cobra.Command) *Screen {
	flag := func(name string) bool {
		v, err := cmd.Flags().GetBool(name)
		return err == nil && v
	}
	s := &Screen{
		Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr(), In: cmd.InOrStdin(),
		JSON: flag("json"), Quiet: flag("quiet"), UTF8: utf8Locale(), Width: 80,
	}
	_, outTerm := terminal(s.Out)
	s.Color = outTerm && !flag("no-color") && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if f, ok := terminal(s.Err); ok {
		s.Live = os.Getenv("TERM") != "dumb"
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			s.Width = w
		}
	}
	return s
}

func terminal(w io.Writer) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// Document prints v, a struct or map, as one indented JSON document that
// begins with its schema, "sealant.NAME/VERSION".
func (s *Screen) Document(schema string, v any) error {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", schema, err)
	}
	if len(body) < 2 || body[0] != '{' {
		return fmt.Errorf("cannot encode %s: not a JSON object", schema)
	}
	head := fmt.Sprintf("{\n  \"schema\": %q", schema)
	if string(body) == "{}" {
		_, err = fmt.Fprintf(s.Out, "%s\n}\n", head)
		return err
	}
	_, err = fmt.Fprintf(s.Out, "%s,%s\n", head, body[1:])
	return err
}

// Printf prints data for people on stdout; nothing when JSON was asked for.
func (s *Screen) Printf(format string, args ...any) {
	if !s.JSON {
		fmt.Fprintf(s.Out, format, args...)
	}
}

// Notef prints a remark on stderr, unless -q or --json.
func (s *Screen) Notef(format string, args ...any) {
	if !s.JSON && !s.Quiet {
		fmt.Fprintf(s.Err, format, args...)
	}
}
