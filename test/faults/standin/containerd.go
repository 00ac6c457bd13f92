package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/mustermetal/muster/pkg/layout"
)

// containerd listens and says so to systemd.
func containerd() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(filepath.Dir(layout.Containerd), 0o711); err != nil {
		return err
	}
	_ = os.Remove(layout.Containerd) // of a run before
	l, err := net.Listen("unix", layout.Containerd)
	if err != nil {
		return err
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return err
	}
	server := &http.Server{Handler: http.NotFoundHandler()} //nolint:gosec // nobody asks it anything
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
