package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/metadata"
	"github.com/mustermetal/muster/pkg/network"
	"github.com/mustermetal/muster/pkg/plan"
)

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inNamespace gives the test a network namespace with the private link of a server:
// 10.99.14.9 behind 10.99.14.8, and the test's thread with it.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("addresses and routes are tested as root only, in a network namespace")
	}
	runtime.LockOSThread() // and never unlock: the thread ends with the test
	mustDo(t, unix.Unshare(unix.CLONE_NEWNET))
	mustDo(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "up1"}))
	for _, name := range []string{"lo", "up1", "up0"} {
		link, err := netlink.LinkByName(name)
		mustDo(t, err)
		mustDo(t, netlink.LinkSetUp(link))
		if name == "up0" {
			mustDo(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 99, 14, 9), Mask: net.CIDRMask(31, 32)}}))
		}
	}
}

// netFiles are what the commands read, of a control plane with one Elastic IP.
func netFiles(t *testing.T) (args []string, order plan.Network, state string) {
	t.Helper()
	dir := t.TempDir()
	c, problems := cluster.Parse("template", cluster.Template("demo", trustSpec, 5, 3))
	mustDo(t, cluster.Err(problems))
	c.Spec.Network.ElasticIPs = []cluster.ElasticIP{{Address: netip.MustParsePrefix("198.51.100.92/32"), On: "control-planes"}}
	c.Spec.Network.BGP.ControlPlane = cluster.SpeakerBuiltin
	var err error
	c.Secret, err = cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	mustDo(t, err)
	config, err := cluster.Marshal(c)
	mustDo(t, err)
	private := netip.MustParsePrefix("10.99.14.9/31")
	d := device.Device{
		ID: "1", Hostname: "cp1",
		Addresses: []device.Address{{Prefix: private, Gateway: netip.MustParseAddr("10.99.14.8")}},
		BGPNeighbors: []device.Neighbor{{Family: 4, CustomerAS: 65000, CustomerIP: private.Addr(), PeerAS: 65530, Multihop: true,
			PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1"), netip.MustParseAddr("169.254.255.2")}}},
	}
	stored, err := metadata.Marshal(d)
	mustDo(t, err)
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		mustDo(t, os.WriteFile(path, data, 0o600))
		return path
	}
	state = filepath.Join(dir, "network.json")
	args = []string{"--config", file("cluster.yaml", config), "--device", file("device.json", stored), "--state", state}
	return args, plan.NetworkFor(d, plan.ControlPlaneIPs(c.Spec), true), state
}

// speaking is a speaker with one session that is up and one that is down.
func speaking(t *testing.T) (socket string, up time.Time) {
	up = time.Now().Add(-90 * time.Second).Truncate(time.Second)
	return agentAt(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(announce.Status{
			Announced: []netip.Prefix{netip.MustParsePrefix("198.51.100.92/32")}, Healthy: true,
			Peers: []member.PeerStatus{
				{Address: netip.MustParseAddr("169.254.255.1"), State: "established", Since: up},
				{Address: netip.MustParseAddr("169.254.255.2"), State: "active", Since: up, Reason: "no route to 169.254.255.2"},
			},
		})
	}), up
}

