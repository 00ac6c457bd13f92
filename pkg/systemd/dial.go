package systemd

import (
	"context"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// connection is go-systemd's connection with the one call that it lacks.
type connection struct {
	*dbus.Conn
	raw *godbus.Conn // nil where no D-Bus daemon runs
}

// dial connects to the system bus, or to PID 1's own socket where no D-Bus
// daemon runs. The connections end with ctx.
func dial(ctx context.Context) (bus, error) {
	c, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		raw = nil // only the pin is lost, see Pin
	}
	return &connection{Conn: c, raw: raw}, nil
}

func (c *connection) Connected() bool {
	return c.Conn.Connected() && (c.raw == nil || c.raw.Connected())
}

func (c *connection) Close() {
	c.Conn.Close()
	if c.raw != nil {
		_ = c.raw.Close()
	}
}

// Pin keeps systemd from forgetting a unit until release is called. A unit that
// nothing refers to is unloaded the moment it is down, and with it goes what its
// start came to: a skipped unit then looks like one that succeeded. It is best
// effort; systemctl start --wait does the same.
func (c *connection) Pin(ctx context.Context, unit string) (release func()) {
	if c.raw == nil {
		return func() {}
	}
	o := c.raw.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if err := o.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.RefUnit", 0, unit).Err; err != nil {
		return func() {}
	}
	return func() {
		o.Go("org.freedesktop.systemd1.Manager.UnrefUnit", godbus.FlagNoReplyExpected, nil, unit)
	}
}
