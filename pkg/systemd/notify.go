package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells systemd that this service is up. Outside a unit it does nothing.
func Ready() error { return notify(daemon.SdNotifyReady) }

// Stopping tells systemd that this service is on its way down.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

// Status tells systemd, and so systemctl status, what this service does now: one
// line.
func Status(text string) error {
	return notify("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notifying systemd: %w", err)
	}
	return nil
}

// Watchdog feeds the unit's watchdog (WatchdogSec=) at half its period while
// alive returns nil, until ctx ends. Once alive fails nothing is fed any more,
// and systemd ends and restarts the service; stuck is told why, once. Without a
// watchdog it returns at once.
func Watchdog(ctx context.Context, alive func() error, stuck func(error)) error {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading WATCHDOG_USEC and WATCHDOG_PID: %w", err)
	}
	if period == 0 {
		return nil
	}
	return feed(ctx, period/2, alive, stuck, func() error { return notify(daemon.SdNotifyWatchdog) })
}

func feed(ctx context.Context, every time.Duration, alive func() error, stuck func(error), bark func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := false
	for {
		if err := alive(); err == nil {
			said = false
			if err := bark(); err != nil {
				return err
			}
		} else if !said {
			said = true
			stuck(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
