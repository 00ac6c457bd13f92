package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/plan"
)

// fenceCA is a cluster CA, PEM, and a server certificate of it that was valid in
// 1971 only.
func fenceCA(t *testing.T, seed byte) (ca []byte, server tls.Certificate) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), seed))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<26, 0), BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<26, 0)}
	leafDER, err := x509.CreateCertificate(nil, leaf, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
}

// answerTLS shakes hands with everybody on an address that is not on lo as such.
func answerTLS(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.2:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).HandshakeContext(t.Context())
				_ = conn.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// fenceRig is what a server that holds GO, and may run kubeadm init, has on disk.
type fenceRig struct {
	paths   tracePaths
	cluster cluster.Cluster
	inst    string
}

func newFenceRig(t *testing.T) fenceRig {
	t.Helper()
	dir := t.TempDir()
	r := fenceRig{inst: id("a"), paths: tracePaths{
		elect: filepath.Join(dir, "elect"), goStands: filepath.Join(dir, "go-stands"), ca: filepath.Join(dir, "ca.crt"),
		adminConf: filepath.Join(dir, "admin.conf"), journal: filepath.Join(dir, "journal"), buried: filepath.Join(dir, "buried"),
	}}
	r.cluster.Spec = cluster.Spec{ID: trustSpec, Servers: cluster.Servers{Expect: 1, Quorum: cluster.QuorumSafe}}
	ca, _ := fenceCA(t, 1)
	hash, err := plan.CAHash(ca)
	if err != nil {
		t.Fatal(err)
	}
	store, err := durable.Open(r.paths.elect, true)
	if err != nil {
		t.Fatal(err)
	}
	leader := election.Leader{HW: id("b"), Inst: r.inst, Name: "cp1", Address: netip.MustParseAddr("10.99.14.9"), CAHash: hash, AgentCAHash: hash}
	err = store.Save(election.State{
		Seq: 1, SpecID: trustSpec, Config: election.FromSpec(r.cluster.Spec).Hash(), N: 1, Inst: r.inst, GoMarker: true,
		Hardware: election.Hardware{HW: id("b")},
		Slots:    []election.Slot{{Decided: election.Value{Kind: election.Lead, Leader: leader}}, {Decided: election.Value{Kind: election.Go}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.write(t, r.paths.ca, ca)
	if err := writeGoStands(r.paths.goStands, r.inst, 0); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r fenceRig) write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r fenceRig) check(t *testing.T) error {
	t.Helper()
	traces, err := readTraces(r.paths)
	if err != nil {
		return err
	}
	if err := readInitTraces(t.Context(), r.paths, r.cluster, &traces); err != nil {
		return err
	}
	return bootstrap.CheckInit(traces)
}

// TestFormedNodeStarts: what has no part in the decision keeps no kubelet down.
func TestFormedNodeStarts(t *testing.T) {
	r := newFenceRig(t)
	if err := os.Mkdir(r.paths.journal, 0o700); err != nil { // a journal that cannot be read
		t.Fatal(err)
	}
	traces, err := readTraces(r.paths) // nor is there a cluster file
	if err == nil {
		err = bootstrap.CheckStart(traces)
	}
	if err != nil {
		t.Errorf("the kubelet stays down: %v", err)
	}
	remove(t, r.paths.goStands)
	if traces, err = readTraces(r.paths); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.CheckStart(traces); err == nil {
		t.Error("the kubelet of an unconfirmed holder of GO starts")
	}
}

// TestReadTraces: from the files that a server really has, the check permits, and
// each trace that changes makes it refuse for its own reason.
func TestReadTraces(t *testing.T) {
	_, strange := fenceCA(t, 2)
	_, ours := fenceCA(t, 1)
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *fenceRig)
		want   string // part of the error, "" for none
	}{
		{"chosen", func(*testing.T, *fenceRig) {}, ""},
		{"no state", func(t *testing.T, r *fenceRig) { remove(t, r.paths.elect) }, "no state of the election"},
		{"damaged state", func(t *testing.T, r *fenceRig) { r.write(t, filepath.Join(r.paths.elect, "state.b"), []byte("x")) }, "no state of the election"},
		{"another cluster file", func(_ *testing.T, r *fenceRig) { r.cluster.Spec.ID = id("9") }, "the state on this disk belongs to cluster " + trustSpec},
		{"rebooted", func(t *testing.T, r *fenceRig) { remove(t, r.paths.goStands) }, "not confirmed by enough servers since this boot"},
		{"confirmed for another epoch", func(t *testing.T, r *fenceRig) { mark(t, r, r.inst, 1) }, "not confirmed by enough servers since this boot"},
		{"confirmed for another instance", func(t *testing.T, r *fenceRig) { mark(t, r, id("c"), 0) }, "not confirmed by enough servers since this boot"},
		{"a mark that cannot be read", func(t *testing.T, r *fenceRig) { r.write(t, r.paths.goStands, []byte("{}")) }, "not confirmed by enough servers since this boot"},
		{"no CA", func(t *testing.T, r *fenceRig) { remove(t, r.paths.ca) }, "/etc/kubernetes/pki/ca.crt is not there"},
		{"another CA", func(t *testing.T, r *fenceRig) {
			other, _ := fenceCA(t, 2)
			r.write(t, r.paths.ca, other)
		}, "joiners would refuse this control plane"},
		{"a CA that is none", func(t *testing.T, r *fenceRig) { r.write(t, r.paths.ca, []byte("x")) }, "ca.crt: no PEM block"},
		{"admin.conf of somebody else", func(t *testing.T, r *fenceRig) { r.write(t, r.paths.adminConf, nil) }, "something else made a cluster"},
		{"admin.conf of an init that began", func(t *testing.T, r *fenceRig) {
			r.write(t, r.paths.adminConf, nil)
			journal, err := durable.OpenJournal(r.paths.journal, "boot", time.Now)
			if err != nil {
				t.Fatal(err)
			}
			defer journal.Close()
			if err := journal.Write(kubeadm.StepInit, durable.Started, ""); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"another cluster at the endpoint", func(t *testing.T, r *fenceRig) { r.cluster.Spec.Kubernetes.Endpoint.Address = answerTLS(t, strange) },
			"answers with the certificate of another CA"},
		{"our own API server at the endpoint", func(t *testing.T, r *fenceRig) { r.cluster.Spec.Kubernetes.Endpoint.Address = answerTLS(t, ours) }, ""},
		{"nobody at the endpoint", func(_ *testing.T, r *fenceRig) { r.cluster.Spec.Kubernetes.Endpoint.Address = "127.0.0.2:1" }, ""},
		{"a file where the state's directory was", func(t *testing.T, r *fenceRig) {
			remove(t, r.paths.elect)
			r.write(t, r.paths.elect, nil)
		}, "the fence's state cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFenceRig(t)
			tt.change(t, &r)
			err := r.check(t)
			if got := err != nil; got != (tt.want != "") || got && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, expected %q", err, tt.want)
			}
		})
	}
}

