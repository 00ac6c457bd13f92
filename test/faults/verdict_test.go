package faults

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/test/faults/ledger"
)

func TestJudge(t *testing.T) {
	at := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	line := func(what, server, inst, ca string) ledger.Line {
		return ledger.Line{Time: at, What: what, Server: server, Inst: inst, CA: ca}
	}
	for name, c := range map[string]struct {
		lines      []ledger.Line
		superseded []string
		want       string // "" is fine
	}{
		"nothing":   {},
		"one":       {lines: []ledger.Line{line("init", "cp1", "a", "x"), line("join", "w1", "b", "x")}},
		"resumed":   {lines: []ledger.Line{line("init", "cp1", "a", "x"), line("reset", "cp1", "a", ""), line("init", "cp1", "a", "x")}},
		"two":       {lines: []ledger.Line{line("init", "cp1", "a", "x"), line("init", "cp2", "b", "y")}, want: "kubeadm init ran on 2 instances: cp1 (instance a, CA x, Nov 25 00:00:00.000), cp2 (instance b, CA y, Nov 25 00:00:00.000)"},
		"same disk": {lines: []ledger.Line{line("init", "cp1", "a", "x"), line("init", "cp1", "b", "x")}, want: "kubeadm init ran on 2 instances: cp1 (instance a, CA x, Nov 25 00:00:00.000), cp1 (instance b, CA x, Nov 25 00:00:00.000)"},
		"superseded": {
			lines:      []ledger.Line{line("init", "cp1", "a", "x"), line("init", "cp2", "b", "y"), line("join", "w1", "c", "y")},
			superseded: []string{"a"},
		},
		"joined the superseded": {
			lines:      []ledger.Line{line("init", "cp1", "a", "x"), line("join", "w1", "c", "x"), line("init", "cp2", "b", "y")},
			superseded: []string{"a"}, want: "w1 joined a cluster with the CA x, which no kubeadm init that stands made",
		},
		"other CA":   {lines: []ledger.Line{line("init", "cp1", "a", "x"), line("init", "cp1", "a", "y")}, want: "instance a on cp1 ran kubeadm init with the CA x and again with y"},
		"lone joins": {lines: []ledger.Line{line("join", "w1", "b", "x")}, want: "w1 joined a cluster with the CA x, which no kubeadm init that stands made"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := Judge(c.lines, c.superseded...); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLedger(t *testing.T) {
	dir := t.TempDir()
	want := []ledger.Line{
		{Time: time.Date(2026, 11, 25, 1, 2, 3, 4, time.UTC), What: ledger.Init, Server: "cp1", Node: "cp1", Inst: "a", HW: "h", Epoch: 1, CA: "x"},
		{Time: time.Date(2026, 11, 25, 1, 2, 4, 0, time.UTC), What: ledger.Join, Server: "w1"},
	}
	for _, l := range want {
		if err := ledger.Append(dir, l); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ledger.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"cp1", "w1"}, Joined(got)); diff != "" {
		t.Error(diff)
	}
}

// The cluster files of the scenarios are such as the product accepts, and fit into
// user-data.
func TestRender(t *testing.T) {
	p, err := NewPlan(10, 3, "cp1", "cp2", "cp3", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Render(); err != nil {
		t.Error(err)
	}
}
