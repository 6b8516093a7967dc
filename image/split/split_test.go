package split

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/internal/linux"
	"github.com/sealant-os/sealant/test/namespace"
)

func TestMain(m *testing.M) { namespace.Main(m) }

func shell(t testing.TB, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// small makes a tree with a browser, and says where.
func small(t testing.TB) string {
	t.Helper()
	dir := namespace.Dir(t)
	shell(t, dir, `mkdir -p os/usr/bin os/usr/lib/browser/plugins os/etc; cd os
		echo browser >usr/bin/browser; echo engine >usr/lib/libengine.so.1.0; ln -s libengine.so.1.0 usr/lib/libengine.so.1
		echo plugin >usr/lib/browser/plugins/a; chown -R 7:8 usr/lib/browser; touch -d @99 usr/bin/browser`)
	return dir
}

var smallRules = []Rule{
	{Name: "engine", Patterns: []string{"/usr/lib/libengine*"}},
	{Name: "web", Patterns: []string{"usr/bin/browser", "/usr/lib/browser"}},
}

// list is everything below a directory: names, types, modes, owners, sizes,
// targets, inode numbers. Times of directories may change.
func list(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		target, _ := os.Readlink(path)
		line := fmt.Sprintf("%s %o %d:%d ino %d %s", path, st.Mode, st.Uid, st.Gid, st.Ino, target)
		if !e.IsDir() {
			line += fmt.Sprintf(" %d bytes at %d", st.Size, st.Mtim.Nano())
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func run(dir string, step func(what, which string) error) error {
	p, err := New(dir+"/os", smallRules)
	if err == nil {
		_, err = p.Run(context.Background(), Options{Out: dir + "/out/images", Subtype: image.OS, step: step})
	}
	return err
}

// steps are all steps of a run, in order.
func steps(t testing.TB) (all []string) {
	t.Helper()
	dir := small(t)
	err := run(dir, func(what, which string) error {
		all = append(all, what+" "+which)
		return nil
	})
	if err != nil || len(all) != 2+2*4+2+2 {
		t.Fatalf("%q, %v", all, err)
	}
	return all
}

func TestAFailureAtAnyStepChangesNothing(t *testing.T) {
	failure := errors.New("failure")
	for n, name := range steps(t) {
		dir := small(t)
		before := list(t, dir)
		count := 0
		err := run(dir, func(string, string) error {
			if count++; count > n {
				return failure
			}
			return nil
		})
		if !errors.Is(err, failure) {
			t.Fatalf("%s: got %v", name, err)
		}
		if strings.HasPrefix(name, "clean") {
			continue // the split is complete
		}
		if after := list(t, dir); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", name, before, after)
		}
	}
}

func TestAKilledRunIsUndoneByTheNext(t *testing.T) {
	for n, name := range steps(t) {
		dir := small(t)
		before := list(t, dir)
		count := 0
		err := run(dir, func(string, string) error {
			if count++; count > n {
				return errKilled
			}
			return nil
		})
		if !errors.Is(err, errKilled) {
			t.Fatalf("%s: got %v", name, err)
		}
		if _, err := New(dir+"/os", smallRules); fault.KindOf(err) != fault.Busy {
			t.Errorf("%s: planned over an interrupted run: %v", name, err)
		}
		if undone, err := Recover(dir + "/os"); err != nil || !undone {
			t.Fatalf("%s: %v, %v", name, undone, err)
		}
		if undone, err := Recover(dir + "/os"); err != nil || undone {
			t.Errorf("%s: a second time: %v, %v", name, undone, err)
		}
		if strings.HasPrefix(name, "clean") {
			if _, err := os.Stat(dir + "/out/images/web.cryptex"); err != nil {
				t.Errorf("%s: a complete split was undone: %v", name, err)
			}
			continue
		}
		if after := list(t, dir); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", name, before, after)
		}
		if err := run(dir, nil); err != nil {
			t.Errorf("%s: the next run: %v", name, err)
		}
	}
}

func TestAKilledUndoIsUndoneByTheNext(t *testing.T) {
	dir := small(t)
	before := list(t, dir)
	_ = run(dir, func(what, which string) error {
		if what == "commit" {
			return errKilled
		}
		return nil
	})
	// An undo that was killed half way has put the first files back.
	shell(t, dir+"/os", `rm usr/lib/libengine.so.1; mv .sealant-split/old/usr/lib/libengine.so.1 usr/lib; rm ../out/images/web.cryptex`)
	if _, err := Recover(dir + "/os"); err != nil {
		t.Fatal(err)
	}
	if after := list(t, dir); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestTwoSplitsAtOnce(t *testing.T) {
	dir := small(t)
	err := run(dir, func(what, which string) error {
		if what != "link" {
			return nil
		}
		if err := run(dir, nil); fault.KindOf(err) != fault.Busy {
			t.Errorf("the second split: %v", err)
		}
		if _, err := Recover(dir + "/os"); fault.KindOf(err) != fault.Busy {
			t.Errorf("recovering under a running split: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	dir := small(t)
	before := list(t, dir)
	p, err := New(dir+"/os", smallRules)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err = p.Run(ctx, Options{Out: dir + "/out", Subtype: image.OS, step: func(what, _ string) error {
		if what == "link" {
			cancel()
		}
		return nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if after := list(t, dir); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestAFullDiskIsNamedBeforeTheWork(t *testing.T) {
	dir := small(t)
	shell(t, dir, "mkdir disk; mount -t tmpfs -o size=64k tmpfs disk; head -c 200000 /dev/zero >os/usr/bin/browser")
	before := list(t, dir+"/os")
	p, err := New(dir+"/os", smallRules)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Run(context.Background(), Options{Out: dir + "/disk/images", Subtype: image.OS})
	if err == nil || !strings.Contains(err.Error(), "the file system of "+dir+"/disk has") {
		t.Errorf("got %v", err)
	}
	if after := list(t, dir+"/os"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestGlob(t *testing.T) {
	dir := namespace.Dir(t)
	shell(t, dir, `mkdir -p usr/lib/a/b/c usr/lib/x; cd usr/lib; touch one.so two.so a/three.so a/b/four.so a/b/c/five.so x/.hidden.so 'st*r'; ln -s usr/lib ../../lib; ln -s a d; ln -s /usr/lib/x e`)
	for pattern, want := range map[string]string{
		"usr/lib/one.so":       "usr/lib/one.so",
		"/lib/one.so":          "usr/lib/one.so",
		"lib/*.so":             "usr/lib/one.so usr/lib/two.so",
		"lib/d/three.so":       "usr/lib/a/three.so",
		"lib/e/*":              "usr/lib/x/.hidden.so",
		"usr/lib/?/*.so":       "usr/lib/a/three.so usr/lib/x/.hidden.so",
		"usr/**/*.so":          "usr/lib/a/b/c/five.so usr/lib/a/b/four.so usr/lib/a/three.so usr/lib/one.so usr/lib/two.so usr/lib/x/.hidden.so",
		"usr/lib/a/**":         "usr/lib/a/b/c/five.so usr/lib/a/b/four.so usr/lib/a/three.so",
		"**/five.so":           "usr/lib/a/b/c/five.so",
		"**/b/**/five.so":      "usr/lib/a/b/c/five.so",
		"usr/lib/[o-t]*.so":    "usr/lib/one.so usr/lib/two.so",
		`usr/lib/st\*r`:        "usr/lib/st*r",
		"usr/lib/a/b":          "usr/lib/a/b",
		"usr/lib/d":            "usr/lib/d",
		"usr/lib/none/*":       "",
		"usr/lib/one.so/x":     "",
		"../../../etc/passwd*": "refused",
	} {
		parts, err := components(pattern)
		if err != nil {
			if want != "refused" {
				t.Errorf("%s: %v", pattern, err)
			}
			continue
		}
		var got []string
		if err := (tree{dir}).glob(".", parts, func(p string) error { got = append(got, p); return nil }); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", pattern, got, want)
		}
	}
}

func TestResolveNeverLeavesTheTree(t *testing.T) {
	dir := namespace.Dir(t)
	shell(t, dir, `mkdir -p a/b; ln -s /a a/abs; ln -s ../../../.. a/up; ln -s loop a/loop; ln -s /etc a/etc`)
	for p, want := range map[string]string{
		"a/abs/b": "a/b", "a/up/a/b": "a/b", "a/etc/passwd": "etc/passwd", "../../x": "x", "a/../../b": "b", "": ".", "/": ".", "a/./b/.": "a/b", "a/none/x": "a/none/x",
	} {
		if got, err := (tree{dir}).resolve(p); got != want || err != nil {
			t.Errorf("%s: got %s, %v", p, got, err)
		}
	}
	if _, err := (tree{dir}).resolve("a/loop/x"); err == nil {
		t.Error("a loop resolves")
	}
}

func TestParseRule(t *testing.T) {
	for text, ok := range map[string]bool{
		"web=/usr/bin/browser": true, "web=a,b/**": true, "web=packages:libssl3,libc6:amd64,g++-12": true,
		"": false, "web": false, "web=": false, "=a": false, "Web=a": false, "web=a,": false, "web=a//b": false, "web=/": false, "web=.": false, "web=a/../b": false,
		"web=packages:": false, "web=packages:a": false, "web=packages:lib/../x": false, "web=packages:-x": false, "web=packages:x1:": false, "web=packages:x*": false,
	} {
		if r, err := ParseRule(text); (err == nil) != ok {
			t.Errorf("%q: got %+v, %v", text, r, err)
		} else if !ok && fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// The real thing: this machine's own C library, dynamic linker and OpenSSL
// move out of a tree, and its programs run on through the links.
func TestRealPackagesRunThroughTheLinks(t *testing.T) {
	dir := namespace.Dir(t)
	root := dir + "/os"
	shell(t, dir, `mkdir -p os/usr/{bin,sbin,lib,lib64} os/etc os/var/lib/dpkg/info; for l in bin sbin lib lib64; do ln -s usr/$l os/$l; done
		for p in openssl libc6 libssl3*; do p=${p%%\**}; for q in $(dpkg-query -W -f '${Package}\n' "$p*" | grep -E '^(openssl|libc6|libssl3(t64)?)$'); do
			cp /var/lib/dpkg/info/$q.list /var/lib/dpkg/info/$q:*.list os/var/lib/dpkg/info 2>/dev/null || true
			dpkg -L $q | while read f; do [ ! -d "$f" ] && [ -e "$f" ] && echo "$(readlink -f "$(dirname "$f")")/$(basename "$f")"; done
		done; done | sort -u | sed 's,^/,,' >files
		tar -C / --no-recursion -cf - -T files | tar -C os -xf -
		for l in $(ldd /usr/bin/openssl | grep -o '/[^ ]*'); do [ -e "os$(readlink -f $l)" ] || cp --parents $(readlink -f $l) os; done
		for l in $(ldd /usr/bin/openssl | grep -o '/[^ ]*'); do [ -e "os$l" ] || ln -s "$(readlink -f $l)" "os$l"; done
		cp -a /etc/ld.so.* os/etc`)
	before := shell(t, dir, "chroot os /usr/bin/openssl version -a; chroot os /sbin/ldconfig -p | sort")
	packages := "packages:" + strings.Join(strings.Fields(shell(t, dir, `dpkg-query -W -f '${Package}\n' openssl libc6 'libssl3*' | grep -E '^(openssl|libc6|libssl3(t64)?)$' | sort -u`)), ",")
	rule, err := ParseRule("os=" + packages)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(root, []Rule{rule})
	if err != nil {
		t.Fatal(err)
	}
	sums, err := p.Run(context.Background(), Options{Out: dir, Subtype: image.OS})
	if err != nil {
		t.Fatal(err)
	}
	if sums[0].Executables < 100 {
		t.Errorf("got %+v", sums[0])
	}
	shell(t, dir, "! chroot os /usr/bin/openssl version 2>/dev/null") // nothing is mounted
	f, err := os.Open(dir + "/os.cryptex")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := linux.MountErofs(f, linux.Options{Source: "os"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Place(root + "/usr/lib/cryptexes/os"); err != nil {
		t.Fatal(err)
	}
	if after := shell(t, dir, "chroot os /usr/bin/openssl version -a; chroot os /sbin/ldconfig -p | sort"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// The soname links lead into the image, whatever the dynamic linker's cache
	// is: without it too.
	shell(t, dir, "rm os/etc/ld.so.cache; chroot os /usr/bin/openssl list -digest-algorithms >/dev/null")
	// No link in the image leads outside it without starting at the root.
	if out := shell(t, root+"/usr/lib/cryptexes/os", `find . -type l -lname '[!/]*' ! -exec test -e {} \; -print`); out != "" {
		t.Errorf("these links lead nowhere: %s", out)
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("web=/usr/lib/browser,**/*.so")
	f.Add("os=packages:libssl3,libc6:amd64")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(text)
		if err != nil {
			return
		}
		for _, p := range r.Patterns {
			parts, err := components(p)
			if err != nil || len(parts) == 0 || slices.Contains(parts, "..") {
				t.Errorf("%q has the components %q, %v", p, parts, err)
			}
		}
		for _, p := range r.Packages {
			if strings.ContainsAny(p, "/*?[\\ \x00") {
				t.Errorf("%q is taken for a package", p)
			}
		}
	})
}
