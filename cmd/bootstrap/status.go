package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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

Exit codes: 0 done, 69 the agent does not answer (journalctl -u muster says why).
`

// serverList is what status -o json prints. Version 1 (docs/formats.md).
type serverList struct {
	Version int             `json:"version"`
	Servers []member.Status `json:"servers"`
}

func statusCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("status", statusHelp, stdout)
	output := flags.String("o", "table", "the `format`: table or json")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	if *output != "table" && *output != "json" {
		return flags.wrong(fmt.Errorf("-o %q: expected table or json", *output))
	}
	list, err := readStatus(ctx, *socket)
	if err != nil {
		return exitError{exitUnavailable, err}
	}
	if *output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	return writeTable(stdout, list.Servers, time.Now())
}

func readStatus(ctx context.Context, socket string) (serverList, error) {
	var list serverList
	// The agent asks every peer, two seconds each at most, all at once.
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/servers", nil)
	if err != nil {
		return list, fmt.Errorf("asking the agent: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		if os.IsPermission(err) {
			return list, fmt.Errorf("asking the agent at %s: %w (run as root)", socket, err)
		}
		return list, fmt.Errorf("the agent does not answer at %s: %w (systemctl status muster; journalctl -u muster -u muster-fetch)", socket, err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return list, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return list, nil
}

// writeTable prints one line a server, and under the table a line for each that
// waits or has a problem: a serial console is 80 columns wide, sentences are not.
func writeTable(w io.Writer, servers []member.Status, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tADDRESS\tROLE\tPHASE\tSINCE\tDECREE\tVOTES\tELASTIC IP")
	for _, s := range servers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			cmp.Or(s.Name, "?"), address(s), cmp.Or(string(s.Role), "-"), cmp.Or(string(s.Phase), "?"),
			since(s, now), decree(s.Decree), votes(s.Decree), elasticIPs(s))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range servers {
		if s.Waiting != "" {
			fmt.Fprintf(w, "%s waits for %s\n", cmp.Or(s.Name, "?"), s.Waiting)
		}
		if s.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", cmp.Or(s.Name, "?"), s.Problem)
		}
		for _, p := range s.Network.Peers {
			if p.State != "established" {
				fmt.Fprintf(w, "%s: BGP session to %s is %s: %s\n", s.Name, p.Address, p.State, p.Reason)
			}
		}
	}
	return nil
}

func address(s member.Status) string {
	if !s.Address.IsValid() {
		return "-"
	}
	return s.Address.String()
}

func since(s member.Status, now time.Time) string {
	if s.Since.IsZero() {
		return "-"
	}
	return now.Sub(s.Since).Truncate(time.Second).String()
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
