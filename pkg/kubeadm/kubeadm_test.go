package kubeadm

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// host is a server with state: its units write and remove the files that kubeadm
// would.
type host struct {
	t       *testing.T
	root    string
	started []string
	stopped []string
	active  map[string]bool
	running map[string]bool // activating
	fail    map[string]error
	journal map[string]string
	api     *server
	a       Authorities
	flushed []string // directories, since the last start of a unit
	through []string // directories that are written through
}

func (h *host) Start(_ context.Context, unit string) error {
	h.started, h.flushed = append(h.started, unit), nil
	if err := h.fail[unit]; err != nil {
		h.leave(layout.AdminConf, "torn")
		return err
	}
	if h.active[unit] {
		return nil
	}
	switch unit {
	case layout.UnitKubeadmReset:
		if _, err := os.Stat(filepath.Join(h.root, layout.ResetConfig)); err != nil {
			return errors.New("assertion failed")
		}
		for _, p := range []string{"/etc/kubernetes/pki", layout.AdminConf, layout.KubeletConf, layout.Manifests, layout.EtcdData, layout.ResetConfig} {
			if err := os.RemoveAll(filepath.Join(h.root, p)); err != nil {
				return err
			}
		}
	case layout.UnitKubeadmInit, layout.UnitKubeadmJoin:
		for _, dir := range []string{layout.Kubernetes, layout.Manifests} { // else a voter may not come back
			if !slices.Contains(h.through, filepath.Join(h.root, dir)) {
				h.t.Errorf("%s starts before %s is written through", unit, dir)
			}
		}
		h.active[unit] = true
		h.node()
	}
	return nil
}

func (h *host) Stop(_ context.Context, unit string) error {
	h.active[unit] = false
	h.stopped = append(h.stopped, unit)
	return nil
}

func (h *host) Restart(_ context.Context, unit string) error {
	h.t.Errorf("%s was started anew", unit)
	return nil
}

func (h *host) Activating(_ context.Context, unit string) (bool, error) { return h.running[unit], nil }

func (h *host) Done(step string) bool    { return h.journal[step] == "done" }
func (h *host) Started(step string) bool { return h.journal[step] != "" }

// node leaves what kubeadm leaves when it succeeds.
func (h *host) node() {
	local := "https://" + h.api.at().String()
	h.leave(layout.AdminConf, string(conf(h.t, h.a, "https://147.75.194.92:6443")))
	h.leave(controllerManagerConf, string(conf(h.t, h.a, local)))
	h.leave(layout.KubeletConf, string(conf(h.t, h.a, local)))
	h.leave(layout.Manifests+"/etcd.yaml", "x")
	h.leave(layout.EtcdData+"/member/db", "x")
	h.api.mu.Lock()
	h.api.nodes["cp1"] = true
	h.api.mu.Unlock()
}

