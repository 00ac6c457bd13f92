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
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
)

// ground is the network as the kernel has it.
type ground struct{ *network.Reconciler }

// RPFilterWarning asks the kernel.
func (ground) RPFilterWarning(private netip.Addr) (string, error) {
	return network.RPFilterWarning(private)
}

// speaker runs the BGP speaker's unit and talks to its socket.
type speaker struct {
	units interface {
		Start(ctx context.Context, unit string) error
		Stop(ctx context.Context, unit string) error
		Restart(ctx context.Context, unit string) error
	}
	client *announce.Client
	plan   string // the path of its plan, layout.AnnouncePlan on a server
}

// Start gives the speaker its plan and starts it. One that runs by another plan
// takes what it can in place; an older one, which does not know the order, starts
// again.
func (s speaker) Start(ctx context.Context, a plan.Announcement) error {
	data, err := announce.MarshalPlan(a)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(s.plan)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the speaker's former plan: %w", err)
	}
	if err := durable.WriteFile(s.plan, data, 0o600); err != nil {
		return err
	}
	if err := s.units.Start(ctx, layout.UnitAnnounce); err != nil || len(old) == 0 || bytes.Equal(old, data) {
		return err
	}
	if s.client.Reload(ctx) == nil {
		return nil
	}
	return s.units.Restart(ctx, layout.UnitAnnounce)
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
		announce.NewProber(url, caFile).Watch(ctx, changes(func(open bool) {
			select {
			case out <- open:
			case <-ctx.Done():
			}
		}))
	}()
	return out
}

// changes passes on that the gate opened or closed, not another reason for the same.
func changes(report func(open bool)) func(open bool, why string) {
	said, was := false, false
	return func(open bool, _ string) {
		if said && open == was {
			return
		}
		said, was = true, open
		report(open)
	}
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
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	Activating(ctx context.Context, unit string) (bool, error)
}

// directoryUnit runs the directory's unit and talks to its socket.
type directoryUnit struct {
	units  directoryUnits
	client *directory.Client
	data   string // where its databases lie, layout.Directory on a server
	plan   string // the path of its plan, layout.DirectoryPlan on a server
	port   uint16
	state  func() election.State
}

// Generation is the highest that this server began to run.
func (d directoryUnit) Generation(epoch uint64) (uint64, error) {
	return directory.Latest(d.data, epoch)
}

func (d directoryUnit) Start(ctx context.Context, r bootstrap.DirectoryRun) error {
	p := directory.Plan{Epoch: r.Epoch, Generation: r.Generation, CAHash: r.CAHash, Address: netip.AddrPortFrom(r.Address, d.port)}
	// GO gives the right to make a directory until the cluster is sealed; from then
	// on a lost one joins the others, and the Lease gives the right to another one.
	s := d.state()
	p.Bootstrap = r.Make || r.Generation == 0 && s.HoldsGo() && !s.IsSealed()
	for _, peer := range r.Peers {
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
	if err := d.run(ctx, old, data, p); err != nil {
		return err
	}
	_, err = d.client.Members(ctx)
	return err
}

// run starts the unit. One that runs another generation starts again; so does one
// that still waits for the peers of a former plan, who may be gone for good.
func (d directoryUnit) run(ctx context.Context, old, data []byte, p directory.Plan) error {
	if len(old) == 0 || bytes.Equal(old, data) {
		return d.units.Start(ctx, layout.UnitDirectory)
	}
	if was, err := directory.ParsePlan(old); err == nil && was.Names(p) {
		waits, err := d.units.Activating(ctx, layout.UnitDirectory)
		if err != nil {
			return err
		}
		if !waits {
			return d.units.Start(ctx, layout.UnitDirectory)
		}
	}
	return d.units.Restart(ctx, layout.UnitDirectory)
}

func (d directoryUnit) Stop(ctx context.Context) error {
	return d.units.Stop(ctx, layout.UnitDirectory)
}

func (d directoryUnit) BindKey(ctx context.Context, inst, hw, keyHash string) error {
	err := d.client.BindKey(ctx, inst, hw, keyHash)
	if errors.Is(err, directory.ErrKeyTaken) {
		return fmt.Errorf("%w: %w", agent.ErrRefused, err)
	}
	return asAgent(err)
}

// asAgent gives an error of the directory the kind that agents tell apart.
func asAgent(err error) error {
	switch {
	case errors.Is(err, directory.ErrSurplus):
		return kindOf{err, agent.ErrSurplus}
	case errors.Is(err, directory.ErrRevoked), errors.Is(err, directory.ErrMustStay), errors.Is(err, directory.ErrUnknownMember), errors.Is(err, directory.ErrStale):
		return kindOf{err, agent.ErrRefused}
	case errors.Is(err, directory.ErrUnavailable):
		return kindOf{err, agent.ErrNotReady}
	}
	return err
}

// kindOf is an error in its own words and of another kind besides.
type kindOf struct {
	error
	kind error
}

func (k kindOf) Unwrap() []error { return []error{k.error, k.kind} }

func (d directoryUnit) ClaimRole(ctx context.Context, m member.Member, eligible, first bool, controlPlanes, expect int) (member.Role, error) {
	role, err := d.client.ClaimRole(ctx, directory.Claim{
		Inst: m.Inst, HW: m.HW, Name: m.Name, Address: m.Address,
		Eligible: eligible, First: first, ControlPlanes: controlPlanes, Expect: expect,
	})
	return role, asAgent(err)
}

func (d directoryUnit) Approve(ctx context.Context, hw string) error {
	return asAgent(d.client.Approve(ctx, hw))
}

func (d directoryUnit) Remove(ctx context.Context, name string, do bool) (member.Removal, error) {
	removal, err := d.client.Remove(ctx, name, do)
	return removal, asAgent(err)
}

func (d directoryUnit) Members(ctx context.Context) ([]member.Member, error) {
	rows, err := d.client.Members(ctx)
	return rows, asAgent(err)
}

func (d directoryUnit) SetPhase(ctx context.Context, inst string, phase member.Phase, detail string) error {
	return asAgent(d.client.SetPhase(ctx, inst, phase, detail))
}

func (d directoryUnit) Records(ctx context.Context) ([]member.Record, error) {
	records, err := d.client.Records(ctx)
	return records, asAgent(err)
}

func (d directoryUnit) Restore(ctx context.Context, records []member.Record) error {
	return asAgent(d.client.Restore(ctx, records))
}

func (d directoryUnit) AcquireJoin(ctx context.Context, inst string) (agent.JoinTurn, error) {
	turn, err := d.client.AcquireJoin(ctx, inst)
	return turn, asAgent(err)
}

func (d directoryUnit) RenewJoin(ctx context.Context, inst string, token int64) error {
	return asAgent(d.client.RenewJoin(ctx, inst, token))
}

func (d directoryUnit) ReleaseJoin(ctx context.Context, inst string, token int64) error {
	err := d.client.ReleaseJoin(ctx, inst, token)
	if errors.Is(err, directory.ErrLockLost) {
		return nil // it is not held: that is what was asked for
	}
	return asAgent(err)
}

func (d directoryUnit) Spec(ctx context.Context, known int64) (*member.Spec, error) {
	spec, err := d.client.Spec(ctx, known)
	return spec, asAgent(err)
}

func (d directoryUnit) WriteSpec(ctx context.Context, spec member.Spec, expected uint64) error {
	return asAgent(d.client.WriteSpec(ctx, spec, expected))
}

func (d directoryUnit) RestoreSpec(ctx context.Context, spec member.Spec) error {
	return asAgent(d.client.RestoreSpec(ctx, spec))
}
