package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/test/kubeapi"
)

// apiServer is a stand-in for Kubernetes with a kubeconfig for it.
type apiServer struct {
	kubeapi.Server
	conf []byte
}

func startAPI(t *testing.T) *apiServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &apiServer{}
	server := httptest.NewUnstartedServer(a)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.conf = fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", certificate-authority-data: %s}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL, ca)
	return a
}

// plane is a control plane of a sealed cluster whose directory is lost.
type plane struct {
	*directoryRig
	files  directoryFiles
	client *directory.Client
	api    *kubeadm.API
	stop   context.CancelFunc
	done   chan error
}

func newPlane(t *testing.T, spec string, ca *identity.Authority, digit string, kube *apiServer) *plane {
	t.Helper()
	p := &plane{directoryRig: newDirectoryRigOf(t, spec, ca, strings.Repeat(digit, 32))}
	p.state.GoMarker = digit == "1"
	p.state.Sealed = election.Sealed{CAHash: p.plan.CAHash, Endpoint: "10.0.0.1:6443"}
	p.write(t, "root"+layout.AdminConf, kube.conf, nil)
	p.write(t, "root"+layout.Kubernetes+"/controller-manager.conf", kube.conf, nil)
	p.files = directoryFiles{cluster: p.path("cluster.yaml"), plan: p.path("directory.json"), keys: p.path("pki"),
		elect: p.path("elect"), data: p.path("data"), root: p.path("root")}
	if err := os.Mkdir(p.files.data, 0o700); err != nil {
		t.Fatal(err)
	}
	p.client = directory.NewClient(p.path("sock"))
	var err error
	if p.api, err = kubeadm.OpenAdmin(p.files.root); err != nil {
		t.Fatal(err)
	}
	return p
}

// decide looks at the Lease after a long silence and carries the decision out; it
// returns when it knows which generation it runs.
func (p *plane) decide(ctx context.Context) (step plan.LeaseStep, err error) {
	sight := plan.LeaseSight{Inst: p.inst, Own: plan.Directory{CAHash: p.plan.CAHash}, Still: time.Hour, Silent: time.Hour}
	for {
		if sight.Lease, sight.Found, err = p.api.Lease(ctx); err != nil {
			return "", err
		}
		d := plan.DecideLease(sight)
		p.plan.Generation, p.plan.Bootstrap = d.Lease.Generation, d.Lease.Mine(p.inst)
		if d.Step != plan.LeaseTake {
			return d.Step, nil
		}
		if written, err := p.api.WriteLease(ctx, d.Lease); written || err != nil {
			return d.Step, err
		}
	}
}

// run starts the directory as muster-directory.service does, from the plan.
func (p *plane) run(t *testing.T) {
	t.Helper()
	p.lay(t)
	c, err := directoryConfig(t.Context(), p.files)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan struct{})
	p.stop, p.done = stop, make(chan error, 1)
	c.Socket, c.Log, c.Ready = p.path("sock"), slog.New(slog.DiscardHandler), func() { close(ready) }
	go func() { p.done <- directory.Run(ctx, c) }()
	t.Cleanup(func() { p.end(t) })
	select {
	case <-ready:
	case err := <-p.done:
		p.stop = nil
		t.Fatalf("the directory of %.4s ended: %v", p.inst, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("the directory of %.4s is not ready after 30 s", p.inst)
	}
}

func (p *plane) end(t *testing.T) {
	t.Helper()
	if p.stop == nil {
		return
	}
	p.stop()
	p.stop = nil
	if err := <-p.done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the directory of %.4s: %v", p.inst, err)
	}
}

const nodePath = "/api/v1/nodes/"

