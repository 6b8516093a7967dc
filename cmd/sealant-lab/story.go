package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
)

// story tells a demo: it prints each command as a person would type it, runs
// it for real, prints what it said, and checks that. The demo and the test are
// the same story; the test prints one line a step.
type story struct {
	screen  *cli.Screen
	out     io.Writer
	dir     string // the vendor's desk, and everything else of this run
	terse   bool   // print checks rather than output
	passed  int
	failed  int
	begun   time.Time
	device  *device
	server  *exec.Cmd
	address string // the server's URL
	opened  []*exec.Cmd
	facts   []fact
}

// fact is a figure for the end of the story.
type fact struct{ name, value string }

// stage names whose terminal a command is typed at.
type stage string

const (
	vendor stage = "vendor"
	kiosk  stage = "kiosk"
	lab    stage = "lab" // this machine, around the pretend device
)

// result is what a command did.
type result struct {
	output string // standard output and standard error, as they came
	code   int
	took   time.Duration
}

// want is something a step must have done; it returns what is wrong, "" if nothing.
type want func(result) string

func exits(code int) want {
	return func(r result) string {
		if r.code != code {
			return fmt.Sprintf("exit code %d, want %d", r.code, code)
		}
		return ""
	}
}

func shows(pattern string) want {
	re := regexp.MustCompile(pattern)
	return func(r result) string {
		if !re.MatchString(r.output) {
			return fmt.Sprintf("does not show %q", pattern)
		}
		return ""
	}
}

func hides(pattern string) want {
	re := regexp.MustCompile(pattern)
	return func(r result) string {
		if re.MatchString(r.output) {
			return fmt.Sprintf("shows %q", pattern)
		}
		return ""
	}
}

// errStory ends a demo whose step did not do what it must.
var errStory = errors.New("the story did not go as told")

func (s *story) chapter(title string) {
	if s.terse {
		return
	}
	fmt.Fprintf(s.out, "\n%s\n", s.screen.Strong("== "+title+" "+strings.Repeat("=", max(3, 74-len(title)))))
}

func (s *story) say(format string, args ...any) {
	if !s.terse {
		fmt.Fprintf(s.out, "%s\n", s.screen.Faint("# "+fmt.Sprintf(format, args...)))
	}
}

// run types a command at a stage and checks what came of it; without a wanted
// exit code it must succeed.
func (s *story) run(at stage, line string, wants ...want) result {
	prompt := map[stage]string{vendor: "vendor$ ", kiosk: "kiosk# ", lab: "lab# "}[at]
	if !s.terse {
		fmt.Fprintf(s.out, "%s%s\n", s.screen.Strong(prompt), line)
	}
	cmd, err := s.command(at, line)
	if err != nil {
		return s.judge(prompt+line, result{output: err.Error(), code: 1}, wants)
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if !s.terse {
		tee := io.MultiWriter(s.out, &output)
		cmd.Stdout, cmd.Stderr = tee, tee
	}
	begun := time.Now()
	err = cmd.Run()
	r := result{output: output.String(), took: time.Since(begun)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code, r.output = 1, err.Error()
	}
	if !s.terse && !strings.HasSuffix(r.output, "\n") && r.output != "" {
		fmt.Fprintln(s.out)
	}
	return s.judge(prompt+line, r, wants)
}

func (s *story) judge(step string, r result, wants []want) result {
	if len(wants) == 0 {
		wants = []want{exits(0)}
	}
	var wrong []string
	for _, w := range wants {
		if text := w(r); text != "" {
			wrong = append(wrong, text)
		}
	}
	if len(wrong) == 0 {
		s.passed++
		if s.terse {
			fmt.Fprintf(s.out, "ok    %s\n", step)
		}
		return r
	}
	s.failed++
	fmt.Fprintf(s.out, "FAIL  %s\n      %s\n", step, strings.Join(wrong, "; "))
	if s.terse {
		fmt.Fprintf(s.out, "%s\n", indent(r.output))
	}
	return r
}

// check judges something that is no command.
func (s *story) check(what string, err error) {
	r := result{}
	if err != nil {
		r = result{output: err.Error(), code: 1}
	}
	if err != nil || s.terse {
		s.judge(what, r, nil)
	} else {
		s.passed++
	}
}

func indent(text string) string {
	return "      | " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n      | ")
}

// command prepares a shell line for a stage.
func (s *story) command(at stage, line string) (*exec.Cmd, error) {
	if at == kiosk {
		return s.device.command("bash", "-c", line)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(self)+":"+os.Getenv("PATH"), "LANG=C.UTF-8", "NO_COLOR=1")
	return cmd, nil
}

// open starts a program on the device and leaves it running, as a person
// leaves a window open.
func (s *story) open(line string) {
	if !s.terse {
		fmt.Fprintf(s.out, "%s%s &\n", s.screen.Strong("kiosk# "), line)
	}
	cmd, err := s.command(kiosk, "exec "+line)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.check("kiosk# "+line+" &", err)
		return
	}
	go cmd.Wait()
	s.opened = append(s.opened, cmd)
	time.Sleep(150 * time.Millisecond) // let it show its document first
}

