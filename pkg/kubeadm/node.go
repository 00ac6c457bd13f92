package kubeadm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// Resume starts what a reboot left stopped: containerd and the kubelet. The
// error of a kubelet that the fence holds back says so.
func (k *Kubeadm) Resume(ctx context.Context) error {
	for _, unit := range []string{layout.UnitContainerd, layout.UnitKubelet} {
		if err := k.Units.Start(ctx, unit); err != nil {
			return err
		}
	}
	return nil
}

// wakeKubelet starts the kubelet of a joining control plane anew when it waits for
// nothing. It gets its certificate from the API server of its own server, which answers
// only after etcd has its vote, and it asks 0, 2, 6, 14 and 30 s after its own start
// (client-go 1.36, util/certificate): on a busy test server the fourth failed, and both
// waited for the fifth.
func (k *Kubeadm) wakeKubelet(ctx context.Context) {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if kubeletJoined(k.Root, time.Now()) {
			return
		}
		if k.healthyNow(ctx) && k.Units.Restart(ctx, layout.UnitKubelet) == nil {
			return
		}
	}
}

func (k *Kubeadm) healthyNow(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return k.Healthy(ctx) == nil
}

// Healthy is nil when the API server of this server is ready. ctx should bound
// it to a second or so.
func (k *Kubeadm) Healthy(ctx context.Context) error {
	at, err := localServer(k.Root)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(k.path(layout.KubernetesPKI), caCert))
	if err != nil {
		return fmt.Errorf("reading the cluster CA: %w", err)
	}
	api, err := NewAPI(at, ca)
	if err != nil {
		return err
	}
	return api.Readyz(ctx)
}

// BootstrapToken makes a token for one join through the API server of this
// control plane.
func (k *Kubeadm) BootstrapToken(ctx context.Context) (string, error) {
	api, err := k.admin()
	if err != nil {
		return "", err
	}
	token, err := api.CreateBootstrapToken(ctx, joinTokenTTL)
	return token.Reveal(), err
}

// NodeState says whether a node is Ready, and whether somebody cordoned it. On a control plane it asks the API
// server of this server, on a worker the endpoint, with the kubelet's rights,
// which suffice for its own node.
func (k *Kubeadm) NodeState(ctx context.Context, name string) (plan.NodeState, error) {
	api, err := k.admin()
	if errors.Is(err, fs.ErrNotExist) {
		api, err = k.open(layout.KubeletConf, netip.AddrPort{})
	}
	if err != nil {
		return plan.NodeState{}, err
	}
	n, found, err := api.Node(ctx, name)
	return plan.NodeState{Ready: found && n.Ready, Cordoned: n.Cordoned}, err
}

// server is the API server of this server.
func (k *Kubeadm) server(n plan.Node) netip.AddrPort {
	if k.at != nil {
		return k.at(n.Private)
	}
	return netip.AddrPortFrom(n.Private, plan.APIServerPort)
}

func (k *Kubeadm) admin() (*API, error) {
	at, err := localServer(k.Root)
	if err != nil {
		return nil, err
	}
	return k.open(layout.AdminConf, at)
}

// open is OpenAPI below the root.
func (k *Kubeadm) open(path string, at netip.AddrPort) (*API, error) {
	a, err := parseFile(k.Root, path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return a.at(at), nil
}

func (k *Kubeadm) alive(ctx context.Context, at netip.AddrPort, a Authorities) bool {
	// 3 s: an API server that is slower than that is not one to build on.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	api, err := NewAPI(at, a.CA())
	return err == nil && api.Livez(ctx) == nil
}

// registerDeadline bounds the wait for the node after kubeadm said it is done.
// The kubelet registers within seconds; on a worker the endpoint may still move.
const registerDeadline = 3 * time.Minute

// registered waits until the API server answers and knows the node.
func (k *Kubeadm) registered(ctx context.Context, conf string, at netip.AddrPort, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, registerDeadline, fmt.Errorf("not within %s", registerDeadline))
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("the API server does not know it")
	for {
		api, err := k.open(conf, at)
		var found bool
		if err == nil {
			_, found, err = api.Node(ctx, name)
		}
		if found {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kubeadm has ended well, but node %s is not registered: %w: %w; see journalctl -u kubelet", name, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