// TestLostState: a control plane that lost the fence's state starts only when its
// cluster is known to have been sealed, and one of somebody else's making as before.
func TestLostState(t *testing.T) {
	damage := func(t *testing.T, r fenceRig) { r.write(t, filepath.Join(r.paths.elect, "state.b"), []byte("x")) }
	newLife := func(t *testing.T, r fenceRig) {
		remove(t, r.paths.elect)
		store, err := durable.Open(r.paths.elect, true)
		if err == nil {
			err = store.Save(election.State{Seq: 1, SpecID: trustSpec, Config: election.FromSpec(r.cluster.Spec).Hash(), N: 1, Inst: id("c"), Hardware: election.Hardware{HW: id("b")}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := func(t *testing.T, r fenceRig) { remove(t, r.paths.elect) }
	for _, tt := range []struct {
		name  string
		lose  func(*testing.T, fenceRig)
		steps []string // in the journal: begun, and done with a "!"
		want  string
	}{
		{"damaged while GO may be superseded", damage, []string{kubeadm.StepInit}, "may have been superseded"},
		{"damaged after init", damage, []string{kubeadm.StepInit, kubeadm.StepInit + "!"}, "may have been superseded"},
		{"gone", gone, []string{kubeadm.StepInit}, "may have been superseded"},
		{"at the next boot", newLife, []string{kubeadm.StepInit}, "may have been superseded"},
		{"damaged, sealed", damage, []string{kubeadm.StepInit, kubeadm.StepInit + "!", bootstrap.StepSealed + "!"}, ""},
		{"at the next boot, sealed", newLife, []string{kubeadm.StepInit, bootstrap.StepSealed + "!"}, ""},
		{"damaged where it joined", damage, []string{kubeadm.StepJoin}, ""},
		{"a cluster by hand", damage, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFenceRig(t)
			journal, err := durable.OpenJournal(r.paths.journal, "boot", time.Now)
			if err != nil {
				t.Fatal(err)
			}
			defer journal.Close()
			for _, step := range tt.steps {
				name, done := strings.CutSuffix(step, "!")
				event := map[bool]durable.Event{false: durable.Started, true: durable.Done}[done]
				if err := journal.Write(name, event, ""); err != nil {
					t.Fatal(err)
				}
			}
			tt.lose(t, r)
			traces, err := readTraces(r.paths)
			if err == nil {
				err = bootstrap.CheckStart(traces)
			}
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func mark(t *testing.T, r *fenceRig, inst string, epoch uint64) {
	t.Helper()
	if err := writeGoStands(r.paths.goStands, inst, epoch); err != nil {
		t.Fatal(err)
	}
}

// TestConfirms: a mark counts for the GO that this very state holds.
func TestConfirms(t *testing.T) {
	found, err := durable.Read(newFenceRig(t).paths.elect)
	if err != nil || found.State == nil {
		t.Fatal(found, err)
	}
	for _, tt := range []struct {
		mark *goStands
		want bool
	}{
		{&goStands{Inst: id("a")}, true},
		{&goStands{Inst: id("a"), Epoch: 1}, false},
		{&goStands{Inst: id("c")}, false},
		{nil, false},
	} {
		if got := tt.mark.confirms(*found.State); got != tt.want {
			t.Errorf("%+v confirms: %t", tt.mark, got)
		}
	}
	if (&goStands{Inst: id("a")}).confirms(election.State{Inst: id("a")}) {
		t.Error("a mark confirms a state without GO")
	}
}

// TestProbePatience: an endpoint that takes the connection and says nothing
// holds kubeadm-init up for seconds, not for ever.
func TestProbePatience(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	if otherCA(context.Background(), l.Addr().String(), nil) {
		t.Error("silence is taken for another cluster")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("asked for %s", took)
	}
}

// TestOnLo: an Elastic IP on this server's own lo would answer for itself.
func TestOnLo(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1": true, "127.0.0.2": false, "api.example.net": false, "": false} {
		if got := onLo(host); got != want {
			t.Errorf("onLo(%q) = %t", host, got)
		}
	}
}
