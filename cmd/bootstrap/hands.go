package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/systemd"
)

// ground is the network as the kernel has it.
type ground struct{ *network.Reconciler }

// RPFilterWarning asks the kernel.
func (ground) RPFilterWarning(private netip.Addr) (string, error) {
	return network.RPFilterWarning(private)
}

// speaker runs the BGP speaker's unit and talks to its socket.
type speaker struct {
	units  *systemd.Manager
	client *announce.Client
}

func (s speaker) Start(ctx context.Context, a plan.Announcement) error {
	data, err := announce.MarshalPlan(a)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(layout.AnnouncePlan, data, 0o600); err != nil {
		return err
	}
	return s.units.Start(ctx, layout.UnitAnnounce)
}

func (s speaker) Stop(ctx context.Context) error { return s.units.Stop(ctx, layout.UnitAnnounce) }

func (s speaker) Withhold(ctx context.Context, p netip.Prefix, withheld bool) error {
	return s.client.Withhold(ctx, p, withheld)
}

func (s speaker) Peers(ctx context.Context) ([]member.PeerStatus, error) {
	status, err := s.client.Status(ctx)
	return status.Peers, err
}

// health probes this server's API server by the same rule as the speaker.
type health struct{}

func (health) Watch(ctx context.Context, url, caFile string) <-chan bool {
	out := make(chan bool)
	go func() {
		defer close(out)
		announce.NewProber(url, caFile).Watch(ctx, func(open bool, _ string) {
			select {
			case out <- open:
			case <-ctx.Done():
			}
		})
	}()
	return out
}

// clock asks the kernel whether NTP keeps the clock.
type clock struct{}

func (clock) Synchronised() (bool, error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return false, fmt.Errorf("adjtimex: %w", err)
	}
	// TIME_ERROR and STA_UNSYNC: the kernel's clock is not disciplined (adjtimex(2)).
	return state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0, nil
}

// directoryUnits is what directoryUnit needs of systemd.
type directoryUnits interface {
	Start(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	Activating(ctx context.Context, unit string) (bool, error)
}

// directoryUnit runs the directory's unit and talks to its socket.
type directoryUnit struct {
	units  directoryUnits
	client *directory.Client
	plan   string // the path of its plan, layout.DirectoryPlan on a server
	port   uint16
	state  func() election.State
}

func (d directoryUnit) Start(ctx context.Context, epoch uint64, caHash string, address netip.Addr, peers []netip.Addr) error {
	p := directory.Plan{Epoch: epoch, CAHash: caHash, Address: netip.AddrPortFrom(address, d.port)}
	// The right to make a directory ends when the cluster is sealed; from then on
	// a lost one joins the others.
	s := d.state()
	p.Bootstrap = s.HoldsGo() && !s.IsSealed()
	for _, peer := range peers {
		p.Peers = append(p.Peers, netip.AddrPortFrom(peer, d.port))
	}
	slices.SortFunc(p.Peers, netip.AddrPort.Compare)
	data, err := p.Marshal()
	if err != nil {
		return err
	}
	old, err := os.ReadFile(d.plan)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the directory's former plan: %w", err)
	}
	if err := durable.WriteFile(d.plan, data, 0o600); err != nil {
		return err
	}
	before, err := directory.ParsePlan(old)
	if err == nil && (before.Epoch != p.Epoch || before.CAHash != p.CAHash) {
		err = d.units.Restart(ctx, layout.UnitDirectory) // what runs is of a decree that was superseded
	} else {
		err = d.run(ctx, !bytes.Equal(old, data))
	}
	if err != nil {
		return err
	}
	_, err = d.client.Members(ctx)
	return err
}

// run starts the unit. One that still waits for the peers of a former plan, who
// may be gone for good, starts again with those of the new one.
func (d directoryUnit) run(ctx context.Context, replanned bool) error {
	waits, err := d.units.Activating(ctx, layout.UnitDirectory)
	if err != nil {
		return err
	}
	if waits && replanned {
		return d.units.Restart(ctx, layout.UnitDirectory)
	}
	return d.units.Start(ctx, layout.UnitDirectory)
}

func (d directoryUnit) BindKey(ctx context.Context, inst, hw, keyHash string) error {
	err := d.client.BindKey(ctx, inst, hw, keyHash)
	if errors.Is(err, directory.ErrKeyTaken) {
		return fmt.Errorf("%w: %w", agent.ErrRefused, err)
	}
	return err
}

func (d directoryUnit) ClaimRole(ctx context.Context, m member.Member, eligible, first bool, controlPlanes int) (member.Role, error) {
	return d.client.ClaimRole(ctx, directory.Claim{
		Inst: m.Inst, HW: m.HW, Name: m.Name, Address: m.Address,
		Eligible: eligible, First: first, ControlPlanes: controlPlanes,
	})
}

func (d directoryUnit) Members(ctx context.Context) ([]member.Member, error) {
	return d.client.Members(ctx)
}

func (d directoryUnit) SetPhase(ctx context.Context, inst string, phase member.Phase, detail string) error {
	return d.client.SetPhase(ctx, inst, phase, detail)
}

func (d directoryUnit) AcquireJoin(ctx context.Context, inst string) (agent.JoinTurn, error) {
	return d.client.AcquireJoin(ctx, inst)
}

func (d directoryUnit) RenewJoin(ctx context.Context, inst string, token int64) error {
	return d.client.RenewJoin(ctx, inst, token)
}

func (d directoryUnit) ReleaseJoin(ctx context.Context, inst string, token int64) error {
	err := d.client.ReleaseJoin(ctx, inst, token)
	if errors.Is(err, directory.ErrLockLost) {
		return nil // it is not held: that is what was asked for
	}
	return err
}
