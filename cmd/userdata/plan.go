package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

var planCommand = command{
	name: "plan", args: "[-f FILE] [--lock FILE] [-o text|json]",
	summary: "say what the servers will be, and what if some never boot",
	help: `Says what will come of a cluster file: which server becomes what, how many must be
there before anything is created, what happens when some never boot and what to do
then, what will listen where, and which routes and BGP sessions there will be. What
only the servers' metadata tell is said to come from there.

Examples:
  userdata plan
  userdata plan -o json | jq '.absent[] | select(.forms == "never")'

Exit codes: 0 done, 1 a file cannot be read, 64 wrong command line, 65 the cluster file or the
lock file is wrong.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		file, lock := fileFlag(set), lockFlag(set)
		output := set.String("o", "text", "the `format` of the result on stdout: text or json")
		return func(_ context.Context, s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			if *output != "text" && *output != "json" {
				return exitError{exitUsage, fmt.Errorf("-o %s: expected text or json", *output)}
			}
			c, problems, err := load(s, *file, *lock, false)
			if err != nil {
				return err
			}
			if show(s.err, problems) > 0 {
				return errReported
			}
			f, err := foretell(c)
			if err != nil {
				return err
			}
			if *output == "json" {
				e := json.NewEncoder(s.out)
				e.SetIndent("", "  ")
				return e.Encode(f)
			}
			_, err = fmt.Fprint(s.out, f)
			return err
		}
	},
}

// forecast is what will come of a cluster file.
type forecast struct {
	Name          string          `json:"name"`
	Servers       int             `json:"servers"`       // expected
	ControlPlanes int             `json:"controlPlanes"` // K
	Voters        int             `json:"voters"`        // N
	Quorum        int             `json:"quorum"`        // q
	Majority      int             `json:"majority"`      // what bootstrap quorum --majority lowers it to
	MayBeFaulty   int             `json:"mayBeFaulty"`   // wiped and surplus servers
	Eligible      string          `json:"eligible"`      // who may become a control plane, a sentence
	Join          string          `json:"join,omitempty"`
	Members       []memberPlan    `json:"members"` // those that the cluster file describes
	Absent        []absentPlan    `json:"absent"`
	Listens       []listenPlan    `json:"listens"`
	Endpoint      string          `json:"endpoint"`
	ElasticIPs    []elasticIPPlan `json:"elasticIPs"`
	Routes        string          `json:"routes"` // where the rest comes from, a sentence
}

// memberPlan is a server that the cluster file describes.
type memberPlan struct {
	Hostname string        `json:"hostname"`
	Role     string        `json:"role"` // control-plane, worker, or either
	Private  string        `json:"private"`
	Routes   []routePlan   `json:"routes"`
	Sessions []sessionPlan `json:"sessions"`
}

type routePlan struct {
	To  string `json:"to"`
	Via string `json:"via"`
	Src string `json:"src"`
}

type sessionPlan struct {
	Router string `json:"router"`
	AS     uint32 `json:"as"`
	Source string `json:"source"`
	OwnAS  uint32 `json:"ownAS"`
}

type elasticIPPlan struct {
	Address   string `json:"address"`
	On        string `json:"on"`
	Announces string `json:"announces"` // builtin, kube-vip or none
}

type listenPlan struct {
	Ports         string `json:"ports"` // 6443, 30000-32767
	Protocol      string `json:"protocol"`
	At            string `json:"at"`
	Program       string `json:"program"`
	What          string `json:"what"`
	ControlPlanes bool   `json:"controlPlanes"` // there only
	Guarded       bool   `json:"guarded"`       // by the firewall, where it is on
}

// absentPlan is what happens when some servers never boot.
type absentPlan struct {
	Absent     int             `json:"absent"`
	Forms      election.Answer `json:"forms"`
	ByMajority election.Answer `json:"byMajority"`
	Comes      string          `json:"comes"`          // to what, a sentence
	Do         string          `json:"do,omitempty"`   // what helps
	Note       string          `json:"note,omitempty"` // what may be otherwise
}

const either = "control-plane or worker"

func foretell(c cluster.Cluster) (forecast, error) {
	e := election.FromSpec(c.Spec)
	f := forecast{
		Name: c.Metadata.Name, Servers: c.Spec.Servers.Expect, ControlPlanes: c.Spec.Servers.ControlPlanes,
		Voters: e.N, Quorum: e.Q, Majority: election.Majority(e.N), MayBeFaulty: election.Tolerated(e.N, e.Q),
		Endpoint: c.Spec.Kubernetes.Endpoint.Address, Join: c.Spec.Join.CA,
		Members: []memberPlan{}, Absent: []absentPlan{}, ElasticIPs: []elasticIPPlan{}, Eligible: strings.TrimPrefix(plan.WhoIsEligible(c.Spec.Servers.Eligible), "spec.servers.eligible selects "),
		Routes: "to each router of the metadata (peer_ips), through the private gateway, from the private address",
	}
	if c.Spec.Platform == cluster.PlatformStatic {
		f.Routes = "to each router of bgpNeighbors that is not on the link, through the private gateway, from the private address"
		if err := f.foretellMembers(c.Spec); err != nil {
			return f, err
		}
	}
	if c.Spec.Join.CA == "" {
		f.foretellAbsence(e, c.Spec)
	}
	for _, l := range c.Spec.Ports.Listeners() {
		ports := fmt.Sprint(l.First)
		if l.Last != l.First {
			ports = fmt.Sprintf("%d-%d", l.First, l.Last)
		}
		f.Listens = append(f.Listens, listenPlan{ports, l.Protocol, l.At, l.Program, l.What, l.ControlPlanes, l.Guarded && c.Spec.Network.Firewall.Mode != cluster.FirewallOff})
	}
	for _, ip := range c.Spec.Network.ElasticIPs {
		f.ElasticIPs = append(f.ElasticIPs, elasticIPPlan{ip.Address.String(), ip.On, c.Spec.Network.BGP.ControlPlane})
	}
	return f, nil
}

// foretellMembers says what each described server will be.
func (f *forecast) foretellMembers(spec cluster.Spec) error {
	devices := plan.Described(spec.Static)
	var may []bool
	eligible := 0
	for _, d := range devices {
		ok, err := plan.Eligible(spec.Servers.Eligible, d)
		if err != nil {
			return err
		}
		may = append(may, ok)
		if ok {
			eligible++
		}
	}
	for i, d := range devices {
		m := memberPlan{Hostname: d.Hostname, Role: string(member.Worker), Routes: []routePlan{}, Sessions: []sessionPlan{}}
		switch {
		case may[i] && eligible <= spec.Servers.ControlPlanes && spec.Join.CA == "":
			m.Role = string(member.ControlPlane)
		case may[i]:
			m.Role = either
		}
		m.Private = privateOf(d)
		for _, r := range plan.ToRRoutes(d) {
			m.Routes = append(m.Routes, routePlan{r.Dst.Addr().String(), r.Via.String(), r.Src.String()})
		}
		if may[i] && spec.Network.BGP.ControlPlane == cluster.SpeakerBuiltin {
			a := plan.AnnouncementFor(spec, d, d.ID)
			for _, p := range a.Peers {
				m.Sessions = append(m.Sessions, sessionPlan{p.Address.String(), p.AS, p.Source.String(), a.AS})
			}
		}
		f.Members = append(f.Members, m)
	}
	return nil
}

// privateOf is where a server listens.
func privateOf(d device.Device) string {
	for _, family := range []int{4, 6} {
		if a, ok := d.Private(family); ok {
			return a.Prefix.Addr().String()
		}
	}
	return ""
}

// foretellAbsence says what becomes of the cluster for every number of servers that
// never boot.
func (f *forecast) foretellAbsence(e election.Config, spec cluster.Spec) {
	eligible := f.Servers // not known: as many as there are
	switch {
	case len(f.Members) > 0:
		eligible = len(slices.DeleteFunc(slices.Clone(f.Members), func(m memberPlan) bool { return m.Role == string(member.Worker) }))
	case len(spec.Servers.Eligible.List) > 0:
		eligible = len(spec.Servers.Eligible.List)
	}
	found := discoverers(spec.Discovery)
	for _, a := range election.Absences(e, f.Servers, f.ControlPlanes, eligible) {
		p := absentPlan{Absent: a.Absent, Forms: a.Forms, ByMajority: a.ByMajority}
		p.Comes, p.Do = f.comesTo(a)
		if a.Forms != election.Never && found > 0 && a.Absent >= found {
			p.Note = fmt.Sprintf("not when all %d servers of spec.discovery are among them: nobody would find anybody", found)
		}
		if a.Forms == election.Depends && e.N < f.Servers {
			p.Note = fmt.Sprintf("when %d of the %d electors are there", e.Q, e.N)
		}
		f.Absent = append(f.Absent, p)
	}
}

// discoverers is how many servers others find each other by, 0 where they do not
// depend on a few.
func discoverers(ways []cluster.Discovery) int {
	n := 0
	for _, d := range ways {
		if d.Subnet != "" || d.DNS != "" || d.Multicast || d.PacketAPI != (cluster.PacketAPI{}) {
			return 0
		}
		n += len(d.Static)
	}
	return n
}

// comesTo says what becomes of a cluster when servers never boot, and what to do.
func (f *forecast) comesTo(a election.Absence) (comes, do string) {
	here := f.Servers - a.Absent
	if a.Forms != election.Never {
		low, high := max(a.ControlPlanes[0], 1), a.ControlPlanes[1]
		comes = fmt.Sprintf("forms: %s, %s", count(high, "control plane"), count(here-high, "worker"))
		if low < high {
			comes = fmt.Sprintf("forms: %d to %d control planes, the rest of %d are workers", low, high, here)
		}
		if a.ControlPlanes[0] == 0 {
			comes = "forms, if one of those here may become a control plane: up to " + count(high, "control plane")
		}
		if high < f.ControlPlanes {
			do = fmt.Sprintf("servers that come later become control planes until there are %d", f.ControlPlanes)
		}
		return comes, do
	}
	worst := ""
	if f.Voters < f.Servers {
		worst = "at worst "
	}
	comes = fmt.Sprintf("waits: %s%d of %d votes", worst, max(0, f.Quorum-a.Missing), f.Quorum)
	switch {
	case here == 0:
		return "nothing", ""
	case a.ControlPlanes[1] == 0:
		return "waits: nobody here may become a control plane", "power on one of: " + f.Eligible
	case a.ByMajority != election.Never:
		return comes, fmt.Sprintf("power on %d more; if they never come, `bootstrap quorum --majority` on one that waits lets %d decide", a.Missing, f.Majority)
	}
	do = fmt.Sprintf("power on %d more", a.Missing)
	if f.Majority < f.Quorum {
		do += fmt.Sprintf(", or %d and let the majority decide", a.Missing-(f.Quorum-f.Majority))
	}
	return comes, do + "; if they never come, begin anew: userdata init, a smaller expect, reinstall"
}