// lostDirectory is a cluster of two control planes and a worker that nobody
// recorded, whose directory of generation 0 is lost; records are what generation 1
// has to hold.
func lostDirectory(t *testing.T) (planes []*plane, records []member.Record) {
	t.Helper()
	spec := strings.Repeat("4", 32)
	ca, err := identity.NewAuthority(spec)
	if err != nil {
		t.Fatal(err)
	}
	kube := startAPI(t)
	planes = []*plane{newPlane(t, spec, ca, "1", kube), newPlane(t, spec, ca, "5", kube)}
	for i, p := range planes {
		name := fmt.Sprintf("cp%d", i+1)
		kube.Set(nodePath+name, fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"node-role.kubernetes.io/control-plane":""}},"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"}]}}`, name))
		records = append(records, member.Record{Inst: p.inst, HW: strings.Repeat("2", 32), Name: name, Address: p.plan.Address.Addr(), Role: member.ControlPlane, First: i == 0, Key: "sha256:" + strings.Repeat(fmt.Sprint(i), 64)})
		for _, other := range planes {
			p.plan.Peers = append(p.plan.Peers, other.plan.Address)
		}
	}
	kube.Set(nodePath+"w1", `{"metadata":{"name":"w1"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.9"}]}}`)
	records = append(records, member.Record{Inst: member.UnknownInst("w1"), HW: member.UnknownHW, Name: "w1", Address: netip.MustParseAddr("10.0.0.9"), Role: member.Worker})
	if err := planes[0].api.Mirror(t.Context(), records[:2]); err != nil {
		t.Fatal(err)
	}
	if _, err := planes[0].api.WriteLease(t.Context(), plan.Lease{CAHash: planes[0].plan.CAHash, Holder: planes[0].inst, Beat: 9}); err != nil {
		t.Fatal(err)
	}
	return planes, records
}

// Two control planes find all copies of the directory lost and want to make the
// next generation at once. One wins the swap and makes it from what Kubernetes
// knows; the other joins it. Neither the plan nor the winner's right makes another.
func TestTwoControlPlanesRaceForAGeneration(t *testing.T) {
	planes, want := lostDirectory(t)
	steps := make([]plan.LeaseStep, len(planes))
	var both sync.WaitGroup
	for i, p := range planes {
		both.Go(func() {
			var err error
			if steps[i], err = p.decide(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	winner, loser := planes[0], planes[1]
	if steps[1] == plan.LeaseTake {
		winner, loser = loser, winner
	}
	if steps[0] == steps[1] || steps[0] != plan.LeaseTake && steps[0] != plan.LeaseFollow || winner.plan.Generation != 1 || loser.plan.Generation != 1 || loser.plan.Bootstrap {
		t.Fatalf("steps %v, plans %+v and %+v; want that one takes generation 1 and the other follows", steps, winner.plan, loser.plan)
	}
	// The loser's plan may say what it wants.
	loser.plan.Bootstrap = true
	loser.lay(t)
	if c, err := directoryConfig(t.Context(), loser.files); err != nil || c.Right != nil {
		t.Errorf("a plan that claims the right of another: right %v, %v; want none", c.Right, err)
	}
	loser.plan.Bootstrap = false

	winner.run(t)
	loser.run(t)
	for _, p := range planes {
		got, err := p.client.Records(t.Context())
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("records, %v (-want +got):\n%s", err, diff)
		}
	}
	// The right ends with the first renewal, whatever happens to the winner's disk.
	lease, _, err := winner.api.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lease.Beat = 1
	if written, err := winner.api.WriteLease(t.Context(), lease); !written || err != nil {
		t.Fatal(written, err)
	}
	winner.end(t)
	if err := errors.Join(os.RemoveAll(winner.files.data), os.Mkdir(winner.files.data, 0o700)); err != nil {
		t.Fatal(err)
	}
	if c, err := directoryConfig(t.Context(), winner.files); err != nil || c.Right != nil {
		t.Errorf("after the first renewal: right %v, %v; want none", c.Right, err)
	}
}

// Without Kubernetes there is no right; with a complete copy none is needed, and
// Kubernetes is not asked.
func TestLeaseRightNeedsKubernetes(t *testing.T) {
	spec := strings.Repeat("4", 32)
	ca, err := identity.NewAuthority(spec)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlane(t, spec, ca, "1", startAPI(t))
	p.plan.Generation = 1
	p.lay(t)
	if c, err := directoryConfig(t.Context(), p.files); err != nil || c.Right != nil {
		t.Errorf("without a Lease: right %v, %v; want none", c.Right, err)
	}
	if _, err := p.api.WriteLease(t.Context(), plan.Lease{CAHash: p.plan.CAHash, Generation: 1, Holder: p.inst}); err != nil {
		t.Fatal(err)
	}
	p.run(t)
	p.end(t)
	if err := os.RemoveAll(p.files.root); err != nil {
		t.Fatal(err)
	}
	if c, err := directoryConfig(t.Context(), p.files); err != nil || c.Right != nil {
		t.Errorf("with a complete copy: right %v, %v; want none, and no question", c.Right, err)
	}
	if err := os.RemoveAll(p.path("data/e0-g1")); err != nil {
		t.Fatal(err)
	}
	if _, err := directoryConfig(t.Context(), p.files); err == nil || !strings.Contains(err.Error(), "controller-manager.conf") {
		t.Errorf("without Kubernetes: %v, want that its files are missing", err)
	}
}
