package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/firewall"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
)

const netStatusHelp = `bootstrap net status shows this server's part of the network: which Elastic IPs should be
on lo, which routes to the top-of-rack routers in the table, and whether there should be a
firewall; what is there, what differs, and how each BGP session is and since when.

What should be there follows from the cluster file, the stored metadata and whether this
server's API server is ready now. It needs no agent.

Usage: bootstrap net status [-o table|json]

Examples:
  bootstrap net status
  bootstrap net status -o json | jq '.speaker.peers[] | select(.state != "established")'

Exit codes: 0 done, whatever it found, 64 wrong command line, 65 the stored metadata
cannot be read, 69 there are none yet, 77 not root, 78 the cluster file is wrong.
`

const netPlanHelp = `bootstrap net plan says what the agent would write now: which addresses on lo and which
routes it would add, correct or remove, and whether the firewall. It writes nothing.

Usage: bootstrap net plan [-o table|json]

Examples:
  bootstrap net plan                     # nothing to write: all is as it should be

Exit codes: 0 done, whatever it found, 64 wrong command line, 65 the stored metadata
cannot be read, 69 there are none yet, 77 not root, 78 the cluster file is wrong.
`

// netVersion is the version of what net status and net plan print with -o json.
const netVersion = 1

// netReport is what -o json prints (docs/net.schema.json). net plan prints the
// version and the changes alone.
type netReport struct {
	Version   int              `json:"version"`
	Desired   *netDesired      `json:"desired,omitempty"`
	Present   *netPresent      `json:"present,omitempty"`
	Changes   []netChange      `json:"changes"`
	APIServer *netHealth       `json:"apiServer,omitempty"` // where the cluster file has Elastic IPs
	Speaker   *announce.Status `json:"speaker,omitempty"`   // when it answers
	// SpeakerProblem says why it does not, where it should.
	SpeakerProblem string `json:"speakerProblem,omitempty"`
}

type netDesired struct {
	Addresses []netip.Prefix `json:"addresses"`
	Routes    []netRoute     `json:"routes"`
	Firewall  netFirewall    `json:"firewall"`
}

type netPresent struct {
	Addresses []netAddress `json:"addresses"`
	Routes    []netRoute   `json:"routes"`
	Firewall  bool         `json:"firewall"`
}

type netFirewall struct {
	On  bool   `json:"on"`
	Why string `json:"why,omitempty"` // it is off, where the cluster file does not say so
}

type netAddress struct {
	Prefix netip.Prefix `json:"prefix"`
	Ours   bool         `json:"ours"`
}

type netRoute struct {
	Dst  netip.Prefix `json:"dst"`
	Via  netip.Addr   `json:"via"`
	Src  netip.Addr   `json:"src"`
	Ours *bool        `json:"ours,omitempty"` // of what is there
}

type netChange struct {
	Do   network.Action `json:"do"`
	Text string         `json:"text"`
}

type netHealth struct {
	Ready bool   `json:"ready"`
	Text  string `json:"text,omitempty"` // what was found when it is not
}

// netView is what the commands look at.
type netView struct {
	config, device, state, firewall, speaker, output string
}

func (v *netView) flags(name, help string, stdout io.Writer) flagSet {
	flags := newFlags(name, help, stdout)
	flags.StringVar(&v.output, "o", "table", "the `format`: table or json")
	flags.StringVar(&v.config, "config", layout.ClusterFile, "the cluster `file` of this server")
	flags.StringVar(&v.device, "device", layout.Device, "the `file` with this server's metadata, as the agent stores it")
	flags.StringVar(&v.state, "state", layout.NetworkState, "the `file` that lists our IPv6 addresses")
	flags.StringVar(&v.firewall, "firewall", layout.FirewallState, "the `file` that tells how the firewall's table looked when it was right")
	return flags
}

func (v *netView) parse(flags flagSet, args []string) error {
	if err := flags.parse(args); err != nil {
		return err
	}
	if v.output != "table" && v.output != "json" {
		return flags.wrong(fmt.Errorf("-o %q: expected table or json", v.output))
	}
	return nil
}

func netStatusCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var v netView
	flags := v.flags("net status", netStatusHelp, stdout)
	flags.StringVar(&v.speaker, "speaker", layout.AnnounceSock, "the `path` of the speaker's socket")
	if err := v.parse(flags, args); err != nil {
		return err
	}
	report, builtin, err := v.look(ctx, stderr)
	if err != nil {
		return err
	}
	status, err := announce.NewClient(v.speaker).Status(ctx)
	switch {
	case err == nil:
		report.Speaker = &status
	case builtin:
		report.SpeakerProblem = err.Error()
	}
	if v.output == "json" {
		return writeJSON(stdout, report)
	}
	return report.write(stdout, time.Now())
}

func netPlanCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var v netView
	if err := v.parse(v.flags("net plan", netPlanHelp, stdout), args); err != nil {
		return err
	}
	report, _, err := v.look(ctx, stderr)
	if err != nil {
		return err
	}
	if v.output == "json" {
		return writeJSON(stdout, netReport{Version: netVersion, Changes: report.Changes})
	}
	for _, c := range report.Changes {
		fmt.Fprintln(stdout, c.Text)
	}
	if len(report.Changes) == 0 {
		fmt.Fprintln(stdout, "nothing to write: all is as it should be")
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// look compares the kernel with what the cluster file and the metadata ask for.
// builtin says that our speaker should run here.
func (v *netView) look(ctx context.Context, stderr io.Writer) (report netReport, builtin bool, err error) {
	c, err := readEffective(v.config)
	if err != nil {
		return report, false, err
	}
	d, err := storedDevice(v.device)
	if err != nil {
		return report, false, err
	}
	r := network.New(v.state, quietLog(stderr))
	report.Version = netVersion
	want, ips := plan.NetworkFor(d, nil, false), plan.ControlPlaneIPs(c.Spec)
	if len(ips) > 0 {
		a := plan.AnnouncementFor(c.Spec, d, "")
		prober := announce.NewProber(a.HealthURL, a.HealthCA)
		defer prober.Close()
		verdict, why := prober.Probe(ctx)
		report.APIServer = &netHealth{verdict == announce.Ready, why}
		if want, err = wanted(r, want, ips, verdict); err != nil {
			return report, false, err
		}
		_, err := os.Stat(layout.AnnouncePlan) // the agent writes it on control planes
		builtin = c.Spec.Network.BGP.ControlPlane == cluster.SpeakerBuiltin && (err == nil || verdict != announce.Failed)
	}
	found, err := r.Look(want)
	if err != nil {
		return report, false, err
	}
	report.fill(want, found)
	guard := plan.FirewallFor(c.Spec, d)
	guarded, right, err := firewall.New(v.firewall, quietLog(stderr)).Look(ctx, guard)
	report.fillFirewall(guard, guarded, right, err)
	return report, builtin, nil
}

// wanted adds the Elastic IPs by the rule of the agent. It bears one whose etcd
// alone fails for some seconds, so for that look what is there may stay.
func wanted(r *network.Reconciler, n plan.Network, ips []netip.Prefix, verdict announce.Verdict) (plan.Network, error) {
	switch verdict {
	case announce.Ready:
		n.Addresses = ips
	case announce.EtcdOnly:
		found, err := r.Look(n)
		if err != nil {
			return n, err
		}
		for _, a := range found.Addresses {
			if slices.Contains(ips, a.Prefix) {
				n.Addresses = append(n.Addresses, a.Prefix)
			}
		}
	}
	return n, nil
}

func (r *netReport) fill(want plan.Network, found network.Report) {
	r.Desired = &netDesired{Addresses: append([]netip.Prefix{}, want.Addresses...), Routes: []netRoute{}}
	r.Present = &netPresent{Addresses: []netAddress{}, Routes: []netRoute{}}
	r.Changes = []netChange{}
	for _, w := range want.Routes {
		r.Desired.Routes = append(r.Desired.Routes, netRoute{Dst: w.Dst, Via: w.Via, Src: w.Src})
	}
	for _, a := range found.Addresses {
		r.Present.Addresses = append(r.Present.Addresses, netAddress{a.Prefix, a.Ours})
	}
	for _, h := range found.Routes {
		r.Present.Routes = append(r.Present.Routes, netRoute{Dst: h.Dst, Via: h.Via, Src: h.Src, Ours: &h.Ours})
	}
	for _, c := range found.Changes {
		r.Changes = append(r.Changes, netChange{c.Do, c.String()})
	}
}

// fillFirewall adds the one table of nftables. That it cannot be looked at hinders
// the agent in the same way.
func (r *netReport) fillFirewall(want plan.Firewall, there, right bool, problem error) {
	r.Desired.Firewall, r.Present.Firewall = netFirewall{want.On, want.Why}, there
	do := network.Correct
	switch {
	case problem != nil:
		r.Changes = append(r.Changes, netChange{network.Blocked, "firewall: " + problem.Error()})
		return
	case right:
		return
	case !want.On:
		do = network.Remove
	case !there:
		do = network.Add
	}
	r.Changes = append(r.Changes, netChange{do, fmt.Sprintf("%s the firewall, the table inet %s of nftables", do, plan.FirewallTable)})
}

// write prints a table of what should be there or is, one of the sessions, and a
// line for what a person should read.
func (r *netReport) write(w io.Writer, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ON LO, ROUTES, FIREWALL\tWANTED\tTHERE")
	for _, line := range r.lines() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", line.what, yes(line.wanted), line.there)
	}
	if r.Speaker != nil {
		fmt.Fprintln(table, "\nBGP SESSION TO\tSTATE\tFOR")
		for _, p := range r.Speaker.Peers {
			age := "-"
			if !p.Since.IsZero() {
				age = now.Sub(p.Since).Truncate(time.Second).String()
			}
			fmt.Fprintf(table, "%s\t%s\t%s\n", p.Address, p.State, age)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, c := range r.Changes {
		fmt.Fprintf(w, "differs: %s\n", c.Text)
	}
	if why := r.Desired.Firewall.Why; why != "" {
		fmt.Fprintf(w, "firewall: off: %s\n", why)
	}
	if r.APIServer != nil && r.APIServer.Text != "" {
		fmt.Fprintf(w, "API server: %s\n", oneLine(r.APIServer.Text))
	}
	if r.SpeakerProblem != "" {
		fmt.Fprintf(w, "speaker: %s\n", oneLine(r.SpeakerProblem))
	}
	if r.Speaker != nil {
		fmt.Fprintf(w, "announced: %s\n", prefixes(r.Speaker.Announced))
		for _, p := range r.Speaker.Peers {
			if p.Reason != "" {
				fmt.Fprintf(w, "BGP session to %s is %s: %s\n", p.Address, p.State, oneLine(p.Reason))
			}
		}
	}
	return nil
}

type netLine struct {
	what   string
	wanted bool
	there  string
}

// lines merges what is wanted with what is there.
func (r *netReport) lines() []netLine {
	var out []netLine
	note := func(what string, wanted bool, there string) {
		i := slices.IndexFunc(out, func(l netLine) bool { return l.what == what })
		if i < 0 {
			out, i = append(out, netLine{what: what, there: "no"}), len(out)
		}
		out[i].wanted = out[i].wanted || wanted
		out[i].there = cmp.Or(there, out[i].there)
	}
	for _, p := range r.Desired.Addresses {
		note(p.String(), true, "")
	}
	for _, a := range r.Present.Addresses {
		note(a.Prefix.String(), false, there(a.Ours))
	}
	for _, w := range r.Desired.Routes {
		note(w.String(), true, "")
	}
	for _, h := range r.Present.Routes {
		note(h.String(), false, there(*h.Ours))
	}
	return append(out, netLine{"table inet " + plan.FirewallTable, r.Desired.Firewall.On, yes(r.Present.Firewall)})
}

func (r netRoute) String() string {
	if !r.Src.IsValid() {
		return fmt.Sprintf("%s via %s", r.Dst.Addr(), r.Via)
	}
	return fmt.Sprintf("%s via %s src %s", r.Dst.Addr(), r.Via, r.Src)
}

func there(ours bool) string {
	if ours {
		return "yes"
	}
	return "yes, not ours"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func prefixes(ps []netip.Prefix) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return cmp.Or(strings.Join(out, " "), "nothing")
}

// quietLog passes on only what a person at the command should see.
func quietLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return exitError{exitPermission, errors.New("addresses and routes can be changed by root only: run it as root")}
	}
	return nil
}
