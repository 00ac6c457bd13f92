package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/firewall"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/metadata"
	"github.com/mustermetal/muster/pkg/plan"
)

// TestNetFirewall: net status and net plan tell of the firewall as of addresses and
// routes, and net reset takes ours away and no other table.
func TestNetFirewall(t *testing.T) {
	inNamespace(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed: test/need.sh test installs nftables")
	}
	args, _, state := netFiles(t)
	file := filepath.Join(t.TempDir(), "firewall.json")
	args = append(args, "--firewall", file)
	order := firewallMode(t, args, cluster.FirewallOn)
	run := func(command string, more ...string) string {
		t.Helper()
		code, stdout, stderr := bootstrapRun(t, append(append([]string{"net", command}, args...), more...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("net %s: exit code %d, %s", command, code, stderr)
		}
		return stdout
	}
	nft := func(line ...string) string {
		t.Helper()
		out, err := exec.Command("nft", line...).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %v: %v: %s", line, err, out)
		}
		return string(out)
	}
	nobody := filepath.Join(t.TempDir(), "none")
	expect := func(step, change, row string) {
		t.Helper()
		if plan := run("plan"); strings.Contains(plan, "firewall") != (change != "") || !strings.Contains(plan, change) {
			t.Errorf("%s: net plan, expected %q:\n%s", step, change, plan)
		}
		status := run("status", "--speaker", nobody)
		if !strings.Contains(status, "\ntable inet muster                            "+row+"\n") || change != "" && !strings.Contains(status, "\ndiffers: "+change) {
			t.Errorf("%s: net status, expected %q and %q:\n%s", step, row, change, status)
		}
		schema, err := jsonschema.NewCompiler().Compile("../../docs/net.schema.json")
		mustDo(t, err)
		parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(run("status", "-o", "json", "--speaker", nobody)))
		mustDo(t, err)
		if err := schema.Validate(parsed); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
	const ours = " the firewall, the table inet muster of nftables"
	expect("no table", "add"+ours, "yes     no")
	keep(t, file, order)
	expect("as the agent wrote it", "", "yes     yes")
	nft("insert", "rule", "inet", "muster", "guard", "accept")
	expect("somebody added a rule", "correct"+ours, "yes     yes")
	keep(t, file, order)
	more := firewallMode(t, args, cluster.FirewallOn, "203.0.113.0/24")
	expect("the cluster file trusts more", "correct"+ours, "yes     yes")
	keep(t, file, more)
	expect("and the agent knows", "", "yes     yes")
	firewallMode(t, args, cluster.FirewallOff)
	expect("switched off", "remove"+ours, "no      yes")

	nft("add", "table", "inet", "filter")
	r := netReset{state: state, agent: nobody, speaker: nobody, kubeVIP: nobody, yes: true, guarded: firewall.Present, unguard: firewall.Remove}
	var stdout, stderr bytes.Buffer
	mustDo(t, r.run(t.Context(), &stdout, &stderr))
	if tables := nft("list", "tables"); tables != "table inet filter\n" || stdout.String() != "remove"+ours+"\nDone.\n" {
		t.Errorf("net reset said %q and left %q", stdout.String(), tables)
	}
	expect("after net reset", "", "no      no")

	t.Setenv("PATH", nobody)
	firewallMode(t, args, cluster.FirewallOn)
	expect("without nft", "firewall: list the table inet muster: nft is not installed", "yes     no")
	var report netReport
	mustDo(t, json.Unmarshal([]byte(run("plan", "-o", "json")), &report))
	if last := report.Changes[len(report.Changes)-1]; last.Do != "blocked" {
		t.Errorf("without nft: %+v", last)
	}
}

// firewallMode writes the mode into the cluster file of args, and returns what the
// agent would be ordered.
func firewallMode(t *testing.T, args []string, mode string, trusted ...string) plan.Firewall {
	t.Helper()
	c, err := readCluster(args[1])
	mustDo(t, err)
	c.Spec.Network.Firewall = cluster.Firewall{Mode: mode}
	for _, p := range trusted {
		c.Spec.Network.Firewall.Trusted = append(c.Spec.Network.Firewall.Trusted, netip.MustParsePrefix(p))
	}
	data, err := cluster.Marshal(c)
	mustDo(t, err)
	mustDo(t, os.WriteFile(args[1], data, 0o600))
	stored, err := os.ReadFile(args[3])
	mustDo(t, err)
	d, err := metadata.Unmarshal(stored)
	mustDo(t, err)
	return plan.FirewallFor(c.Spec, d)
}

// keep has the agent's keeper write the table, on the test's thread.
func keep(t *testing.T, file string, order plan.Firewall) {
	t.Helper()
	k := firewall.New(file, quietLog(t.Output()))
	k.Set(order)
	ctx, cancel := context.WithCancel(t.Context())
	var last member.FirewallStatus
	if err := k.Run(ctx, func(s member.FirewallStatus) { last = s; cancel() }); !errors.Is(err, context.Canceled) || last.State != member.FirewallOn {
		t.Fatalf("the keeper: %+v, %v", last, err)
	}
}
