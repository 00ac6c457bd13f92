package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/member"
)

const peersHelp = `bootstrap peers shows where this server looks for others, and whom it found: every
address, which way of spec.discovery found it, and whether a server of the cluster
answers there. Each server has a list of its own.

Usage: bootstrap peers [-o table|json]

Examples:
  bootstrap peers                        # why does this server see nobody?
  bootstrap peers -o json | jq '.found[] | select(.answered | not) | .address'

Exit codes: 0 done, 69 the agent does not answer, or does not look for others yet (bootstrap
status says what it waits for), 77 not root.
`

// peersVersion is the version of what peers -o json prints (docs/formats.md).
const peersVersion = 1

// peerList is what peers -o json prints.
type peerList struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"` // of this server's clock, as all times here
	member.Discovery
}

func peersCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("peers", peersHelp, stdout)
	return answer(ctx, flags, args, stdout, readPeers, writePeers)
}

// handlePeers serves the list on the socket.
func handlePeers(mux *http.ServeMux, server *bootstrap.Server) {
	mux.HandleFunc("GET /v1/peers", func(w http.ResponseWriter, r *http.Request) {
		found, err := server.Discovery(r.Context())
		if err != nil {
			localReply(w, http.StatusServiceUnavailable, actProblem{"not-ready", err.Error()})
			return
		}
		localReply(w, http.StatusOK, peerList{Version: peersVersion, Time: time.Now(), Discovery: found})
	})
}

func readPeers(ctx context.Context, socket string) (peerList, error) {
	var list peerList
	// The agent asks every peer for its name, two seconds each at most, all at once.
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := askLocal(ctx, socket, http.MethodGet, "/v1/peers", nil)
	if err != nil {
		return list, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return list, actFailure(socket, response)
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return list, fmt.Errorf("reading the agent's answer: %w", err)
	}
	if list.Version != peersVersion {
		return list, fmt.Errorf("the agent at %s speaks version %d of peers, this program %d; systemctl restart muster", socket, list.Version, peersVersion)
	}
	return list, nil
}

// writePeers prints the ways, then the addresses, then what fails: a serial console
// is 80 columns wide, sentences are not.
func writePeers(w io.Writer, list peerList) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WAY\tFOUND\tTRIED\tSTATE")
	for _, way := range list.Ways {
		state := "looks"
		switch {
		case way.Resting != "":
			state = "rests"
		case way.Problem != "":
			state = "fails"
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", way.Name, way.Found, ago(way.Tried, list.Time), state)
	}
	fmt.Fprintln(table, "\t\t\t\nADDRESS\tANSWERS\tASKED\tNAME\tHARDWARE\tFOUND BY")
	for _, f := range list.Found {
		answers := "no"
		if f.Answered {
			answers = "yes"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Address, answers, ago(f.Asked, list.Time), cmp.Or(f.Name, "-"), cmp.Or(f.HW, "-"), strings.Join(f.By, ", "))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, way := range list.Ways {
		if way.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", way.Name, oneLine(way.Problem))
		}
		if way.Resting != "" {
			fmt.Fprintf(w, "%s rests: %s\n", way.Name, way.Resting)
		}
	}
	return nil
}

// ago is how long something is over.
func ago(then, now time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return max(now.Sub(then), 0).Truncate(time.Second).String()
}
