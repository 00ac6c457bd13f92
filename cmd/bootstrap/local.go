package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
)

// statusVersion is the version of what the socket and status -o json print.
const statusVersion = 1

// serveLocal answers on the agent's unix socket (0600) until ctx ends. ready is
// called once it listens: from then on status can tell whatever goes wrong.
func serveLocal(ctx context.Context, path string, server *bootstrap.Server, ready func()) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("protecting %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/servers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error here means that the asker went away.
		_ = json.NewEncoder(w).Encode(serverList{Version: statusVersion, Servers: server.Servers(r.Context())})
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	ready()
	if err := s.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", path, err)
	}
	return nil
}
