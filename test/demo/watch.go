package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// view is what can be seen of all servers at one moment.
type view struct {
	rows  []row
	ready int // nodes
}

// row is one server.
type row struct {
	name, address, role, phase, node, waits string
	since                                   time.Duration
}

// line is a row without what changes all the time.
func (r row) line() string {
	line := fmt.Sprintf("%-5s %-14s %-13s node %s", r.name, r.phase, cmp.Or(r.role, "no role yet"), r.node)
	if r.waits != "" {
		line += "  (" + r.waits + ")"
	}
	return line
}

// watch shows the view until all nodes are Ready or the deadline is there.
func watch(ctx context.Context, r *rig.Rig, o options, start time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.deadline, fmt.Errorf("not all nodes are Ready after %v", o.deadline))
	defer cancel()
	show := newScreen(os.Stdout)
	// Asking costs the servers processor time that they need to start.
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		v := look(ctx, r)
		show.draw(v, time.Since(start))
		if v.ready == len(v.rows) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// look asks an agent and the API server, each of which may not be there yet.
func look(ctx context.Context, r *rig.Rig) view {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	said := map[string]member.Status{}
	if b, _, err := r.Status(ctx); err == nil {
		said = statuses(b)
	}
	nodes, err := r.Nodes(ctx)
	if err != nil {
		nodes = nil
	}
	return assemble(r.Servers(), said, nodes)
}

// statuses reads `bootstrap status -o json`, by address.
func statuses(b []byte) map[string]member.Status {
	var list struct{ Servers []member.Status }
	said := map[string]member.Status{}
	if json.Unmarshal(b, &list) != nil {
		return said
	}
	for _, s := range list.Servers {
		said[s.Address.String()] = s
	}
	return said
}

func assemble(servers []*rig.Server, said map[string]member.Status, nodes []rig.Node) view {
	var v view
	state := map[string]string{}
	for _, n := range nodes {
		state[n.Name] = "NotReady"
		if n.Ready {
			state[n.Name] = "Ready"
			v.ready++
		}
	}
	for _, s := range servers {
		r := row{name: s.Name, address: s.Addr.String(), node: cmp.Or(state[s.Name], "-")}
		st, ok := said[r.address]
		switch {
		case ok:
			r.role, r.phase = string(st.Role), string(st.Phase)
			r.waits = strings.TrimSpace(strings.Join([]string{st.Waiting, st.Problem}, " "))
			if !st.Since.IsZero() && st.Time.After(st.Since) {
				r.since = st.Time.Sub(st.Since)
			}
		case s.Running():
			r.phase = "booting"
		default:
			r.phase = "off"
		}
		v.rows = append(v.rows, r)
	}
	return v
}

// screen redraws a table on a terminal; elsewhere it prints rows that changed.
type screen struct {
	out      *os.File
	terminal bool
	lines    int // drawn last time
	last     map[string]string
}

func newScreen(out *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return &screen{out: out, terminal: err == nil, last: map[string]string{}}
}

func (s *screen) draw(v view, elapsed time.Duration) {
	if !s.terminal {
		for _, r := range v.rows {
			if line := r.line(); s.last[r.name] != line {
				s.last[r.name] = line
				fmt.Fprintf(s.out, "%7.1fs  %s\n", elapsed.Seconds(), line)
			}
		}
		return
	}
	table := render(v, elapsed, s.width())
	if s.lines > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines) // up, and clear from there
	}
	fmt.Fprint(s.out, table)
	s.lines = strings.Count(table, "\n")
}

func (s *screen) width() int {
	size, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 80
	}
	return int(size.Col)
}

// render is the table, no line longer than width, because a broken line would be
// redrawn in the wrong place.
func render(v view, elapsed time.Duration, width int) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "SERVER\tADDRESS\tROLE\tPHASE\tSINCE\tNODE\tWAITS FOR\n")
	for _, r := range v.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%ds\t%s\t%s\n", r.name, r.address, cmp.Or(r.role, "-"), r.phase, int(r.since.Seconds()), r.node, r.waits)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "%d of %d nodes Ready, %.0f s after power-on\n", v.ready, len(v.rows), elapsed.Seconds())
	var cut strings.Builder
	for line := range strings.Lines(b.String()) {
		runes := []rune(strings.TrimRight(line, " \n"))
		if len(runes) > width {
			runes = append(runes[:max(0, width-1)], '…')
		}
		cut.WriteString(string(runes) + "\n")
	}
	return cut.String()
}
