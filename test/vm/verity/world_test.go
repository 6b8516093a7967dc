//go:build vm || slow

package verity

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealant-os/sealant/test/vm"
)

// programs are built once for all tests of a run.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sealant-verity-")
	if err != nil {
		return "", err
	}
	run := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/",
		module+"cmd/sealant", module+"cmd/sealant-boot", module+"cmd/sealpub", module+"cmd/sealsrv")
	run.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := run.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// world is a vendor with a baseline and an improvement of both its cryptexes,
// and an enrolled device, in a folder that becomes a data disk:
//
//	dev      the device's file system
//	vendor   sealpub's and sealsrv's folder
type world struct {
	dir, bin string
	tpm      string
	images   string // what the vendor built: base/web.cryptex, a/web.cryptex, …
}

// script runs shell commands on this machine, in the world's folder, in a mount
// namespace and a network of their own.
func (w *world) script(t testing.TB, text string) string {
	t.Helper()
	run := exec.Command("unshare", "--mount", "--net", "sh", "-euc", text)
	run.Dir = w.dir
	run.Env = append(os.Environ(), "PATH="+w.bin+":"+os.Getenv("PATH"), "NO_COLOR=1", "IMAGES="+w.images, "TPM="+w.tpm)
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%s", err, out)
	}
	return string(out)
}

// newWorld makes a world. tpm is the folder of the TPM that keeps the device's
// key; "": a file keeps it.
func newWorld(t testing.TB, tpm string) *world {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t.TempDir(), bin, tpm, t.TempDir()}
	w.script(t, `
		for v in base a; do
			for c in os web; do
				mkdir -p tree/$v/$c
				echo "$c $v" >tree/$v/$c/version
				cp /bin/true tree/$v/$c/run
				seq 1 60000 | sed "s/\$/ $c/" >tree/$v/$c/numbers
				[ $v = base ] || sed -i 's/777/seven/' tree/$v/$c/numbers
				subtype=app; [ $c = web ] || subtype=os
				mkdir -p $IMAGES/$v
				sealpub image build --in tree/$v/$c --out $IMAGES/$v/$c.cryptex --name $c --subtype $subtype >/dev/null
			done
		done
		sealpub init vendor --product ExampleOS --os-version 42.3.0 --throwaway >/dev/null
		sealpub release baseline --dir vendor $IMAGES/base/os.cryptex $IMAGES/base/web.cryptex >/dev/null
		lib=dev/usr/lib/sealant
		mkdir -p $lib/base dev/usr/lib/cryptexes/os dev/usr/lib/cryptexes/web dev/etc/sealant dev/var/lib dev/run dev/dev
		cp vendor/base.json vendor/root.json vendor/ticket-root.pem vendor/log-key.txt $lib/
		cp $IMAGES/base/*.cryptex $lib/base/
		printf '[server]\nurl = "http://127.0.0.1:8470"\n' >dev/etc/sealant/agent.toml
		sealpub release --dir vendor --id SI-2026-0001 --level 1 --cve CVE-2026-1101='A flaw' --severity high --title Fix \
			--cryptex os=$IMAGES/base/os.cryptex:$IMAGES/a/os.cryptex --cryptex web=$IMAGES/base/web.cryptex:$IMAGES/a/web.cryptex >/dev/null
		sealsrv rollout start SI-2026-0001 --dir vendor --percent 100 >/dev/null
		rm -r tree
		ip link set lo up
		sealsrv dev --dir vendor --listen 127.0.0.1:8470 >server.log 2>&1 &
		server=$!
		trap "kill $server; wait" EXIT
		until grep -q http://127 server.log; do sleep 0.1; done
		identity=file
		if [ -n "$TPM" ]; then
			identity=tpm; mkdir -p $TPM
			swtpm socket --tpm2 --tpmstate dir=$TPM --server type=unixio,path=dev/dev/tpmrm0 --ctrl type=unixio,path=$TPM/ctrl --flags not-need-init,startup-clear &
			trap "kill $! $server; wait; rm -f dev/dev/tpmrm0" EXIT
			until ss -xlH | grep -q dev/dev/tpmrm0; do sleep 0.1; done # not before it listens
		fi
		token=$(sealsrv enroll token new --dir vendor -q)
		mount -t tmpfs run dev/run
		sealant-boot --root dev
		sealant --root dev enroll --token "$token" --identity $identity >/dev/null
		umount dev/usr/lib/cryptexes/os dev/usr/lib/cryptexes/web; umount -l dev/run
	`)
	return w
}

// disk makes a data disk of the world.
func (w *world) disk(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	vm.NewDisk(t, path, w.dir)
	return path
}

// guest is what all scripts in the machine begin with.
const guest = `
	D=/d/dev
	mkdir -p /d; mount "$DATA" /d || exit 90
	mount -t tmpfs -o mode=755 run $D/run
	[ ! -e /dev/tpmrm0 ] || ln -sf /dev/tpmrm0 $D/dev/tpmrm0
	sealant() { /x/sealant --root $D --no-color "$@"; }
	boot() { umount -l $D/run; mount -t tmpfs -o mode=755 run $D/run; /x/sealant-boot --root $D; }
	content() { echo "$(cat $D/usr/lib/cryptexes/os/version 2>&1), $(cat $D/usr/lib/cryptexes/web/version 2>&1)"; }
	record() { tr -d '\n ' <$D/run/sealant/boot.json; }
	serve() {
		/x/sealsrv dev --dir /d/vendor --listen 127.0.0.1:8470 >/x/out/server.log 2>&1 &
		server=$!
		until ss -ltn | grep -q :8470; do sleep 0.1; done
	}
	# flip FILE BYTE: changes one byte, on the disk too.
	flip() {
		b=$(dd if="$1" bs=1 skip="$2" count=1 2>/dev/null | od -An -tu1)
		printf "\\$(printf %o $((b ^ 64)))" | dd of="$1" bs=1 seek="$2" conv=notrunc,fsync 2>/dev/null
		echo 3 >/proc/sys/vm/drop_caches
	}
	devices() { echo "$(ls /sys/block | grep -c ^dm-) $(losetup -a | wc -l) $(grep -c erofs /proc/mounts)"; }
`

// run runs a script in the machine with the world's disk.
func (w *world) run(t testing.TB, o vm.Options, script string) *vm.Result {
	t.Helper()
	if o.Boot == vm.Resumed {
		o.Boot = vm.ResumedBare
	}
	files := vm.Files{}
	for _, p := range []string{"sealant", "sealant-boot", "sealsrv"} {
		files[p] = filepath.Join(w.bin, p)
	}
	r := vm.Run(t, o, files, guest+script)
	t.Logf("took %.1f s\n%s", r.Took.Seconds(), strings.TrimRight(r.Out, "\n"))
	return r
}