func TestNetStatusAndPlan(t *testing.T) {
	inNamespace(t)
	args, order, state := netFiles(t)
	ours := network.New(state, quietLog(t.Output()))
	run := func(command string, more ...string) string {
		t.Helper()
		code, stdout, stderr := bootstrapRun(t, append(append([]string{"net", command}, args...), more...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("net %s: exit code %d, %s", command, code, stderr)
		}
		return stdout
	}
	expect := func(step, command, want string, more ...string) {
		t.Helper()
		if diff := cmp.Diff(want, run(command, more...)); diff != "" {
			t.Errorf("%s: net %s (-want +got):\n%s", step, command, diff)
		}
	}
	nobody := filepath.Join(t.TempDir(), "none")
	const missing = "add route to 169.254.255.1 via 10.99.14.8 src 10.99.14.9\nadd route to 169.254.255.2 via 10.99.14.8 src 10.99.14.9\n"
	expect("nothing is there", "plan", missing)
	expect("plan wrote nothing", "plan", missing)

	// No API server is here, so the Elastic IP should go.
	mustDo(t, ours.Apply(t.Context(), order))
	expect("all is there", "plan", "remove 198.51.100.92/32 on lo\n")
	expect("all is there", "status", `ON LO, ROUTES, FIREWALL                      WANTED  THERE
198.51.100.92/32                             no      yes
169.254.255.1 via 10.99.14.8 src 10.99.14.9  yes     yes
169.254.255.2 via 10.99.14.8 src 10.99.14.9  yes     yes
table inet muster                            no      no
differs: remove 198.51.100.92/32 on lo
firewall: off: this server has no public address
API server: the cluster CA is not there yet: stat /etc/kubernetes/pki/ca.crt: no such file or directory
`, "--speaker", nobody)
	mustDo(t, ours.RemoveAddress(t.Context(), netip.MustParsePrefix("198.51.100.92/32")))
	expect("all is right", "plan", "nothing to write: all is as it should be\n")

	socket, up := speaking(t)
	text := run("status", "--speaker", socket)
	for _, want := range []string{"\nBGP SESSION TO  STATE        FOR\n169.254.255.1   established  1m3", "\nannounced: 198.51.100.92/32\nBGP session to 169.254.255.2 is active: no route to 169.254.255.2\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("net status lacks %q:\n%s", want, text)
		}
	}
	var report netReport
	document := run("status", "-o", "json", "--speaker", socket)
	mustDo(t, json.Unmarshal([]byte(document), &report))
	if len(report.Speaker.Peers) != 2 || !report.Speaker.Peers[0].Since.Equal(up) || len(report.Changes) > 0 || report.APIServer.Ready {
		t.Errorf("net status -o json: %s", document)
	}
	schema, err := jsonschema.NewCompiler().Compile("../../docs/net.schema.json")
	mustDo(t, err)
	mustDo(t, ours.Apply(t.Context(), order))
	for _, document := range []string{document, run("plan", "-o", "json"), run("status", "-o", "json", "--speaker", nobody)} {
		parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
		mustDo(t, err)
		if err := schema.Validate(parsed); err != nil {
			t.Errorf("%v\n%s", err, document)
		}
	}
}

