package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

const statusHelp = `bootstrap status shows how far every server is, and why one waits.

Usage: bootstrap status [-o table|json]

Examples:
  bootstrap status                       # a table of all servers, from any of them
  bootstrap status -o json | jq '.servers[] | select(.phase != "ready")'

Exit codes: 0 done, 69 the agent does not answer (journalctl -u muster says why), 77 not root.
`

// serverList is what status -o json prints. Version 1 (docs/formats.md).
type serverList struct {
	Version int             `json:"version"`
	Servers []member.Status `json:"servers"`
}

func statusCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("status", statusHelp, stdout)
	return answer(ctx, flags, args, stdout, readStatus, func(w io.Writer, list serverList) error { return writeTable(w, list.Servers) })
}

// answer is a command that prints what the agent tells on its socket.
func answer[T any](ctx context.Context, flags flagSet, args []string, stdout io.Writer,
	read func(ctx context.Context, socket string) (T, error), table func(io.Writer, T) error) error {
	output := flags.String("o", "table", "the `format`: table or json")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	if *output != "table" && *output != "json" {
		return flags.wrong(fmt.Errorf("-o %q: expected table or json", *output))
	}
	list, err := read(ctx, *socket)
	var coded exitError
	if err != nil && !errors.As(err, &coded) {
		err = exitError{exitUnavailable, err}
	}
	if err != nil {
		return err
	}
	if *output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	return table(stdout, list)
}

func readStatus(ctx context.Context, socket string) (serverList, error) {
	var list serverList
	// The agent asks every peer, two seconds each at most, all at once.
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := askLocal(ctx, socket, http.MethodGet, "/v1/servers", nil)
	if err != nil {
		return list, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return list, fmt.Errorf("the agent at %s answers %s, expected 200 OK: it is of another version than this program; systemctl restart muster", socket, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return list, fmt.Errorf("reading the agent's answer: %w", err)
	}
	if list.Version != statusVersion {
		return list, fmt.Errorf("the agent at %s speaks version %d of status, this program %d; systemctl restart muster", socket, list.Version, statusVersion)
	}
	return list, nil
}

// writeTable prints one line a server, and under the table a line for each that
// waits or has a problem: a serial console is 80 columns wide, sentences are not.
func writeTable(w io.Writer, servers []member.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	// Until the first apply every server runs by its own cluster file.
	applied := slices.ContainsFunc(servers, func(s member.Status) bool { return s.Spec.Newest > 0 })
	title, spec := "", func(member.Status) string { return "" }
	if applied {
		title, spec = "\tSPEC", revisionOf
	}
	fmt.Fprintln(table, "NAME\tADDRESS\tROLE\tPHASE\tSINCE\tDECREE\tVOTES\tELASTIC IP"+title)
	for _, s := range servers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s%s\n",
			cmp.Or(s.Name, "?"), address(s), cmp.Or(string(s.Role), "-"), cmp.Or(string(s.Phase), "?"),
			since(s), decree(s.Decree), votes(s.Decree), elasticIPs(s), spec(s))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range servers {
		name := cmp.Or(s.Name, "?")
		if s.Waiting != "" {
			fmt.Fprintf(w, "%s waits: %s\n", name, oneLine(s.Waiting))
		}
		if s.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", name, oneLine(s.Problem))
		}
		if s.Cordoned {
			fmt.Fprintf(w, "%s is cordoned and takes no new pods: kubectl uncordon %s, when it shall again\n", name, name)
		}
		if s.Spared != "" {
			fmt.Fprintf(w, "%s leaves by itself: %s\n", name, oneLine(s.Spared))
		}
		if s.Spec.Revision < s.Spec.Newest {
			fmt.Fprintf(w, "%s runs by revision %d of the spec, the newest is %d: %s\n", name, s.Spec.Revision, s.Spec.Newest, oneLine(s.Spec.Lag))
		}
		if p := s.Preparation; p.Step != "" {
			fmt.Fprintf(w, "%s prepares: %s\n", name, preparing(p))
		}
		if s.Phase != member.Ready { // by then another place had everything
			for _, fault := range s.Preparation.Artefacts.Faults {
				fmt.Fprintf(w, "%s: artefacts: %s\n", name, oneLine(fault))
			}
		}
		for _, a := range s.Addons {
			if a.Detail != "" {
				fmt.Fprintf(w, "%s: add-on %s: %s\n", name, a.Name, oneLine(a.Detail))
			}
		}
		if a := s.Agent; a.State != "" && a.State != member.AgentReturned && a.State != member.AgentHeld { // those two are problems
			fmt.Fprintf(w, "%s: agent: bootstrap %s is pinned: %s\n", name, a.Pinned[:min(12, len(a.Pinned))], oneLine(cmp.Or(a.Detail, agentStates[a.State], a.State)))
		}
		for _, p := range s.Network.Peers {
			if p.State != "established" {
				fmt.Fprintf(w, "%s: BGP session to %s is %s: %s\n", name, p.Address, sessionState(p, s.Time), oneLine(cmp.Or(p.Reason, "no reason yet")))
			}
		}
		if f := s.Network.Firewall; f.State == member.FirewallFailed {
			fmt.Fprintf(w, "%s: firewall: %s\n", name, oneLine(f.Reason))
		}
	}
	return nil
}

// agentStates are those that come without a sentence.
var agentStates = map[string]string{
	member.AgentNext:    "it is exchanged in a moment",
	member.AgentFetches: "it is fetched",
}

// revisionOf is the last column: the revision of the spec that a server runs by.
func revisionOf(s member.Status) string {
	if s.Time.IsZero() {
		return "\t-" // it did not answer
	}
	return fmt.Sprintf("\t%d", s.Spec.Revision)
}

// preparing says what host preparation does now.
func preparing(p member.Preparation) string {
	if f := p.Artefacts; p.Step == "artefacts" && f.Items > 0 {
		return fmt.Sprintf("artefacts, %d of %d, %d of %d MB", f.Done, f.Items, f.Bytes/1e6, f.Size/1e6)
	}
	return p.Step
}

// sessionState is the state of a session and how long it is up, or down. Both
// times are of that server's clock.
func sessionState(p member.PeerStatus, now time.Time) string {
	if p.Since.IsZero() || now.IsZero() {
		return p.State
	}
	return p.State + " for " + now.Sub(p.Since).Truncate(time.Second).String()
}

func address(s member.Status) string {
	if !s.Address.IsValid() {
		return "-"
	}
	return s.Address.String()
}

// oneLine keeps a sentence with the server that it is about: several errors come
// on several lines.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// since is how long a server is in its phase. Both times are of that server's
// clock, which may differ from this one's until NTP runs.
func since(s member.Status) string {
	if s.Since.IsZero() || s.Time.IsZero() {
		return "-"
	}
	return s.Time.Sub(s.Since).Truncate(time.Second).String()
}

func decree(d member.Decree) string {
	if d.State == "" {
		return "-"
	}
	out := d.State
	if d.LeaderName != "" {
		out += " " + d.LeaderName
	}
	if d.Epoch > 0 {
		out += fmt.Sprintf(" e%d", d.Epoch)
	}
	return out
}

func votes(d member.Decree) string {
	if d.Quorum == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d of %d", d.Votes, d.Quorum, d.Expect)
}

func elasticIPs(s member.Status) string {
	var out []string
	for _, p := range s.Network.ElasticIPs {
		out = append(out, p.Addr().String())
	}
	return cmp.Or(strings.Join(out, ","), "-")
}
