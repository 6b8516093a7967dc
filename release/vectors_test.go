package release

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// vectorsDir has documents that any implementation can run: a header of
// "key: value" lines, a blank line, the document's bytes, and a final line feed
// that is no part of them.
const vectorsDir = "../spec/vectors/release"

var update = flag.Bool("update", false, "write the vectors anew")

// parsers are the documents by the word in a vector's header.
var parsers = map[string]func([]byte) (Digest, error){
	"baseline": func(b []byte) (Digest, error) { d, err := ParseBaseline(b); return d.Digest(), err },
	"manifest": func(b []byte) (Digest, error) { d, err := ParseManifest(b); return d.Digest(), err },
	"recall":   func(b []byte) (Digest, error) { d, err := ParseRecallList(b); return d.Digest(), err },
	"advice":   func(b []byte) (Digest, error) { d, err := ParseAdviceList(b); return d.Digest(), err },
	"rollout":  func(b []byte) (Digest, error) { d, err := ParseRollout(b); return d.Digest(), err },
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	files, err := filepath.Glob(filepath.Join(vectorsDir, "*.txt"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		head, body, ok := strings.Cut(string(text), "\n\n")
		body, ended := strings.CutSuffix(body, "\n")
		header := map[string]string{}
		for line := range strings.SplitSeq(head, "\n") {
			k, v, found := strings.Cut(line, ": ")
			ok = ok && found
			header[k] = v
		}
		parse := parsers[header["document"]]
		if !ok || !ended || parse == nil {
			t.Errorf("%s: malformed vector", name)
			continue
		}
		digest, err := parse([]byte(body))
		switch header["expect"] {
		case "ok":
			if err != nil || digest.String() != header["digest"] {
				t.Errorf("%s: %v, digest %s", name, err, digest)
			}
		case "refused":
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		default:
			t.Errorf("%s: expect %q", name, header["expect"])
		}
	}
}

// TestRolloutVectors checks the place of devices: "device release salt first",
// where first is the lowest percentage at which the device is in.
func TestRolloutVectors(t *testing.T) {
	const file = "../spec/vectors/rollout/places.txt"
	if *update {
		writePlaces(t, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		id, err := hex.DecodeString(f[0])
		first, err2 := strconv.Atoi(f[3])
		if err != nil || err2 != nil || len(id) != 32 {
			t.Fatalf("malformed vector %q", line)
		}
		for percent := range 101 {
			if got := InRollout([32]byte(id), f[1], f[2], percent); got != (percent >= first) {
				t.Errorf("%q: in at %d: %v", line, percent, got)
			}
		}
		lines++
	}
	if lines < 10 {
		t.Errorf("%d lines", lines)
	}
}

// TestReference runs the second reader, which is Python's own JSON and hashes.
func TestReference(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here: the second reader of the vectors can't run")
	}
	if out, err := exec.Command(python, filepath.Join(vectorsDir, "reference.py")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func writePlaces(t *testing.T, file string) {
	t.Helper()
	out := "# device id, release, salt, lowest percentage that offers it: see rollout.md\n"
	for i := range 12 {
		digest := DigestOf([]byte{byte(i)})
		device := [32]byte(digest[:32])
		release, salt := fmt.Sprintf("SI-2026-%04d", 7+i%2), strings.Repeat(fmt.Sprintf("%02x", i%3), 16)
		first := 0
		for !InRollout(device, release, salt, first) {
			first++
		}
		out += fmt.Sprintf("%x %s %s %d\n", device, release, salt, first)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeVectors makes the vectors from the documents of the tests, spoiled in
// one way each.
func writeVectors(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(vectorsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, kind, expect, comment, body string) {
		head := fmt.Sprintf("comment: %s\ndocument: %s\nexpect: %s\n", comment, kind, expect)
		if expect == "ok" {
			head += fmt.Sprintf("digest: %s\n", DigestOf([]byte(body)))
		}
		if err := os.WriteFile(filepath.Join(vectorsDir, name+".txt"), []byte(head+"\n"+body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	good := map[string]string{}
	for _, k := range kinds {
		data, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		good[k.name] = string(data)
		write(k.name+"-ok", k.name, "ok", "a good document", good[k.name])
	}
	for name, doc := range good {
		for what, body := range map[string]string{
			"not-canonical-space":  strings.Replace(doc, `":`, `": `, 1),
			"not-canonical-order":  "{" + strings.Replace(doc[1:], `,"schema":"`, `,"Schema":"`, 1),
			"not-canonical-escape": strings.Replace(doc, "ExampleOS", `\u0045xampleOS`, 1),
			"duplicate-member":     `{"product":"ExampleOS",` + doc[1:],
			"unknown-member":       doc[:len(doc)-1] + `,"zz":1}`,
			"extra-bytes":          doc + " ",
			"truncated":            doc[:len(doc)-1],
			"other-schema":         strings.Replace(doc, `/1"`, `/2"`, 1),
			"null":                 "null",
		} {
			write(name+"-"+what, name, "refused", strings.ReplaceAll(what, "-", " "), body)
		}
	}
	m := good["manifest"]
	for what, change := range map[string][2]string{
		"level-0":            {`"level":2`, `"level":0`},
		"level-27":           {`"level":2`, `"level":27`},
		"float":              {`"level":2`, `"level":2.0`},
		"id-with-path":       {`"id":"SI-2026-0007"`, `"id":"SI-2026-0007/../x"`},
		"upper-case-digest":  {`"root":"30`, `"root":"3A`},
		"short-digest":       {`"build_id":{"after":"41fa"`, `"build_id":{"after":"41f"`},
		"absolute-path":      {`"path":"usr/`, `"path":"/usr/`},
		"control-character":  {`Web content`, `Web\u001bcontent`},
		"bidi-control":       {`Web content`, "Web\u202econtent"},
		"local-time":         {`18:00:00Z`, `18:00:00+01:00`},
		"fraction-of-second": {`18:00:00Z`, `18:00:00.5Z`},
		"previous-missing":   {`"previous":"SI-2026-0006"`, `"previous":""`},
		"unknown-severity":   {`"severity":"critical"`, `"severity":"severe"`},
		"nothing-changes":    {strings.Repeat("30", 48), strings.Repeat("20", 48)},
		"size-of-no-block":   {`"size":262144`, `"size":262145`},
	} {
		body := strings.Replace(m, change[0], change[1], 1)
		if body == m {
			t.Fatalf("%s: nothing to spoil", what)
		}
		write("manifest-"+what, "manifest", "refused", strings.ReplaceAll(what, "-", " "), body)
	}
	text := strings.Replace(m, "Web content", `\"Wëb\" <content> \\ `+"\u200d", 1)
	write("manifest-ok-text", "manifest", "ok", "text beyond ASCII, with the two escapes that are needed", text)
	write("recall-circle", "recall", "refused", "two recalls that lead to each other", strings.Replace(good["recall"], `"entries":[`,
		`"entries":[{"date":"2026-11-25T09:00:00Z","reason":"x","release":"SI-2026-0006","text":"","to":"SI-2026-0007"},`, 1))
	const leaf = `{"date":"2026-11-25T09:00:00Z","id":"%s","reason":"its key was stolen"}`
	one, two := fmt.Sprintf(leaf, strings.Repeat("0a", 32)), fmt.Sprintf(leaf, strings.Repeat("0b", 32))
	for what, list := range map[string]string{"ok": one + "," + two, "none": "", "unsorted": two + "," + one, "twice": one + "," + one, "zeros": fmt.Sprintf(leaf, strings.Repeat("00", 32))} {
		expect := "refused"
		if what == "ok" {
			expect = what
		}
		write("recall-leaves-"+what, "recall", expect, "revoked leaves: "+what, strings.Replace(good["recall"], `,"product"`, `,"leaves":[`+list+`],"product"`, 1))
	}
	write("advice-weak-evidence", "advice", "refused", "evidence below 10", strings.Replace(good["advice"], `"min_evidence":20`, `"min_evidence":9`, 1))
	write("rollout-101-percent", "rollout", "refused", "more than all", strings.Replace(good["rollout"], `"percent":10`, `"percent":101`, 1))
	write("baseline-one-name-twice", "baseline", "refused", "two cryptexes of one name", strings.Replace(good["baseline"], `"name":"web"`, `"name":"os"`, 1))
}