// restart switches the device off and on; its programs end, its state stays.
func (s *story) restart() result {
	if !s.terse {
		fmt.Fprintf(s.out, "%s%s\n", s.screen.Strong("kiosk# "), "reboot")
	}
	begun := time.Now()
	err := s.device.down()
	printed := ""
	if err == nil {
		printed, err = s.device.boot()
	}
	r := result{output: printed, took: time.Since(begun)}
	if err != nil {
		r.code, r.output = 1, printed+err.Error()
	}
	if !s.terse && r.output != "" {
		fmt.Fprintln(s.out, strings.TrimRight(r.output, "\n"))
	}
	return s.judge("kiosk# reboot", r, nil)
}

func (s *story) note(name, format string, args ...any) {
	s.facts = append(s.facts, fact{name, fmt.Sprintf(format, args...)})
}

// end prints the figures, cleans up, and says whether the story went as told.
func (s *story) end(keep bool) error {
	if len(s.facts) > 0 {
		s.chapter("Figures")
		for _, f := range s.facts {
			fmt.Fprintf(s.out, "%-34s %s\n", f.name, f.value)
		}
	}
	s.close(keep)
	fmt.Fprintf(s.out, "\n%d passed, %d failed\n", s.passed, s.failed)
	if s.failed > 0 {
		return fault.New(fault.Failed, "%w", errStory)
	}
	return nil
}

// close ends everything the story started and removes its folder.
func (s *story) close(keep bool) {
	if s.device != nil {
		if err := s.device.down(); err != nil {
			fmt.Fprintln(s.out, "cannot switch the device off:", err)
		}
	}
	if s.server != nil && s.server.Process != nil {
		s.server.Process.Kill()
		s.server.Wait()
	}
	if keep {
		fmt.Fprintf(s.out, "everything is kept in %s\n", s.dir)
		return
	}
	os.RemoveAll(s.dir)
}

// quiet runs a command that is no part of the story.
func (s *story) quiet(at stage, line string) result {
	cmd, err := s.command(at, line)
	if err != nil {
		return result{output: err.Error(), code: 1}
	}
	out, err := cmd.CombinedOutput()
	r := result{output: string(out)}
	if err != nil {
		r.code = 1
	}
	return r
}

// mustShow is shows for a result that was judged already.
func mustShow(r result, patterns ...string) error {
	for _, pattern := range patterns {
		if text := shows(pattern)(r); text != "" {
			return fmt.Errorf("%s:\n%s", text, r.output)
		}
	}
	return nil
}

func lastWord(text string) string {
	words := strings.Fields(text)
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// fails wants any exit code but 0.
func fails() want {
	return func(r result) string {
		if r.code == 0 {
			return "exit code 0, want a failure"
		}
		return ""
	}
}
