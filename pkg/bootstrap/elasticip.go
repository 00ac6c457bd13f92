package bootstrap

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/speakers"
)

// WithdrawHead is the time that routers get to stop sending before the address
// goes (measured in docs/architecture.md: a withdrawal is in the router's table
// within 100 ms).
const WithdrawHead = 200 * time.Millisecond

// holdElasticIPs keeps the EIP rule on a control plane: the address is on lo only
// while this server's own API server is healthy. Healthy: address, then
// announce. Unhealthy: withdraw, a moment, delete, destroy sockets bound to it.
func (a *Agent) holdElasticIPs(ctx context.Context) {
	prefixes := plan.ControlPlaneIPs(a.Cluster.Spec)
	if len(prefixes) == 0 {
		return
	}
	announcement := plan.AnnouncementFor(a.Cluster.Spec, a.device, a.self.Inst)
	onceHealthy := func() {}
	switch a.Cluster.Spec.Network.BGP.ControlPlane {
	case cluster.SpeakerBuiltin:
		a.announcers.Go(func() { a.startSpeaker(ctx, announcement) })
	case cluster.SpeakerKubeVIP:
		onceHealthy = sync.OnceFunc(func() {
			a.announcers.Go(func() { a.startKubeVIP(ctx, announcement.RouterID) })
		})
	}
	warned := ""
	health := a.Health.Watch(ctx, announcement.HealthURL, announcement.HealthCA)
	healthy, watched := <-health
	for watched {
		a.Log.Info("API server", "healthy", healthy)
		if !healthy {
			healthy, watched = a.insistOnDrop(ctx, prefixes, health)
			continue
		}
		warned = a.warnOfFilter(prefixes, warned)
		a.Network.Set(plan.NetworkFor(a.device, prefixes, true))
		a.withhold(ctx, prefixes, false)
		onceHealthy()
		healthy, watched = <-health
	}
}

// insistOnDrop takes the Elastic IPs away, again where that failed, until it hears of
// the API server's health anew, and returns what it heard.
func (a *Agent) insistOnDrop(ctx context.Context, prefixes []netip.Prefix, health <-chan bool) (healthy, watched bool) {
	var failed error
	defer func() {
		if failed != nil {
			a.board.solved(failed)
		}
	}()
	for pause := firstPause; ; pause = min(pause*2, lastPause) {
		err := a.dropElasticIPs(ctx, prefixes)
		if failed != nil && err == nil {
			a.board.solved(failed)
		}
		if failed = err; failed == nil {
			healthy, watched = <-health
			return healthy, watched
		}
		failed = fmt.Errorf("the Elastic IPs shall leave this server, whose API server is not healthy, and that is tried on: %w", err)
		a.board.problem(failed)
		select {
		case healthy, watched = <-health:
			return healthy, watched
		case <-time.After(pause):
		}
	}
}

// warnOfFilter says in the journal that the Elastic IPs will be held in vain,
// whenever that is news. The setting is the administrator's, so it is left alone.
func (a *Agent) warnOfFilter(prefixes []netip.Prefix, said string) string {
	if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		return said // IPv6 has no such filter
	}
	text, err := a.Network.RPFilterWarning(a.self.Node.Private)
	if err != nil {
		a.Log.Debug("reading the reverse path filter", "error", err)
		return said
	}
	if text != "" && text != said {
		a.Log.Warn("Elastic IP", "note", text)
	}
	return text
}

func (a *Agent) dropElasticIPs(ctx context.Context, prefixes []netip.Prefix) error {
	onLo, err := a.Network.Addresses()
	if err != nil {
		return fmt.Errorf("reading lo: %w", err)
	}
	if len(onLo) > 0 {
		a.withhold(ctx, prefixes, true)
		if sleep(ctx, WithdrawHead) != nil {
			return nil
		}
	}
	a.Network.Set(plan.NetworkFor(a.device, prefixes, false))
	for _, p := range onLo {
		if err := a.Network.RemoveAddress(ctx, p); err != nil {
			return fmt.Errorf("removing the Elastic IP %s from lo: %w", p, err)
		}
	}
	// The addresses are gone, which alone keeps them from being announced.
	a.withhold(ctx, prefixes, false)
	return nil
}

// withhold orders the speaker to withdraw, or ends the order. Health ends it
// too: an agent that died, or failed, between the two orders left one behind,
// and the speaker keeps to it. A speaker that does not run holds nothing back.
func (a *Agent) withhold(ctx context.Context, prefixes []netip.Prefix, held bool) {
	for _, p := range prefixes {
		if err := a.Speaker.Withhold(ctx, p, held); err != nil {
			a.Log.Debug("telling the speaker", "prefix", p, "withhold", held, "error", err)
		}
	}
}

// startSpeaker starts the speaker and keeps its sessions in status. The routers
// take one session from a server: a kube-vip of a former cluster file gives way.
func (a *Agent) startSpeaker(ctx context.Context, plan plan.Announcement) {
	started := a.insist(ctx, "the BGP speaker", func(ctx context.Context) error {
		if err := a.Kubernetes.SetStaticPod(layout.KubeVIP, nil); err != nil {
			return err
		}
		return a.Speaker.Start(ctx, plan)
	})
	const watch = 2 * time.Second
	for started && sleep(ctx, watch) == nil {
		peers, err := a.Speaker.Peers(ctx)
		if err != nil {
			a.Log.Debug("asking the speaker", "error", err)
			continue
		}
		a.board.change(func(s *member.Status) { s.Network.Peers = peers })
	}
}

// startKubeVIP gives the kubelet the pod that announces in the speaker's place. It
// waits for the API server of this server: before, the file would fail kubeadm's
// checks, and kube-vip, which puts the Elastic IP on lo itself, would make a server
// that joins talk to itself.
func (a *Agent) startKubeVIP(ctx context.Context, routerID netip.Addr) {
	a.insist(ctx, "kube-vip", func(ctx context.Context) error {
		pod, err := speakers.KubeVIP(a.Cluster.Spec, a.device, routerID)
		if err != nil {
			return err
		}
		manifest, err := speakers.Marshal([]speakers.Document{pod})
		if err != nil {
			return err
		}
		if err := a.Speaker.Stop(ctx); err != nil {
			return err
		}
		return a.Kubernetes.SetStaticPod(layout.KubeVIP, manifest)
	})
}

// insist tries until it succeeds or ctx ends; what hinders it is on the board.
func (a *Agent) insist(ctx context.Context, what string, do func(context.Context) error) bool {
	var last error
	err := retry(ctx, do, func(err error) {
		last = fmt.Errorf("%s: %w", what, err)
		a.board.problem(last)
	})
	if err == nil && last != nil {
		a.board.solved(last)
	}
	return err == nil
}