// TestNetReset: only what is ours goes, after the speaker, and not under an agent.
func TestNetReset(t *testing.T) {
	inNamespace(t)
	args, order, state := netFiles(t)
	lo, err := netlink.LinkByName("lo")
	mustDo(t, err)
	foreign, err := netlink.ParseAddr("147.75.194.93/32")
	mustDo(t, err)
	mustDo(t, netlink.AddrAdd(lo, foreign))
	ours := network.New(state, quietLog(t.Output()))
	there := func() string {
		t.Helper()
		found, err := ours.Look(plan.Network{Addresses: []netip.Prefix{netip.MustParsePrefix("147.75.194.93/32")}})
		mustDo(t, err)
		var out []string
		for _, a := range found.Addresses {
			out = append(out, a.Prefix.Addr().String())
		}
		for _, h := range found.Routes {
			out = append(out, h.Dst.Addr().String())
		}
		return strings.Join(out, " ")
	}
	const all, left = "147.75.194.93 198.51.100.92 169.254.255.1 169.254.255.2", "147.75.194.93"
	nobody := filepath.Join(t.TempDir(), "none")
	speaker, _ := speaking(t)
	stopped, guarded := 0, true
	unguard := func(context.Context) (bool, error) {
		was := guarded
		guarded = false
		return was, nil
	}
	base := netReset{guarded: func(context.Context) (bool, error) { return guarded, nil }, unguard: unguard, state: state, agent: nobody, speaker: speaker, kubeVIP: nobody, stopSpeaker: func(context.Context) error {
		if stopped++; there() != all {
			t.Errorf("when the speaker is stopped there is %q, want all", there())
		}
		return nil
	}}
	const said = `stop muster-announce.service, which withdraws what it announces
remove 198.51.100.92/32 on lo
remove route to 169.254.255.1 via 10.99.14.8 src 10.99.14.9
remove route to 169.254.255.2 via 10.99.14.8 src 10.99.14.9
remove the firewall, the table inet muster of nftables
`
	for _, tc := range []struct {
		name   string
		edit   func(*netReset)
		says   string
		fails  string
		code   int
		there  string
		stops  int
		stderr string
	}{
		{"dry", func(*netReset) {}, said + "Nothing was done: add --yes to do it.\n", "", 0, all, 0, ""},
		{"under an agent", func(r *netReset) { r.yes, r.agent = true, speaker }, "", "the agent runs and would put everything back", exitPermission, all, 0, ""},
		{"the speaker stays", func(r *netReset) {
			r.yes, r.stopSpeaker = true, func(context.Context) error { return errors.New("it hangs") }
		}, said, "nothing was removed, because the speaker does not stop: it hangs", exitFailed, all, 0, ""},
		{"done", func(r *netReset) { r.yes = true }, said + "Done.\n", "", 0, left, 1, ""},
		{"all is gone", func(r *netReset) { r.yes, r.speaker = true, nobody }, "Nothing of muster's is here.\n", "", 0, left, 0, ""},
		{"told to, under an agent and beside a kube-vip of others", func(r *netReset) {
			mustDo(t, ours.Apply(t.Context(), order))
			guarded = true
			r.yes, r.force, r.agent, r.kubeVIP = true, true, speaker, args[1] // a file that is no pod of muster's
		}, said + "Done.\n", "", 0, left, 1, "bootstrap net reset: " + args[1] + " is not muster's, and kube-vip may announce as long as it is there\n"},
	} {
		if tc.there == all || tc.name == "done" {
			mustDo(t, ours.Apply(t.Context(), order))
		}
		r := base
		tc.edit(&r)
		stopped = 0
		var stdout, stderr bytes.Buffer
		err := r.run(t.Context(), &stdout, &stderr)
		code := 0
		if err != nil {
			code = exitFailed
			var coded exitError
			if errors.As(err, &coded) {
				code = coded.code
			}
		}
		if code != tc.code || tc.fails != "" && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %v (exit code %d), want %q and %d", tc.name, err, code, tc.fails, tc.code)
		}
		if diff := cmp.Diff(tc.says+"|"+tc.stderr, stdout.String()+"|"+stderr.String()); diff != "" {
			t.Errorf("%s: output (-want +got):\n%s", tc.name, diff)
		}
		if guarded != (tc.there == all) {
			t.Errorf("%s: the firewall is there: %t", tc.name, guarded)
		}
		if got := there(); got != tc.there || stopped != tc.stops {
			t.Errorf("%s: there is %q and the speaker was stopped %d times, want %q and %d", tc.name, got, stopped, tc.there, tc.stops)
		}
	}
}

// TestNetRoutes: at a reboot, with no metadata service anywhere, the routes come
// from the stored metadata, and what else is ours stays.
func TestNetRoutes(t *testing.T) {
	inNamespace(t)
	args, order, state := netFiles(t)
	ours := network.New(state, quietLog(t.Output()))
	mustDo(t, ours.Apply(t.Context(), plan.Network{Addresses: order.Addresses}))
	device := args[2:] // without the cluster file
	code, stdout, stderr := bootstrapRun(t, append([]string{"net", "routes"}, device...)...)
	if code != 0 || stdout != "" || strings.Count(stderr, `msg="route added"`) != 2 {
		t.Errorf("exit code %d, %s, want two routes added\n%s", code, stdout, stderr)
	}
	found, err := ours.Look(order)
	mustDo(t, err)
	if len(found.Changes) > 0 {
		t.Errorf("after net routes there is still to do: %v", found.Changes)
	}
	if code, _, stderr = bootstrapRun(t, append([]string{"net", "routes"}, device...)...); code != 0 || stderr != "" {
		t.Errorf("again: exit code %d, %s, want nothing to do", code, stderr)
	}

	// The private address comes late, or never.
	up, err := netlink.LinkByName("up0")
	mustDo(t, err)
	private := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 99, 14, 9), Mask: net.CIDRMask(31, 32)}}
	mustDo(t, netlink.AddrDel(up, private))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := layRoutes(ended, ours, order.Routes); err == nil || !strings.Contains(err.Error(), "the source 10.99.14.9 is on no interface") && !errors.Is(err, context.Canceled) {
		t.Errorf("without the private address: %v", err)
	}
	if code, _, stderr := bootstrapRun(t, "net", "routes", "--device", filepath.Join(t.TempDir(), "none")); code != exitUnavailable || !strings.Contains(stderr, "reading the stored metadata") {
		t.Errorf("without metadata: exit code %d, %s", code, stderr)
	}
}
