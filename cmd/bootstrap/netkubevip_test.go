package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/speakers"
)

// TestNetResetKubeVIP: the pod that muster laid goes first, and then the address that
// kube-vip put on lo by itself, which it would leave there.
func TestNetResetKubeVIP(t *testing.T) {
	inNamespace(t)
	args, _, state := netFiles(t)
	d, err := storedDevice(args[3])
	mustDo(t, err)
	c, err := readCluster(args[1])
	mustDo(t, err)
	c.Spec.Kubernetes.Endpoint = cluster.Endpoint{Address: "198.51.100.92:6443"}
	pod, err := speakers.KubeVIP(c.Spec, d, netip.MustParseAddr("10.99.14.9"))
	mustDo(t, err)
	manifest, err := speakers.Marshal([]speakers.Document{pod})
	mustDo(t, err)
	file := filepath.Join(t.TempDir(), "kube-vip.yaml")
	mustDo(t, os.WriteFile(file, manifest, 0o600))
	lo, err := netlink.LinkByName("lo")
	mustDo(t, err)
	for _, a := range []string{"198.51.100.92/32", "198.51.100.93/32"} { // as kube-vip does, and somebody else
		add, err := netlink.ParseAddr(a)
		mustDo(t, err)
		add.Scope = unix.RT_SCOPE_HOST
		mustDo(t, netlink.AddrAdd(lo, add))
	}
	onLo := func() string {
		t.Helper()
		list, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		mustDo(t, err)
		var out []string
		for _, a := range list {
			if !a.IP.Equal(net.IPv4(127, 0, 0, 1)) {
				out = append(out, a.IP.String())
			}
		}
		return strings.Join(out, " ")
	}
	const both, other = "198.51.100.92 198.51.100.93", "198.51.100.93"
	nobody := filepath.Join(t.TempDir(), "none")
	hangs := true
	r := netReset{state: state, agent: nobody, speaker: nobody, kubeVIP: file,
		guarded: func(context.Context) (bool, error) { return false, nil }, unguard: func(context.Context) (bool, error) { return false, nil },
		endKubeVIP: func(context.Context) error {
			if onLo() != both {
				t.Errorf("when kube-vip is to end there is %q on lo, want %q", onLo(), both)
			}
			if hangs {
				return errors.New("it hangs")
			}
			return os.Remove(file)
		}}
	const said = "take away the pod of kube-vip, which withdraws what it announces\nremove 198.51.100.92/32 on lo, which kube-vip added\n"
	for _, step := range []struct {
		name              string
		yes, hangs        bool
		says, fails, onLo string
	}{
		{"dry", false, false, said + "Nothing was done: add --yes to do it.\n", "", both},
		{"it stays", true, true, said, "no address, route or firewall was removed: it hangs", both},
		{"done", true, false, said + "Done.\n", "", other},
		{"again", true, false, "Nothing of muster's is here.\n", "", other},
	} {
		r.yes, hangs = step.yes, step.hangs
		var stdout, stderr bytes.Buffer
		err := r.run(t.Context(), &stdout, &stderr)
		if (err != nil) != (step.fails != "") || err != nil && err.Error() != step.fails {
			t.Errorf("%s: %v, want %q", step.name, err, step.fails)
		}
		if stdout.String() != step.says || stderr.Len() > 0 || onLo() != step.onLo {
			t.Errorf("%s: said %q and %q, on lo is %q; want %q and %q", step.name, stdout.String(), stderr.String(), onLo(), step.says, step.onLo)
		}
	}
}
