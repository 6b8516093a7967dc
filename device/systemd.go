package device

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/sealant-os/sealant/device/localapi"
)

// tellSystemd says something to the service manager, where one asked for it
// (sd_notify(3)).
func tellSystemd(text string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return errors.Join(err, c.Close())
}

// watchdog tells systemd that the agent is well as often as it wants to hear it
// (WatchdogSec=), for as long as the agent's own socket answers a question.
func watchdog(ctx context.Context, socket string) error {
	every, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || every <= 0 || os.Getenv("WATCHDOG_PID") != "" && os.Getenv("WATCHDOG_PID") != strconv.Itoa(os.Getpid()) {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(time.Duration(every) * time.Microsecond / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := alive(ctx, socket); err != nil {
			continue // systemd hears nothing and restarts the agent
		}
		if err := tellSystemd("WATCHDOG=1"); err != nil && ctx.Err() == nil {
			return fmt.Errorf("cannot tell systemd that the agent is well: %w", err)
		}
	}
}

// alive asks the agent at a socket for something small.
func alive(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := localapi.Dial(socket)
	if err != nil {
		return err
	}
	var r Rules
	return c.Call(ctx, "policy", struct{}{}, nil, &r)
}
