package main

import (
	"fmt"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/mustermetal/muster/pkg/cluster"
)

// String is the forecast for people.
func (f forecast) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s, %s\n", f.Name, count(f.Servers, "server"), count(f.ControlPlanes, "control plane"), count(f.Servers-f.ControlPlanes, "worker"))
	fmt.Fprintf(&b, "control planes may be: %s\n", f.Eligible)
	f.writeMembers(&b)
	f.writeQuorum(&b)
	f.writeListens(&b)
	f.writeNetwork(&b)
	return b.String()
}

// table writes rows under headings, aligned.
func table(b *strings.Builder, rows [][]string) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	_ = w.Flush() // a builder takes everything
}

func (f forecast) writeMembers(b *strings.Builder) {
	if len(f.Members) == 0 {
		return
	}
	rows := [][]string{{"SERVER", "WILL BE", "ADDRESS"}}
	for _, m := range f.Members {
		rows = append(rows, []string{m.Hostname, m.Role, m.Private})
	}
	b.WriteString("\n")
	table(b, rows)
}

func (f forecast) writeQuorum(b *strings.Builder) {
	if f.Join != "" {
		fmt.Fprintf(b, "\nServers with this file join the cluster with CA %s; they never vote.\n", f.Join)
		return
	}
	who := "servers"
	if f.Voters < f.Servers {
		who = "electors"
	}
	fmt.Fprintf(b, "\n%d of %d %s must see each other and agree before anything is created.\n", f.Quorum, f.Voters, who)
	if f.MayBeFaulty > 0 {
		fmt.Fprintf(b, "Up to %s among them cannot make it form twice.\n", count(f.MayBeFaulty, "wiped or surplus server"))
	} else {
		b.WriteString("One wiped or surplus server could make it form twice.\n")
	}
	b.WriteString("\n")
	rows := [][]string{{"NEVER BOOT", "THE CLUSTER", "WHAT TO DO"}}
	for _, a := range f.Absent {
		comes := a.Comes
		if a.Note != "" {
			comes += " (" + a.Note + ")"
		}
		rows = append(rows, []string{fmt.Sprint(a.Absent), comes, a.Do})
	}
	rows, left := abridge(rows)
	table(b, rows)
	if left > 0 {
		fmt.Fprintf(b, "(%d more rows like these: -o json has all)\n", left)
	}
	if k := f.ControlPlanes; k > 1 {
		fmt.Fprintf(b, "Once it has formed, %s of %d may fail.\n", count((k-1)/2, "control plane"), k)
	}
}

var digits = regexp.MustCompile(`[0-9]+`)

// abridge keeps a table readable: of neighbours that say the same but for their
// numbers it keeps the first and the last.
func abridge(rows [][]string) (kept [][]string, left int) {
	const most = 16
	if len(rows) <= most {
		return rows, 0
	}
	shape := func(row []string) string { return digits.ReplaceAllString(strings.Join(row[1:], " "), "#") }
	for i, row := range rows {
		if i > 1 && i < len(rows)-1 && shape(row) == shape(rows[i-1]) && shape(row) == shape(rows[i+1]) {
			left++
			continue
		}
		kept = append(kept, row)
	}
	return kept, left
}

func (f forecast) writeListens(b *strings.Builder) {
	rows := [][]string{{"PORT", "PROTOCOL", "AT", "ON", "PROGRAM", "FOR"}}
	for _, l := range f.Listens {
		on := "all"
		if l.ControlPlanes {
			on = "control planes"
		}
		port := l.Ports
		if l.Guarded {
			port += "*"
		}
		rows = append(rows, []string{port, l.Protocol, l.At, on, l.Program, l.What})
	}
	b.WriteString("\n")
	table(b, rows)
	b.WriteString("* guarded by the firewall where it is on\n")
}

func (f forecast) writeNetwork(b *strings.Builder) {
	b.WriteString("\n")
	switch {
	case f.Endpoint == "":
		b.WriteString("endpoint: the control plane's own private address\n")
	default:
		fmt.Fprintf(b, "endpoint: %s\n", f.Endpoint)
	}
	for _, ip := range f.ElasticIPs {
		announces := map[string]string{
			cluster.SpeakerBuiltin: "announced by muster-announce", cluster.SpeakerKubeVIP: "announced by kube-vip", cluster.SpeakerNone: "announced by nobody",
		}[ip.Announces]
		fmt.Fprintf(b, "%s: on lo of each control plane whose API server is healthy, %s\n", ip.Address, announces)
	}
	routes := [][]string{{"ROUTE TO", "VIA", "SRC", "ON"}}
	sessions := [][]string{{"BGP SESSION TO", "AS", "FROM", "AS", "OF"}}
	for _, m := range f.Members {
		for _, r := range m.Routes {
			routes = append(routes, []string{r.To, r.Via, r.Src, m.Hostname})
		}
		for _, s := range m.Sessions {
			of := m.Hostname
			if m.Role == either {
				of += ", if it becomes a control plane"
			}
			sessions = append(sessions, []string{s.Router, fmt.Sprint(s.AS), s.Source, fmt.Sprint(s.OwnAS), of})
		}
	}
	if len(f.Members) == 0 || len(routes) == 1 {
		fmt.Fprintf(b, "routes: %s\n", f.Routes)
	}
	for _, rows := range [][][]string{routes, sessions} {
		if len(rows) > 1 {
			b.WriteString("\n")
			table(b, rows)
		}
	}
}
