// Package storetest gives tests the databases that the server runs on: a fresh
// SQLite file, and a fresh database in a real PostgreSQL that it starts.
package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // to create databases
)

// Each runs a test once on SQLite and once on PostgreSQL. The test gets the
// name of an empty database for store.Open.
func Each(t *testing.T, run func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) { run(t, filepath.Join(t.TempDir(), "fleet.db")) })
	t.Run("postgres", func(t *testing.T) { run(t, Postgres(t)) })
}

var cluster struct {
	sync.Once
	dir  string
	err  error
	cmd  *exec.Cmd
	next atomic.Int64
}

// Main runs a package's tests and stops the PostgreSQL that they may have
// started: func TestMain(m *testing.M) { storetest.Main(m) }.
func Main(m *testing.M) {
	code := m.Run()
	Stop()
	os.Exit(code)
}

// Stop stops the PostgreSQL that tests may have started, for a TestMain that
// has more to do than Main.
func Stop() {
	if cluster.cmd != nil {
		cluster.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
		cluster.cmd.Wait()
		os.RemoveAll(cluster.dir)
	}
}

// Postgres makes an empty database and returns its URL. It needs Debian's
// package postgresql; where that is missing the test is skipped and says so.
func Postgres(tb testing.TB) string {
	tb.Helper()
	bin := binaries()
	if bin == "" {
		tb.Skip("PostgreSQL is not installed (Debian package postgresql)")
	}
	cluster.Do(func() { cluster.err = start(bin) })
	if cluster.err != nil {
		tb.Fatal(cluster.err)
	}
	name := fmt.Sprintf("fleet%d", cluster.next.Add(1))
	if err := execute(tb.Context(), "CREATE DATABASE "+name); err != nil {
		tb.Fatal(err)
	}
	return url(name)
}

func url(database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=sealant", database, cluster.dir)
}

func execute(ctx context.Context, statement string) error {
	db, err := sql.Open("pgx", url("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// binaries is the folder of the newest installed PostgreSQL, "" if there is none.
func binaries() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

func start(bin string) error {
	dir, err := os.MkdirTemp("/tmp", "sealsrv-pg-") // the path of its socket must be short
	if err != nil {
		return err
	}
	cluster.dir = dir
	as, err := unprivileged(dir)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "sealant", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a PostgreSQL cluster: %w\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_connections=200")
	// It must not outlive a test that is killed.
	death := *as
	death.Pdeathsig = syscall.SIGINT
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = &death, dir, &log, &log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start PostgreSQL: %w", err)
	}
	cluster.cmd = cmd
	for range 300 {
		if err = execute(context.Background(), "SELECT 1"); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("cannot reach PostgreSQL: %w\n%s", err, log.String())
}

// unprivileged makes a child run as nobody if we are root, whom PostgreSQL
// refuses to serve.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{}
	if os.Getuid() != 0 {
		return attr, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, uid, gid)
}
