// Package kubeadm turns a server into a Kubernetes node with kubeadm: it writes
// its configurations and certificate authorities, runs it in units of its own,
// and reads what it left behind, so that a run that was cut off is taken up in
// the right way.
//
// It never imports Kubernetes: the types it needs of kubeadm.k8s.io/v1beta4 and
// of the API are its own. Floor 2.
package kubeadm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// Units starts and stops systemd units and waits for the result.
type Units interface {
	Start(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	// Activating says whether a start of the unit is under way.
	Activating(ctx context.Context, unit string) (bool, error)
}

// Journal remembers across power loss what was begun and what was done.
type Journal interface {
	Done(step string) bool
	Started(step string) bool
	Start(step string) error
	Finish(step string) error
}

// Steps in the journal.
const (
	StepInit = "kubeadm-init"
	StepJoin = "kubeadm-join"
)

// Kubeadm is kubeadm on this server.
type Kubeadm struct {
	Cluster cluster.Cluster
	Units   Units
	Journal Journal
	Write   WriteFile
	// Flush returns when everything written to the file systems that hold these
	// directories survives power loss.
	Flush func(dirs ...string) error
	// WriteThrough has what any program writes to new files in these directories on
	// disk when its write returns.
	WriteThrough func(dirs ...string) error
	Root         string // "/"; another directory in tests

	at      func(private netip.Addr) netip.AddrPort // the API server of this server; nil: its port 6443
	kubeVIP string                                  // where kube-vip listens; empty: speakers.KubeVIPMetrics
}

// joinTokenTTL bounds a bootstrap token that is handed to a joiner. It covers
// kubeadm's own time-outs before the kubelet has its certificate (discovery 10
// min) with room.
const joinTokenTTL = 15 * time.Minute

// EnsureAuthorities makes the cluster's authorities, or reads those made before,
// and returns the hash that joiners pin. A set whose hash is void, because its
// leader was superseded, is replaced.
func (k *Kubeadm) EnsureAuthorities(void []string) (caHash string, err error) {
	a, err := EnsureAuthorities(k.authorityDir(), k.Write, time.Now(), void...)
	return a.hash, err
}

// NodeCA is the hash of the CA in /etc/kubernetes/pki, "" where there is none.
func (k *Kubeadm) NodeCA() string { return Look(k.Root, time.Now()).CAHash }

// StandDown stops kube-vip, kubeadm and the kubelet: what they make belongs to a
// cluster that was superseded.
func (k *Kubeadm) StandDown(ctx context.Context) error {
	announcer := k.EndKubeVIP(ctx)
	for _, unit := range []string{layout.UnitKubeadmInit, layout.UnitKubeadmJoin, layout.UnitKubelet} {
		if err := k.Units.Stop(ctx, unit); err != nil {
			return errors.Join(announcer, err)
		}
	}
	return announcer
}

// Authorities returns certificates and keys for another control plane. They are
// a secret.
func (k *Kubeadm) Authorities() ([]byte, error) {
	a, err := ReadAuthorities(k.authorityDir())
	if err != nil {
		return nil, err
	}
	return a.Bundle()
}

// AdoptAuthorities stores what another control plane's Authorities returned, if
// it is what the decree pins.
func (k *Kubeadm) AdoptAuthorities(bundle []byte, pinned string) error {
	a, err := Unbundle(bundle)
	if err != nil {
		return err
	}
	return Adopt(a, pinned, k.authorityDir(), k.Write)
}

// CA returns the certificate of the cluster CA as PEM.
func (k *Kubeadm) CA() ([]byte, error) {
	a, err := ReadAuthorities(k.authorityDir())
	if err != nil {
		return nil, err
	}
	return a.CA(), nil
}

// Initialised says whether kubeadm init has ended well on this disk.
func (k *Kubeadm) Initialised() bool { return k.Journal.Done(StepInit) }

// Joined says whether kubeadm join has ended well on this disk.
func (k *Kubeadm) Joined() bool { return k.Journal.Done(StepJoin) }

// Init runs kubeadm init, or what is left of it, and returns when the API server
// of this server answers and the node is registered. It may be called again at
// any time; an error is worth another try unless it wraps ErrNotOurs.
func (k *Kubeadm) Init(ctx context.Context, n plan.Node) error {
	a, err := ReadAuthorities(k.authorityDir())
	if err != nil {
		return err
	}
	private := k.server(n)
	step := InitStep(Facts{
		Done: k.Journal.Done(StepInit), Started: k.Journal.Started(StepInit), Evidence: Look(k.Root, time.Now()),
		Endpoint: n.Endpoint, CAHash: a.hash, Alive: k.alive(ctx, private, a),
	})
	return k.carryOut(ctx, run{
		step: step, journal: StepInit, unit: layout.UnitKubeadmInit, file: layout.InitConfig,
		prepare: func() ([]byte, error) { return k.prepareInit(n, a, step) },
		verify:  func(ctx context.Context) error { return k.registered(ctx, layout.AdminConf, private, n.Name) },
	})
}

// Join runs kubeadm join, or what is left of it, and returns when the node is
// registered. On a control plane the authorities must have been adopted.
func (k *Kubeadm) Join(ctx context.Context, n plan.Node, j plan.Join) error {
	evidence := Look(k.Root, time.Now())
	step := JoinStep(Facts{Done: k.Journal.Done(StepJoin), Started: k.Journal.Started(StepJoin), Evidence: evidence, EtcdGone: j.EtcdGone})
	conf, at := layout.KubeletConf, netip.AddrPort{}
	if j.ControlPlane {
		conf, at = layout.AdminConf, k.server(n)
	}
	return k.carryOut(ctx, run{
		step: step, journal: StepJoin, unit: layout.UnitKubeadmJoin, file: layout.JoinConfig,
		kubelet: step == Finish && evidence.KubeletConf, wake: j.ControlPlane,
		prepare: func() ([]byte, error) { return k.prepareJoin(n, j, step, evidence) },
		verify:  func(ctx context.Context) error { return k.registered(ctx, conf, at, n.Name) },
	})
}

// JoinUnderway says whether kubeadm join runs now: it may outlive the agent that began it.
func (k *Kubeadm) JoinUnderway(ctx context.Context) (bool, error) {
	return k.Units.Activating(ctx, layout.UnitKubeadmJoin)
}

// ErrNotOurs is wrapped when a server holds a Kubernetes node that this instance
// of muster did not make. Trying again cannot help.
var ErrNotOurs = errors.New("this server holds a Kubernetes node that muster did not make here")

// run is one run of kubeadm.
type run struct {
	step       Step
	journal    string
	unit, file string
	kubelet    bool                   // the kubelet must run first
	wake       bool                   // the kubelet waits for this server's API server
	prepare    func() ([]byte, error) // lays files and returns kubeadm's configuration
	verify     func(context.Context) error
}

func (k *Kubeadm) carryOut(ctx context.Context, r run) error {
	if r.step == Nothing {
		return nil
	}
	if r.step == NotOurs {
		return fmt.Errorf("%w: there are %s, and the journal knows nothing of them; if nothing of it is needed, clear it with kubeadm reset and remove /var/lib/etcd", ErrNotOurs, Look(k.Root, time.Now()))
	}
	// kubeadm may have outlived an agent that was restarted: then wait for it.
	underway, err := k.Units.Activating(ctx, r.unit)
	if err != nil {
		return err
	}
	if !underway {
		if err := k.clear(ctx, r); err != nil {
			return err
		}
		config, err := r.prepare()
		if err != nil {
			return err
		}
		if err := k.Journal.Start(r.journal); err != nil {
			return err
		}
		if err := k.put(r.file, config, 0o600); err != nil {
			return err
		}
		// kubeadm writes etcd's manifest, gives etcd its vote, and goes on; the kubelet
		// writes kubelet.conf, and kubeadm removes the token. A power loss then took
		// both files, and two voters of which one cannot start are a cluster that
		// stands still. The kubelet's own certificates are as late: kubelet.service has
		// them written through, and flushes what was written before.
		if err := k.WriteThrough(k.path(layout.Kubernetes), k.path(layout.Manifests)); err != nil {
			return err
		}
	}
	if err := k.start(ctx, r); err != nil {
		return err
	}
	if err := r.verify(ctx); err != nil {
		return err
	}
	// kubeadm and kubelet do not fsync what they write. A power loss within the
	// half minute that the kernel takes to write back left an empty kubelet.conf
	// on a node that the journal called done (seen in test/e2e).
	if err := k.Flush(k.path(layout.Kubernetes), k.path(layout.KubeletData), k.path(layout.EtcdData)); err != nil {
		return err
	}
	if err := k.Journal.Finish(r.journal); err != nil {
		return err
	}
	return k.removeSecrets(r.file)
}

// start runs the unit to its end.
func (k *Kubeadm) start(ctx context.Context, r run) error {
	ctx, end := context.WithCancel(ctx)
	var beside sync.WaitGroup
	if r.wake {
		beside.Go(func() { k.wakeKubelet(ctx) })
	}
	defer beside.Wait()
	defer end()
	return k.Units.Start(ctx, r.unit)
}

// clear makes room for a run: it removes what an unfinished one left, or brings
// up what finishing it needs.
func (k *Kubeadm) clear(ctx context.Context, r run) error {
	// A unit that ended well stays active, and starting it would do nothing.
	if err := k.Units.Stop(ctx, r.unit); err != nil {
		return err
	}
	if r.step == Finish {
		if err := removeTorn(k.Root); err != nil {
			return err
		}
	}
	if r.kubelet {
		return k.Units.Start(ctx, layout.UnitKubelet)
	}
	if r.step != ResetRun {
		return nil
	}
	return k.Reset(ctx)
}

// Reset runs kubeadm reset, unless there is nothing of a node here. It ends the pods
// and wipes etcd's data, so whoever calls it has made sure that no promoted member of
// etcd dies by it.
func (k *Kubeadm) Reset(ctx context.Context) error {
	if e := Look(k.Root, time.Now()); !e.Any() && len(e.Leftovers) == 0 {
		return nil
	}
	permission, err := ResetConfig()
	if err != nil {
		return err
	}
	if err := k.put(layout.ResetConfig, permission, 0o600); err != nil {
		return err
	}
	return k.Units.Start(ctx, layout.UnitKubeadmReset)
}

func (k *Kubeadm) prepareInit(n plan.Node, a Authorities, step Step) ([]byte, error) {
	if err := k.layFiles(n, &a); err != nil {
		return nil, err
	}
	token, err := NewToken(rand.Reader)
	if err != nil {
		return nil, err
	}
	return InitConfig(InitInput{Cluster: k.Cluster, Node: n, Token: token, Finish: step == Finish})
}

func (k *Kubeadm) prepareJoin(n plan.Node, j plan.Join, step Step, e Evidence) ([]byte, error) {
	var authorities *Authorities
	if j.ControlPlane {
		a, err := ReadAuthorities(k.authorityDir())
		if err != nil {
			return nil, err
		}
		if hash := hashOf(j.CA); hash != a.hash {
			return nil, fmt.Errorf("joining: the CA to join by is %s, the authorities adopted here are %s; they must be the same cluster's", hash, a.hash)
		}
		authorities = &a
	}
	if err := k.layFiles(n, authorities); err != nil {
		return nil, err
	}
	conf, err := Discovery(j.Server, j.CA)
	if err != nil {
		return nil, err
	}
	if err := k.put(layout.DiscoveryFile, conf, 0o600); err != nil {
		return nil, err
	}
	return JoinConfig(JoinInput{
		Cluster: k.Cluster, Node: n, Join: j, DiscoveryFile: layout.DiscoveryFile,
		Finish: step == Finish, Bootstrapped: step == Finish && e.KubeletConf,
	})
}

// layFiles puts what kubeadm reads besides its configuration: patches, and the
// authorities on a control plane.
func (k *Kubeadm) layFiles(n plan.Node, a *Authorities) error {
	if a != nil {
		if _, err := Lay(*a, k.path(layout.KubernetesPKI), k.Write); err != nil {
			return err
		}
	}
	// A patches directory that is named and missing is an error to kubeadm.
	if err := os.MkdirAll(k.path(layout.KubeadmPatches), 0o755); err != nil {
		return fmt.Errorf("making kubeadm's patches directory: %w", err)
	}
	files := Patches(n)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := k.put(filepath.Join(layout.KubeadmPatches, name), files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeSecrets takes away the files that hold a bootstrap token.
func (k *Kubeadm) removeSecrets(config string) error {
	for _, p := range []string{config, layout.DiscoveryFile} {
		if err := os.Remove(k.path(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a file that holds a token: %w", err)
		}
	}
	return nil
}

func (k *Kubeadm) authorityDir() string { return filepath.Join(k.path(layout.PKI), "kubernetes") }

func (k *Kubeadm) path(p string) string { return filepath.Join(k.Root, p) }

func (k *Kubeadm) put(path string, data []byte, perm fs.FileMode) error {
	if err := k.Write(k.path(path), data, perm); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
