package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/revocation"
)

// revokedPeriod is how often the agent looks whether the directory's process has
// written another list. Only control planes have one; what a worker serves needs
// no certificate of the agent CA that is still good.
const revokedPeriod = time.Second

// bar keeps the list of revoked instances as the file says.
type bar struct {
	path string
	list *revocation.List
	log  *slog.Logger
	seen fs.FileInfo
}

// openBar reads the file; none is an empty list. A damaged one is an error: this
// server would let somebody in whom it refused before.
func openBar(path string, log *slog.Logger) (*bar, error) {
	b := &bar{path: path, log: log, list: revocation.NewList(instOf)}
	return b, b.read()
}

// instOf reads the instance of a verified connection.
func instOf(cs tls.ConnectionState) (string, error) {
	inst, _, err := identity.PeerOf(cs)
	return inst, err
}

// read takes a file that changed.
func (b *bar) read() error {
	info, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for the revoked instances: %w", err)
	}
	if b.seen != nil && os.SameFile(b.seen, info) && b.seen.ModTime().Equal(info.ModTime()) {
		return nil
	}
	data, err := os.ReadFile(b.path)
	if err != nil {
		return fmt.Errorf("reading the revoked instances: %w", err)
	}
	revoked, err := revocation.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w (remove it: it is written anew from the directory)", b.path, err)
	}
	b.seen = info
	for _, r := range revoked {
		if b.list.Check(r.Inst) == nil {
			b.log.Info("certificate revoked", "name", r.Name, "inst", r.Inst, "connections", b.list.Add(r.Inst))
		}
	}
	return nil
}

// watch follows the file until ctx ends; forget closes this agent's own calls.
func (b *bar) watch(ctx context.Context, forget func()) error {
	tick := time.NewTicker(revokedPeriod)
	defer tick.Stop()
	said, before := "", len(b.list.Insts())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := b.read()
		if err == nil {
			said = ""
		} else if err.Error() != said {
			said = err.Error()
			b.log.Warn("the list of revoked instances stays as it was", "error", err)
		}
		if now := len(b.list.Insts()); now != before {
			before = now
			forget()
		}
	}
}

// identify reads the caller, and refuses each request of one that was removed.
func (b *bar) identify(cs tls.ConnectionState) (agent.Caller, error) {
	from, err := identify(cs)
	if err == nil {
		err = b.list.Check(from.Inst)
	}
	return from, err
}
