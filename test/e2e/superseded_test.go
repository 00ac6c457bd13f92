package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// startsNothing: none of the units is active, nothing listens where a node would,
// and the Elastic IP is neither here nor announced.
func (h *heldGO) startsNothing(s *rig.Server, units ...string) {
	h.t.Helper()
	for _, unit := range units {
		out, _ := s.Exec(h.ctx, "systemctl", "is-active", unit) // not active is exit 3
		if state := strings.TrimSpace(out); state != "inactive" && state != "failed" {
			h.t.Errorf("%s: %s is %q", s.Name, unit, state)
		}
	}
	listening, err := s.Exec(h.ctx, "ss", "-Hltn", "sport = :6443 or sport = :2379 or sport = :10250")
	h.must(err)
	if listening != "" {
		h.t.Errorf("%s listens: %s", s.Name, listening)
	}
	addresses, err := s.Exec(h.ctx, "ip", "-o", "addr", "show")
	h.must(err)
	if strings.Contains(addresses, rig.ElasticIP.String()) {
		h.t.Errorf("%s has the Elastic IP:\n%s", s.Name, addresses)
	}
	eip := netip.PrefixFrom(rig.ElasticIP, 32)
	for router := range rig.Routers {
		hops, err := h.rig.ToR().RouterNextHops(h.ctx, router, eip)
		h.must(err)
		if slices.Contains(hops, s.Addr) {
			h.t.Errorf("%s announces the Elastic IP to %s", s.Name, rig.Routers[router])
		}
	}
}

// testOldAlone switches the old server on with its cable out: neither metadata
// nor anybody else can be reached, and what its disk says is that it holds GO.
func (h *heldGO) testOldAlone(t *testing.T) {
	h.t = t
	h.must(h.old.Unplug(h.ctx))
	h.must(h.old.Boot(h.ctx))
	h.inits = h.oldInits() // its agent has only begun to start
	var st member.Status
	// cloud-init looks for its metadata first, a minute and more on a loaded machine.
	h.eventually(4*time.Minute, "the old server to say why it stays down", func() error {
		list, err := readStatus(h.ctx, h.old)
		if err != nil {
			return err
		}
		if st = list[0]; !strings.HasPrefix(st.Waiting, "this server was to build the first control plane before it rebooted; it goes on when ") {
			return fmt.Errorf("it says %+v", list)
		}
		return nil
	})
	t.Logf("alone %s is in phase %s, waits: %s, problem: %s", h.old.Name, st.Phase, st.Waiting, st.Problem)
	if st.Problem != "" {
		t.Errorf("its problem is %q", st.Problem)
	}
	const unconfirmed = "was not confirmed by enough servers since this boot"
	h.staysDown("this server holds GO of epoch 0, which is not sealed and "+unconfirmed, "GO of epoch 0 "+unconfirmed)
}

// heldBack starts a unit of the old server by hand, which a condition skips.
func (h *heldGO) heldBack(unit string, texts ...string) {
	h.t.Helper()
	h.gains(h.old, unit, texts, func() {
		_, err := h.old.Exec(h.ctx, "systemctl", "start", unit) // a skipped unit has not failed
		h.must(err)
	})
}

// oldInits counts the runs of kubeadm init on the old server, over all boots.
func (h *heldGO) oldInits() int {
	h.t.Helper()
	journal, err := h.old.Journal(h.ctx, layout.UnitKubeadmInit)
	h.must(err)
	return strings.Count(journal, "Using Kubernetes version")
}

// kubeletConfig is what kubeadm writes before it starts the kubelet, whose unit
// asks for it.
const kubeletConfig = layout.KubeletData + "/config.yaml"

// staysDown tries everything by hand and looks at what came of it.
func (h *heldGO) staysDown(unit, init string) {
	h.t.Helper()
	defer func() {
		if n := h.oldInits(); n != h.inits {
			h.t.Errorf("kubeadm init ran %d times on %s, %d before the power loss", n, h.old.Name, h.inits)
		}
	}()
	const skipped = "Skipped due to 'exec-condition'"
	if _, err := h.old.ReadFile(h.ctx, kubeletConfig); err == nil {
		h.heldBack(layout.UnitKubelet, skipped, unit)
	} else { // kubeadm does not fsync it
		h.heldBack(layout.UnitKubelet, "skipped because of an unmet condition check (ConditionPathExists="+kubeletConfig+")")
	}
	h.heldBack(layout.UnitAnnounce, skipped, unit)
	h.refusesInit(h.old, init)
	h.startsNothing(h.old, layout.UnitKubelet, layout.UnitAnnounce, layout.UnitKubeadmInit, layout.UnitKubeadmJoin)
}

// testOldAmongOthers puts the cable in.
func (h *heldGO) testOldAmongOthers(t *testing.T) {
	h.t = t
	h.must(h.old.Plug(h.ctx))
	h.awaitStopped() // its agent was started anew by systemd, when it heard of the decree
	const void, formed = "which was superseded: what was built here is void and stays down", "a second kubeadm init would make a second cluster"
	h.staysDown(void, formed)
	// And once more from power-on, now that it knows.
	h.must(h.old.PowerLoss(h.ctx))
	h.must(h.old.Boot(h.ctx))
	h.awaitStopped()
	h.staysDown(void, formed)
	h.testCluster(t, h.next)
	h.initsRanOn(h.next)
}

// awaitStopped waits until the old server says who superseded it, itself and on
// the status of another.
func (h *heldGO) awaitStopped() {
	h.t.Helper()
	for _, s := range []*rig.Server{h.old, h.servers[len(h.servers)-1]} {
		h.eventually(time.Minute, "the old server to say that it was superseded, on "+s.Name, func() error {
			list, err := readStatus(h.ctx, s)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(list, func(one member.Status) bool { return one.Name == h.old.Name })
			if i < 0 || list[i].Phase != member.Stopped ||
				!strings.Contains(list[i].Problem, "superseded by an operator's order: "+h.next.Name+" leads epoch 1") {
				return fmt.Errorf("it says %+v", list)
			}
			return nil
		})
	}
	h.t.Logf("%s is stopped: %s", h.old.Name, h.status(h.old).Problem)
}

// testOldJoins does what the old server says and expects it in the cluster.
func (h *heldGO) testOldJoins(t *testing.T) {
	h.t = t
	found := regexp.MustCompile(`run (bootstrap reset --yes) and reboot`).FindStringSubmatch(h.status(h.old).Problem)
	if found == nil {
		t.Fatalf("%s does not say how to give it to the cluster: %s", h.old.Name, h.status(h.old).Problem)
	}
	out, err := h.old.Exec(h.ctx, "sh", "-c", found[1])
	t.Logf("%s\n%s", found[1], out)
	h.must(err)
	h.must(h.old.Reboot(h.ctx))
	h.servers = h.all
	h.awaitReady(4 * time.Minute)
	h.testCluster(t, h.next)
	h.servers = slices.DeleteFunc(slices.Clone(h.all), func(x *rig.Server) bool { return x.Name == h.old.Name })
	h.initsRanOn(h.next)
}
