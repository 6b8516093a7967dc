package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sealpub": main})
}

// TestScripts runs the commands as people do: testdata/script/*.txtar. Beyond
// testscript's own words there are
//
//	exits CODE REGEXP COMMAND…  the command ends with the code, stderr matches
//	flip FILE OFFSET            flips a bit; a negative offset counts from the end
//	cut FILE N                  takes the last N bytes away
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("LANG", "C.UTF-8")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "flip": flip, "cut": cut,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: exits CODE REGEXP COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	text, err := regexp.Compile(args[1])
	ts.Check(err)
	var stderr bytes.Buffer
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Dir, cmd.Stderr, cmd.Stdout = ts.MkAbs("."), &stderr, ts.Stdout()
	for _, name := range []string{"PATH", "LANG", "HOME", "WORK", "SOURCE_DATE_EPOCH"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	got := 0
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	ts.Logf("%s", stderr.String())
	if got != want || !text.MatchString(stderr.String()) {
		ts.Fatalf("%v ended with %d and %q; want %d and %q", args[2:], got, stderr.String(), want, args[1])
	}
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	file := ts.MkAbs(args[0])
	b, err := os.ReadFile(file)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(file, b, 0o644))
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cut FILE N")
	}
	file := ts.MkAbs(args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	info, err := os.Stat(file)
	ts.Check(err)
	ts.Check(os.Truncate(file, info.Size()-int64(n)))
}
