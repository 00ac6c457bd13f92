// Package firewall keeps muster's table of nftables as the plan says, and leaves
// every other table alone.
//
// Floor 2.
package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// packetFilter is what a Keeper needs of nft(8).
type packetFilter interface {
	// List returns the table as nft prints it without counters, "" where there is none.
	List(ctx context.Context) (string, error)
	// Load carries out a script, whole or not at all.
	Load(ctx context.Context, script string) error
}

// Keeper keeps what the last Set asked for. Its methods may be called from several
// goroutines.
type Keeper struct {
	filter packetFilter
	watch  func(ctx context.Context, changed func()) error
	file   string
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	desired *plan.Firewall // nil until the first Set: nothing is removed on no order
	order   string         // digest of what Set was given, before names were looked up
}

// New returns a keeper of this network namespace. stateFile remembers how the table
// looked when it was right; it belongs on a file system that a reboot empties, as
// the table is gone then too.
func New(stateFile string, log *slog.Logger) *Keeper {
	return &Keeper{filter: nft{}, watch: watchKernel, lookup: lookup, file: stateFile, log: log, wake: make(chan struct{}, 1)}
}

// Set takes f as the new order and leaves it to Run to carry it out.
func (k *Keeper) Set(f plan.Firewall) {
	k.mu.Lock()
	k.desired, k.order = &f, digest(f.Script())
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default: // Run is about to look anyway
	}
}

// Look says whether the table is there, and whether it is as an agent's last pass left
// it after the order f. It writes nothing.
func (k *Keeper) Look(ctx context.Context, f plan.Firewall) (there, right bool, err error) {
	have, err := k.filter.List(ctx)
	if errors.Is(err, errNoProgram) && !f.On {
		return false, true, nil
	}
	if err != nil {
		return false, false, err
	}
	if !f.On || have == "" {
		return have != "", f.On == (have != ""), nil
	}
	m := k.recall()
	return true, m.Order == digest(f.Script()) && m.Listing == digest(have), nil
}

// Present says whether the table is there, whatever is in it.
func Present(ctx context.Context) (bool, error) {
	have, err := nft{}.List(ctx)
	if errors.Is(err, errNoProgram) {
		return false, nil
	}
	return have != "", err
}

// Remove takes the table away, and says whether there was one. Without nft there
// can be none of muster's.
func Remove(ctx context.Context) (bool, error) {
	return remove(ctx, nft{})
}

func remove(ctx context.Context, filter packetFilter) (bool, error) {
	have, err := filter.List(ctx)
	if errors.Is(err, errNoProgram) || err == nil && have == "" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, filter.Load(ctx, plan.Firewall{}.Script())
}

// pass compares and writes, once.
func (k *Keeper) pass(ctx context.Context) (member.FirewallStatus, error) {
	k.mu.Lock()
	f, order := k.desired, k.order
	k.mu.Unlock()
	if f == nil {
		return member.FirewallStatus{}, nil
	}
	if !f.On {
		removed, err := remove(ctx, k.filter)
		if err != nil {
			return failed(err), err
		}
		if removed {
			k.log.Info("firewall removed", "table", plan.FirewallTable)
		}
		return member.FirewallStatus{State: member.FirewallOff, Reason: f.Why}, nil
	}
	if f.MetadataName != "" {
		f = k.resolve(ctx, f)
	}
	if err := k.ensure(ctx, order, f.Script()); err != nil {
		return failed(err), err
	}
	return member.FirewallStatus{State: member.FirewallOn}, nil
}

// resolve adds what the name of the metadata service stands for now. What it stood
// for before stays: a name with many addresses gives them in turn.
func (k *Keeper) resolve(ctx context.Context, f *plan.Firewall) *plan.Firewall {
	addrs, err := k.lookup(ctx, f.MetadataName)
	if err != nil {
		k.log.Debug("looking up the metadata service, from which pods are kept", "error", err)
		return f
	}
	more := *f
	for _, a := range addrs {
		more = more.KeptFrom(a, f.MetadataPort)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.desired == f { // no other order came meanwhile
		k.desired = &more
	}
	return &more
}

// lookup asks the server's resolver.
func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

func failed(err error) member.FirewallStatus {
	return member.FirewallStatus{State: member.FirewallFailed, Reason: err.Error()}
}

// ensure loads the script, unless the table is as it was when this script had been
// loaded. nft prints a table in other words than it reads it, so what is compared
// is how it printed it then.
func (k *Keeper) ensure(ctx context.Context, order, script string) error {
	right := memory{Version: memoryVersion, Order: order, Script: digest(script)}
	have, err := k.filter.List(ctx)
	if err != nil {
		return err
	}
	right.Listing = digest(have)
	if have != "" && k.recall() == right {
		return nil
	}
	if err := k.filter.Load(ctx, script); err != nil {
		return err
	}
	k.log.Info("firewall written", "table", plan.FirewallTable, "was there", have != "")
	have, err = k.filter.List(ctx)
	if err != nil {
		return err
	}
	right.Listing = digest(have)
	return k.remember(right)
}

// memory is the content of the state file.
type memory struct {
	Version int    `json:"version"`
	Order   string `json:"order"`   // sha256 of what the plan says, before names were looked up
	Script  string `json:"script"`  // sha256 of what nft was given
	Listing string `json:"listing"` // sha256 of what it printed then
}

const memoryVersion = 2

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// recall returns what is remembered. What cannot be read is nothing: the table is
// then written once more, which changes nothing that is right.
func (k *Keeper) recall() memory {
	var m memory
	b, err := os.ReadFile(k.file)
	if err != nil || json.Unmarshal(b, &m) != nil || m.Version != memoryVersion {
		return memory{}
	}
	return m
}

// remember is not fsynced: a power loss takes the table with it.
func (k *Keeper) remember(m memory) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("remember the firewall: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(k.file), filepath.Base(k.file)+".*")
	if err != nil {
		return fmt.Errorf("remember the firewall: %w", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), k.file)
	}
	if err != nil {
		return fmt.Errorf("remember the firewall: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