func (h *host) leave(path, text string) {
	h.t.Helper()
	p := filepath.Join(h.root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

// journal adapts the host to Journal, whose Start has another shape than Units'.
type journal struct{ *host }

func (j journal) Start(step string) error { j.journal[step] = "started"; return nil }

// Finish must not claim what a power loss would take away: kubeadm and kubelet
// write without fsync.
func (j journal) Finish(step string) error {
	for _, dir := range []string{layout.Kubernetes, layout.KubeletData, layout.EtcdData} {
		if !slices.Contains(j.flushed, filepath.Join(j.root, dir)) {
			j.t.Errorf("%s is done in the journal before %s was flushed", step, dir)
		}
	}
	j.journal[step] = "done"
	return nil
}

func (h *host) writeThrough(dirs ...string) error { h.through = append(h.through, dirs...); return nil }

func (h *host) flush(dirs ...string) error { h.flushed = append(h.flushed, dirs...); return nil }

var self = plan.Node{Name: "cp1", Private: netip.MustParseAddr("10.99.14.9"), Endpoint: "147.75.194.92:6443"}

func setUp(t *testing.T) (*Kubeadm, *host) {
	t.Helper()
	h := &host{t: t, root: t.TempDir(), active: map[string]bool{}, running: map[string]bool{}, fail: map[string]error{}, journal: map[string]string{}}
	k := &Kubeadm{Cluster: seeds(), Units: h, Journal: journal{h}, Write: write, Flush: h.flush, WriteThrough: h.writeThrough, Root: h.root}
	for _, d := range []string{layout.PKI, layout.Run} {
		if err := os.MkdirAll(filepath.Join(h.root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.EnsureAuthorities(nil); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.a, err = ReadAuthorities(k.authorityDir()); err != nil {
		t.Fatal(err)
	}
	h.api = startServer(t, h.a)
	k.at = func(netip.Addr) netip.AddrPort { return h.api.at() }
	return k, h
}

// begun makes the journal know of an unfinished run.
func (h *host) begun(step string) { h.journal[step] = "started" }

func TestInit(t *testing.T) {
	k, h := setUp(t)
	for range 2 { // the second time changes nothing
		if err := k.Init(t.Context(), self); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{layout.UnitKubeadmInit}, h.started); diff != "" {
		t.Error(diff)
	}
	if !k.Initialised() || k.Joined() {
		t.Errorf("initialised %t, joined %t", k.Initialised(), k.Joined())
	}
	for _, p := range sharedNames() {
		if _, err := os.Stat(filepath.Join(h.root, layout.KubernetesPKI, p)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(h.root, layout.KubeadmPatches, "kubeletconfiguration+merge.yaml")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(h.root, layout.InitConfig)); err == nil {
		t.Error("the file with the token is still there")
	}
	if state, err := k.NodeState(t.Context(), "cp1"); !state.Ready || state.Cordoned || err != nil {
		t.Errorf("%+v, %v", state, err)
	}
	if err := k.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	token, err := k.BootstrapToken(t.Context())
	if err != nil || len(token) != 23 {
		t.Errorf("token of %d characters, %v", len(token), err)
	}
}

func TestInitAfterFailure(t *testing.T) {
	k, h := setUp(t)
	h.fail[layout.UnitKubeadmInit] = errors.New("no network")
	if err := k.Init(t.Context(), self); err == nil || k.Initialised() {
		t.Fatalf("got %v, initialised %t", err, k.Initialised())
	}
	h.fail = map[string]error{}
	if err := k.Init(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	want := []string{layout.UnitKubeadmInit, layout.UnitKubeadmReset, layout.UnitKubeadmInit}
	if diff := cmp.Diff(want, h.started); diff != "" {
		t.Error(diff)
	}
	got, err := ReadAuthorities(k.authorityDir())
	if err != nil || got.hash != h.a.hash {
		t.Errorf("the cluster CA changed over a reset: %s, %v", got.hash, err)
	}
}

// Power was lost after kubeadm wrote the first files and before the disk had what
// is in them: a new run would stop at each of them, for ever.
func TestLeftoversAreReset(t *testing.T) {
	for name, c := range map[string]struct {
		path, step, unit string
		run              func(*Kubeadm, *host) error
	}{
		"init": {layout.KubernetesPKI + "/apiserver.crt", StepInit, layout.UnitKubeadmInit, func(k *Kubeadm, _ *host) error {
			return k.Init(t.Context(), self)
		}},
		"worker": {layout.KubernetesPKI + "/ca.crt", StepJoin, layout.UnitKubeadmJoin, func(k *Kubeadm, h *host) error {
			return k.Join(t.Context(), self, plan.Join{Server: "https://147.75.194.92:6443", Token: "9a08jv.c0izixklcxtmnze7", CA: h.a.CA()})
		}},
	} {
		k, h := setUp(t)
		h.begun(c.step)
		h.leave(c.path, "")
		if err := c.run(k, h); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff([]string{layout.UnitKubeadmReset, c.unit}, h.started); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// The API server is up, the last phases failed: what is there is kept.
func TestInitIsFinished(t *testing.T) {
	k, h := setUp(t)
	h.begun(StepInit)
	h.node()
	if _, err := Lay(h.a, filepath.Join(h.root, layout.KubernetesPKI), write); err != nil {
		t.Fatal(err)
	}
	var config string
	k.Write = func(path string, data []byte, perm os.FileMode) error {
		if strings.HasSuffix(path, layout.InitConfig) {
			config = string(data)
		}
		return write(path, data, perm)
	}
	if err := k.Init(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(h.started, layout.UnitKubeadmReset) || !strings.Contains(config, "Port-6443") {
		t.Errorf("started %v with\n%s", h.started, config)
	}
}

// kubeadm goes on while the agent is restarted; then it is waited for, and its
// configuration is not written under it.
func TestInitUnderWay(t *testing.T) {
	k, h := setUp(t)
	h.begun(StepInit)
	h.running[layout.UnitKubeadmInit] = true
	_ = h.writeThrough(filepath.Join(h.root, layout.Kubernetes), filepath.Join(h.root, layout.Manifests)) // by who started it
	h.leave(layout.Manifests+"/etcd.yaml", "x")
	if err := k.Init(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{layout.UnitKubeadmInit}, h.started); diff != "" {
		t.Error(diff)
	}
}

func TestNotOurs(t *testing.T) {
	k, h := setUp(t)
	h.leave(layout.EtcdData+"/member/db", "x")
	for name, run := range map[string]func() error{
		"init": func() error { return k.Init(t.Context(), self) },
		"join": func() error { return k.Join(t.Context(), self, plan.Join{Server: "https://x:6443", CA: h.a.CA()}) },
	} {
		err := run()
		if !errors.Is(err, ErrNotOurs) || !strings.Contains(err.Error(), "/var/lib/etcd/member") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h.started != nil {
		t.Errorf("started %v", h.started)
	}
}

func TestJoinControlPlane(t *testing.T) {
	k, h := setUp(t)
	j := plan.Join{ControlPlane: true, Server: "https://10.99.14.11:6443", Token: "9a08jv.c0izixklcxtmnze7", CA: h.a.CA()}
	if err := k.Join(t.Context(), self, j); err != nil {
		t.Fatal(err)
	}
	if !k.Joined() {
		t.Error("not joined")
	}
	if diff := cmp.Diff([]string{layout.UnitKubeadmJoin}, h.started); diff != "" {
		t.Error(diff)
	}
	for _, p := range []string{layout.JoinConfig, layout.DiscoveryFile} {
		if _, err := os.Stat(filepath.Join(h.root, p)); err == nil {
			t.Errorf("%s is still there", p)
		}
	}
}

// kubelets is a host on which kubeadm join ends only when the kubelet was started anew
// beside an API server that answers.
type kubelets struct {
	*host
	anew chan struct{}
}

func (k kubelets) Restart(_ context.Context, unit string) error {
	if _, err := os.Stat(filepath.Join(k.root, controllerManagerConf)); err != nil || unit != layout.UnitKubelet {
		k.t.Errorf("%s was started anew before there was an API server: %v", unit, err)
	}
	close(k.anew)
	return nil
}

func (k kubelets) Start(ctx context.Context, unit string) error {
	if unit == layout.UnitKubeadmJoin {
		k.leave(controllerManagerConf, string(conf(k.t, k.a, "https://"+k.api.at().String())))
		select {
		case <-k.anew:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return k.host.Start(ctx, unit)
}

// The kubelet has no certificate yet and its API server answers: it is started anew, once.
func TestJoinWakesTheKubelet(t *testing.T) {
	k, h := setUp(t)
	k.Units = kubelets{h, make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	j := plan.Join{ControlPlane: true, Server: "https://10.99.14.11:6443", Token: "9a08jv.c0izixklcxtmnze7", CA: h.a.CA()}
	if err := k.Join(ctx, self, j); err != nil || !k.Joined() {
		t.Fatalf("joined %t, %v", k.Joined(), err)
	}
}

// Power was lost after etcd had joined: this member may be a voter.
func TestJoinNeverResetsAMember(t *testing.T) {
	k, h := setUp(t)
	h.begun(StepJoin)
	h.node()
	j := plan.Join{ControlPlane: true, Server: "https://10.99.14.11:6443", Token: "9a08jv.c0izixklcxtmnze7", CA: h.a.CA()}
	if err := k.Join(t.Context(), self, j); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{layout.UnitKubelet, layout.UnitKubeadmJoin}, h.started); diff != "" {
		t.Error(diff)
	}
}

func TestJoinWithAnotherCA(t *testing.T) {
	k, _ := setUp(t)
	j := plan.Join{ControlPlane: true, Server: "https://10.99.14.11:6443", CA: authorities(t).CA()}
	if err := k.Join(t.Context(), self, j); err == nil || !strings.Contains(err.Error(), "same cluster") {
		t.Errorf("got %v", err)
	}
}

func TestHandOver(t *testing.T) {
	from, h := setUp(t)
	bundle, err := from.Authorities()
	if err != nil {
		t.Fatal(err)
	}
	to, _ := setUp(t)
	if err := to.AdoptAuthorities(bundle, h.a.CAHash()); err != nil {
		t.Fatal(err)
	}
	if ca, err := to.CA(); err != nil || string(ca) != string(h.a.CA()) {
		t.Errorf("%v", err)
	}
	if err := to.AdoptAuthorities(bundle, "sha256:0"); err == nil {
		t.Error("authorities that the decree does not pin were adopted")
	}
}

func TestResumeSaysWhatHoldsItBack(t *testing.T) {
	k, h := setUp(t)
	held := errors.New("skipped: this GO is not confirmed")
	h.fail[layout.UnitKubelet] = held
	if err := k.Resume(t.Context()); !errors.Is(err, held) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{layout.UnitContainerd, layout.UnitKubelet}, h.started); diff != "" {
		t.Error(diff)
	}
}
