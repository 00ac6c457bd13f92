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
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/identity"
)

// directoryRig is what a server that holds GO has on its disk.
type directoryRig struct {
	dir   string
	spec  string
	inst  string
	state election.State
	plan  directory.Plan
}

func newDirectoryRig(t *testing.T) *directoryRig {
	t.Helper()
	spec := strings.Repeat("4", 32)
	ca, err := identity.NewAuthority(spec)
	if err != nil {
		t.Fatal(err)
	}
	return newDirectoryRigOf(t, spec, ca, strings.Repeat("1", 32))
}

// newDirectoryRigOf is the server with an instance in the cluster of an agent CA.
func newDirectoryRigOf(t *testing.T, spec string, ca *identity.Authority, inst string) *directoryRig {
	t.Helper()
	r := &directoryRig{dir: t.TempDir(), inst: inst}
	hw, caHash := strings.Repeat("2", 32), "sha256:"+strings.Repeat("3", 64)
	r.spec = spec

	c, problems := cluster.Parse("template", cluster.Template("demo", r.spec, 5, 3))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.Secret, err = cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64))); err != nil {
		t.Fatal(err)
	}
	data, err := cluster.Marshal(c)
	r.write(t, "cluster.yaml", data, err)

	key, err := identity.NewKey()
	r.write(t, "pki/"+leafKeyFile, key, err)
	csr, err := identity.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr("127.0.0.1")
	leaf, err := ca.Sign(csr, identity.Subject{Inst: r.inst, HW: hw, Name: "cp1", IPs: []netip.Addr{address}})
	r.write(t, "pki/"+leafFile, leaf, err)
	r.write(t, "pki/"+agentCAFile, ca.CertPEM(), nil)

	leader := election.Leader{HW: hw, Inst: r.inst, Name: "cp1", Address: address, CAHash: caHash, AgentCAHash: ca.Hash()}
	r.state = election.State{
		Seq: 1, SpecID: r.spec, Config: election.FromSpec(c.Spec).Hash(), N: 1, Inst: r.inst, Hardware: election.Hardware{HW: hw}, GoMarker: true,
		Slots: []election.Slot{
			{Decided: election.Value{Kind: election.Lead, Leader: leader}},
			{Decided: election.Value{Kind: election.Go}},
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.plan = directory.Plan{Bootstrap: true, CAHash: caHash, Address: l.Addr().(*net.TCPAddr).AddrPort()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *directoryRig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *directoryRig) write(t *testing.T, name string, data []byte, err error) {
	t.Helper()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(r.path(name)), 0o700)
	}
	if err == nil {
		err = durable.WriteFile(r.path(name), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lay writes plan and state.
func (r *directoryRig) lay(t *testing.T) {
	t.Helper()
	plan, err := r.plan.Marshal()
	r.write(t, "directory.json", plan, err)
	state, err := election.EncodeState(r.state)
	r.write(t, "elect/state.a", state, err)
}

func (r *directoryRig) command(ctx context.Context) (code int, stderr string) {
	var out, talk bytes.Buffer
	code = run(ctx, []string{"directory", "--config", r.path("cluster.yaml"), "--plan", r.path("directory.json"), "--keys", r.path("pki"),
		"--elect", r.path("elect"), "--data", r.path("data"), "--socket", r.path("sock")}, &out, &talk)
	return code, talk.String()
}

func TestDirectoryRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*directoryRig)
		code   int
		want   string
	}{
		{"a plan alone", func(r *directoryRig) { r.state.GoMarker = false }, exitConfig, "does not hold GO"},
		{"GO of another", func(r *directoryRig) { r.state.Inst, r.state.GoMarker = strings.Repeat("9", 32), false }, exitConfig, "the agent's certificate of"},
		{"another cluster", func(r *directoryRig) { r.state.SpecID = strings.Repeat("8", 32) }, exitConfig, "reinstall this server"},
		{"another epoch", func(r *directoryRig) { r.plan.Epoch = 3 }, exitConfig, "GO is for epoch 0"},
		{"sealed, and no copy", func(r *directoryRig) {
			r.state.Sealed = election.Sealed{CAHash: r.plan.CAHash, Endpoint: "10.0.0.1:6443"}
		}, exitConfig, "no other control plane"},
		{"no GO and no peers", func(r *directoryRig) { r.plan.Bootstrap = false }, exitConfig, "no other control plane"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newDirectoryRig(t)
			test.change(r)
			r.lay(t)
			code, stderr := r.command(t.Context())
			if code != test.code || !strings.Contains(stderr, test.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, test.code, test.want, stderr)
			}
			if _, err := os.Stat(r.path("data/e0-g0")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a database was made: %v", err)
			}
		})
	}
}

func TestDirectoryNeedsItsFiles(t *testing.T) {
	r := newDirectoryRig(t)
	if code, stderr := r.command(t.Context()); code != exitUnavailable || !strings.Contains(stderr, "muster.service writes it") {
		t.Errorf("without a plan: exit %d, want %d:\n%s", code, exitUnavailable, stderr)
	}
	r.write(t, "directory.json", []byte(`{"version":1,"right":true}`), nil)
	if code, stderr := r.command(t.Context()); code != exitConfig || !strings.Contains(stderr, `unknown field "right"`) {
		t.Errorf("with an unknown key in the plan: exit %d, want %d:\n%s", code, exitConfig, stderr)
	}
	if err := os.Remove(r.path("pki/" + leafFile)); err != nil {
		t.Fatal(err)
	}
	r.lay(t)
	if code, stderr := r.command(t.Context()); code != exitUnavailable || !strings.Contains(stderr, "when it enrols") {
		t.Errorf("without a leaf: exit %d, want %d:\n%s", code, exitUnavailable, stderr)
	}
}

func TestDirectoryServesTheHolderOfGo(t *testing.T) {
	r := newDirectoryRig(t)
	serve := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		socket := filepath.Join(t.TempDir(), "notify")
		t.Setenv("NOTIFY_SOCKET", socket)
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // a test's socket
		if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		type end struct {
			code   int
			stderr string
		}
		ended := make(chan end, 1)
		r.lay(t)
		go func() {
			code, stderr := r.command(ctx)
			ended <- end{code, stderr}
		}()
		buffer := make([]byte, 4096)
		for said := ""; !strings.Contains(said, "READY=1"); {
			n, err := l.Read(buffer)
			if err != nil {
				cancel()
				t.Fatalf("READY=1 never came: %v; %+v", err, <-ended)
			}
			said = string(buffer[:n])
		}
		nodes, err := directory.NewClient(r.path("sock")).Nodes(ctx)
		if err != nil || len(nodes) != 1 || nodes[0].Address != r.plan.Address.String() {
			t.Errorf("nodes %v, %v; want %s alone", nodes, err, r.plan.Address)
		}
		cancel()
		if e := <-ended; e.code != 0 {
			t.Errorf("told to stop, it exits %d:\n%s", e.code, e.stderr)
		}
	}
	serve()
	// Sealed since: there is no right any more, and none is needed.
	r.state.Sealed = election.Sealed{CAHash: r.plan.CAHash, Endpoint: "10.0.0.1:6443"}
	serve()
}
