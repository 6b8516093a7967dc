// Package program starts a program that is talked to over its standard input
// and output, such as one that holds keys (the signer protocol of spec/keys.md),
// and ends it again.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// grace is how long a program may take to end by itself after its input did.
const grace = 5 * time.Second

// Process is a running program: an io.ReadWriteCloser connected to its
// standard input and output.
type Process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	stop context.CancelFunc
}

// Start starts command[0], an absolute path or a name that is looked up in
// PATH, with its arguments. What it writes to standard error goes to stderr.
// When ctx ends the program is killed, which ends any Read and Write too.
func Start(ctx context.Context, command []string, stderr io.Writer) (*Process, error) {
	if len(command) == 0 {
		return nil, errors.New("cannot start program: there is no command")
	}
	ctx, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = stderr
	cmd.WaitDelay = grace
	p := &Process{cmd: cmd, stop: stop}
	var err error
	if p.in, err = cmd.StdinPipe(); err == nil {
		if p.out, err = cmd.StdoutPipe(); err == nil {
			err = cmd.Start()
		}
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("cannot start %s: %w", command[0], err)
	}
	return p, nil
}

// Read reads what the program writes.
func (p *Process) Read(b []byte) (int, error) { return p.out.Read(b) }

// Write writes what the program reads.
func (p *Process) Write(b []byte) (int, error) { return p.in.Write(b) }

// Kill ends the program at once, which ends any Read and Write. Close must
// still be called.
func (p *Process) Kill() { p.stop() }

// Close ends the program's input and waits for the program to end, which it
// must do within five seconds, or it is killed. Its error says that the program
// failed or had to be killed.
func (p *Process) Close() error {
	defer p.stop()
	_ = p.in.Close()
	timer := time.AfterFunc(grace, p.stop)
	defer timer.Stop()
	// What is left to read must be read, or the program might wait for us.
	_, _ = io.Copy(io.Discard, p.out)
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", p.cmd.Args[0], err)
	}
	return nil
}
