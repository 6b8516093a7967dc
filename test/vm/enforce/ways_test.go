//go:build vm || slow

package enforce

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// ways makes code of a file in the ways that are no plain execve: ways HOW FILE. It
// ends with 0 if the kernel let it, with 126 if it was refused.
const ways = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static char *none[] = {0};
static int end(int failed) {
	if (!failed) return 0;
	if (errno == EACCES) return 126;
	perror("ways");
	return 1;
}
int main(int n, char **arg) {
	char *how = arg[1], *run[] = {arg[2], 0}, path[64];
	int f = open(arg[2], O_RDONLY);
	struct stat s;
	if (f < 0 || fstat(f, &s)) return 2;
	if (!strcmp(how, "fexecve")) {
		syscall(SYS_execveat, f, "", run, none, AT_EMPTY_PATH);
	} else if (!strcmp(how, "path")) { // a descriptor that can't even be read
		syscall(SYS_execveat, open(arg[2], O_PATH), "", run, none, AT_EMPTY_PATH);
	} else if (!strcmp(how, "descriptor")) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", f);
		execve(path, run, none);
	} else if (!strcmp(how, "memfd")) {
		int m = memfd_create("x", 0);
		if (m < 0 || sendfile(m, f, 0, s.st_size) != s.st_size) return 2;
		syscall(SYS_execveat, m, "", run, none, AT_EMPTY_PATH);
	} else if (!strcmp(how, "map")) {
		return end(mmap(0, s.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, f, 0) == MAP_FAILED);
	} else if (!strcmp(how, "shared")) {
		return end(mmap(0, s.st_size, PROT_EXEC, MAP_SHARED, f, 0) == MAP_FAILED);
	} else if (!strcmp(how, "protect")) {
		return end(mprotect(mmap(0, s.st_size, PROT_READ, MAP_PRIVATE, f, 0), s.st_size, PROT_READ | PROT_EXEC));
	} else if (!strcmp(how, "written")) {
		char *at = mmap(0, s.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0);
		at[0] ^= 1;
		return end(mprotect(at, s.st_size, PROT_READ | PROT_EXEC));
	} else if (!strcmp(how, "pkey")) {
		return end(syscall(SYS_pkey_mprotect, mmap(0, s.st_size, PROT_READ, MAP_PRIVATE, f, 0), s.st_size, PROT_EXEC, -1));
	} else if (!strcmp(how, "implied")) {
		if (personality(READ_IMPLIES_EXEC) < 0) return 2;
		return end(mmap(0, s.st_size, PROT_READ, MAP_PRIVATE, f, 0) == MAP_FAILED);
	} else {
		return 2;
	}
	return end(1);
}`

// TestWays tries to execute what a cryptex's trust cache does not list by every way
// that leads to a file.
func TestWays(t *testing.T) {
	vm.Proves(t, "by no way is an unlisted file of a cryptex executed or mapped as code: descriptors, bind mounts, /proc/PID/root, chroot, namespaces, interpreters, ld.so; copies by memfd and overlay are refused to strict apps")
	root, dir := t.TempDir(), t.TempDir()
	deliver(t, root)
	must(t, os.WriteFile(filepath.Join(dir, "ways.c"), []byte(ways), 0o644))
	if out, err := exec.Command("gcc", "-static", "-O1", "-o", filepath.Join(dir, "ways"), filepath.Join(dir, "ways.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r := vm.Run(t, vm.Options{}, vm.Files{
		"root":         root,
		"ways":         filepath.Join(dir, "ways"),
		"sealant":      compiled(t, "build", "./cmd/sealant"),
		"sealant-boot": compiled(t, "build", "./cmd/sealant-boot"),
	}, `
		cp -a root/. / && cp sealant sealant-boot ways /usr/bin/ && mkdir -p /etc/sealant/apps.d
		W=/usr/lib/cryptexes/web
		sealant-boot && sealant enforce load || exit 1
		try() {
			name=$1; shift
			if out=$("$@" 2>&1); then echo "$name: ok"; else echo "$name: $? $out"; fi
		}
		for how in fexecve path descriptor map shared protect written pkey implied; do
			try listed-$how ways $how $W/listed
			try $how ways $how $W/unlisted
		done
		mkdir /tmp/bound /tmp/file /tmp/o /tmp/u /tmp/w; touch /tmp/file/x
		mount --bind $W /tmp/bound; try bound /tmp/bound/unlisted
		mount --bind $W/unlisted /tmp/file/x; try bound-file /tmp/file/x
		sleep 100 & try proc-root /proc/$!/root$W/unlisted
		try cwd sh -c "cd $W; ./unlisted"
		try namespace unshare --mount --user --map-root-user $W/unlisted
		mount --rbind /proc $W/proc 2>/dev/null
		try chroot chroot /tmp/bound /unlisted
		try nobody setpriv --reuid 65534 --clear-groups $W/unlisted
		ln -s $W/unlisted /tmp/link; try link /tmp/link
		printf '#!%s/unlisted\n' $W >/tmp/script; chmod +x /tmp/script; try interpreter /tmp/script
		try script $W/unlisted.sh
		L=/lib64/ld-linux-x86-64.so.2
		try loader $L $W/unlisted
		try loader-preload sh -c "$L --preload $W/unlisted.so /usr/bin/true 2>&1 | grep -c 'cannot be preloaded'"
		try audit sh -c "LD_AUDIT=$W/unlisted.so /usr/bin/true 2>&1 | grep -c 'cannot be loaded'"
		mkdir /tmp/lib; ln -s $W/unlisted.so /tmp/lib/libz.so.1
		try library sh -c "LD_LIBRARY_PATH=/tmp/lib LD_PRELOAD=libz.so.1 /usr/bin/true 2>&1 | grep -c 'cannot be preloaded'"
		# The same device, mounted once more.
		device=/dev/$(basename $(readlink -f /sys/dev/block/$(mountpoint -d $W))); [ -b $device ] || mknod $device b $(mountpoint -d $W | tr : ' ')
		mkdir /tmp/again; mount -t erofs -o ro $device /tmp/again && try again /tmp/again/unlisted

		# What was copied is another file: a free app's, no strict one's.
		mount -t overlay -o lowerdir=$W,upperdir=/tmp/u,workdir=/tmp/w overlay /tmp/o; ln /tmp/o/unlisted /tmp/o/hard
		printf 'cryptexes=["web"]\ncommand=["/bin/sh"]\nstrict=true\n' >/etc/sealant/apps.d/strict.toml
		strict() { sealant run strict -- -c "$*"; }
		try strict-listed strict $W/listed
		try strict-unlisted strict $W/unlisted
		try free-memfd ways memfd $W/listed
		try strict-memfd strict ways memfd $W/listed
		try strict-fexecve strict ways fexecve $W/unlisted
		try strict-overlay strict /tmp/o/unlisted
		try strict-hard strict /tmp/o/hard
		try strict-overlay-map strict ways map /tmp/o/unlisted
		try strict-upper strict /tmp/u/hard
		cp $W/listed /tmp/copy; try strict-copy strict /tmp/copy
		dmesg | grep -iE 'BUG|oops' | grep -v bug:
		true`)
	t.Logf("took %s\n%s", r.Took, r.Out)
	for _, how := range []string{"fexecve", "path", "descriptor", "map", "shared", "protect", "written", "pkey", "implied"} {
		line(t, r, "listed-"+how, "ok")
		line(t, r, how, "126")
	}
	for _, name := range []string{
		"bound", "bound-file", "proc-root", "cwd", "namespace", "chroot", "nobody", "link", "interpreter", "script", "again",
		"strict-unlisted", "strict-memfd", "strict-fexecve", "strict-overlay", "strict-hard", "strict-overlay-map", "strict-upper", "strict-copy",
	} {
		line(t, r, name, "126")
	}
	for name, want := range map[string]string{
		"loader": "127", "loader-preload": "ok", "audit": "ok", "library": "ok", "strict-listed": "ok", "free-memfd": "ok",
	} {
		line(t, r, name, want)
	}
}
