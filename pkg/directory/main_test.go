package directory

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/mustermetal/muster/pkg/election"
)

const (
	specID = "5b0c0000000000000000000000000000"
	caHash = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

	inNamespace = "DIRECTORY_TEST_NETNS"
	childOf     = "DIRECTORY_TEST_CHILD" // directory with config of a node to run and be killed
)

// TestMain runs the tests in a network namespace of their own, as root: every
// first node listens on the same abstract socket, and ports stay free.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childOf); dir != "" {
		os.Exit(child(dir))
	}
	if os.Geteuid() == 0 && os.Getenv(inNamespace) == "" {
		code, aborted := inNetwork()
		if aborted {
			// dqlite 1.18.1 may free a stale pointer when a follower becomes something else,
			// as canonical/dqlite#857 has it; 1.18.4 does not, and Debian 13 has 1.18.1. On a
			// server systemd starts the directory again; here all nodes share one process.
			fmt.Fprintln(os.Stderr, "the C library ended the tests (canonical/dqlite#857, see docs/testing.md): they run once more")
			code, _ = inNetwork()
		}
		os.Exit(code)
	}
	if os.Getenv(inNamespace) != "" {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "cannot bring lo up:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// inNetwork runs the tests in a network namespace, and says whether C's abort ended
// them; what fails or hangs in Go ends otherwise.
func inNetwork() (code int, aborted bool) {
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inNamespace+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := self.Run()
	if self.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "cannot start the tests in a network namespace:", err)
		return 1, false
	}
	status, _ := self.ProcessState.Sys().(syscall.WaitStatus)
	if code = self.ProcessState.ExitCode(); code < 0 { // a signal
		code = 1
	}
	return code, status.Signaled() && status.Signal() == syscall.SIGABRT
}

// heldGo is the durable state of an elector that holds GO of epoch 0.
func heldGo() election.State {
	inst, hw := hex32("a"), hex32("b")
	leader := election.Leader{HW: hw, Inst: inst, Name: "cp1", Address: netip.MustParseAddr("127.0.0.1"), CAHash: caHash, AgentCAHash: "sha256:c"}
	return election.State{
		SpecID: specID, Inst: inst, Hardware: election.Hardware{HW: hw}, GoMarker: true,
		Slots: []election.Slot{
			{Decided: election.Value{Kind: election.Lead, Leader: leader}},
			{Decided: election.Value{Kind: election.Go}},
		},
	}
}

func hex32(digit string) string { return strings.Repeat(digit, 32) }

// inst returns a made-up instance or hardware id.
func inst(n int) string { return fmt.Sprintf("%032x", n) }

func right(t *testing.T) *Right {
	t.Helper()
	r, err := RightOfGo(heldGo(), specID)
	if err != nil {
		t.Fatalf("RightOfGo: %v", err)
	}
	return &r
}

// pki makes a CA in dir and, below it, a leaf for each host, as files.
func pki(t *testing.T, dir string, hosts int) {
	t.Helper()
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"directory"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
			KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	caKeyPublic, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := template("ca")
	ca.IsCA = true
	write := func(path string, data []byte, err error) {
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKeyPublic, caKey)
	write(filepath.Join(dir, "ca"), der, err)
	for i := 1; i <= hosts; i++ {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, template(inst(i)), ca, public, caKey)
		write(filepath.Join(hostDir(dir, i), "cert"), der, err)
		write(filepath.Join(hostDir(dir, i), "key"), key, nil)
	}
}

func hostDir(root string, i int) string { return filepath.Join(root, fmt.Sprintf("cp%d", i)) }

// tlsConfigs reads what pki wrote for the host in dir.
func tlsConfigs(dir string) (listen, dial *tls.Config, err error) {
	var files [3][]byte
	for i, path := range []string{filepath.Join(filepath.Dir(dir), "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")} {
		if files[i], err = os.ReadFile(path); err != nil {
			return nil, nil, err
		}
	}
	ca, err := x509.ParseCertificate(files[0])
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	pair := []tls.Certificate{{Certificate: [][]byte{files[1]}, PrivateKey: ed25519.PrivateKey(files[2])}}
	listen = &tls.Config{Certificates: pair, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	dial = &tls.Config{Certificates: pair, RootCAs: pool, ServerName: "directory", MinVersion: tls.VersionTLS13}
	return listen, dial, nil
}

// peerInst reads the instance from a leaf of pki.
func peerInst(cs tls.ConnectionState) (string, error) {
	return cs.PeerCertificates[0].Subject.CommonName, nil
}

// host is one control plane of a test: its disk, its address, and its process or
// goroutine when it runs.
type host struct {
	dir    string // holds data/, sock
	config Config
	client *Client

	cancel context.CancelFunc
	done   chan error
	ready  chan struct{}
}

// newHosts returns n hosts on loopback addresses with free ports; the first has
// the right of GO.
func newHosts(t *testing.T, n int) []*host {
	t.Helper()
	return newHostsAt(t, n, func(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}) })
}

func newHostsAt(t *testing.T, n int, at func(i int) netip.Addr) []*host {
	t.Helper()
	root := t.TempDir()
	hosts := make([]*host, n)
	var peers []netip.AddrPort
	for i := range hosts {
		ip := at(i)
		peers = append(peers, netip.AddrPortFrom(ip, freePort(t, ip)))
		if err := os.MkdirAll(filepath.Join(hostDir(root, i+1), "data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	pki(t, root, n)
	for i := range hosts {
		dir := hostDir(root, i+1)
		listen, dial, err := tlsConfigs(dir)
		if err != nil {
			t.Fatal(err)
		}
		h := &host{dir: dir, config: Config{
			Dir: DataDir(filepath.Join(dir, "data"), 0, 0), Address: peers[i], Listen: listen, Dial: dial,
			Peers: peers, Inst: inst(i + 1), PeerInst: peerInst, CAHash: caHash, Socket: filepath.Join(dir, "sock"), Log: logger(t, i),
		}}
		h.client = NewClient(h.config.Socket)
		hosts[i] = h
	}
	hosts[0].config.Right = right(t)
	return hosts
}

func freePort(t *testing.T, ip netip.Addr) uint16 {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// run starts the host in this process and waits until it serves.
func (h *host) run(t *testing.T) {
	t.Helper()
	h.begin(t)
	h.awaitReady(t)
}

// begin starts the host in this process.
func (h *host) begin(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	done := make(chan error, 1)
	c := h.config
	c.Ready = func() { close(ready) }
	h.cancel, h.done, h.ready = cancel, done, ready
	go func() { done <- Run(ctx, c) }()
	t.Cleanup(func() { h.stop(t) })
}

// beginAndSay starts the host in this process and waits until its status has a text.
func (h *host) beginAndSay(t *testing.T, want string) {
	t.Helper()
	said := make(chan string, 64)
	h.config.Status = func(text string) { said <- text }
	h.begin(t)
	h.config.Status = nil
	late := time.After(20 * time.Second)
	for text := ""; !strings.Contains(text, want); {
		select {
		case text = <-said:
		case err := <-h.done:
			h.cancel = nil
			t.Fatalf("%s ended: %v", h.config.Address, err)
		case <-late:
			t.Fatalf("%s does not say %q; last: %q", h.config.Address, want, text)
		}
	}
}

func (h *host) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-h.ready:
	case err := <-h.done:
		h.cancel = nil
		t.Fatalf("%s ended: %v", h.config.Address, err)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s is not ready after 20 s", h.config.Address)
	}
}

// stop ends a host that runs in this process, orderly.
func (h *host) stop(t *testing.T) {
	t.Helper()
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	select {
	case err := <-h.done:
		if err != nil && h.ready != nil {
			t.Logf("%s stopped: %v", h.config.Address, err)
		}
	case <-time.After(15 * time.Second):
		t.Errorf("%s does not stop", h.config.Address)
	}
}

// cancelAll tells all hosts at once to end.
func cancelAll(hosts []*host) {
	for _, h := range hosts {
		if h.cancel != nil {
			h.cancel()
		}
	}
}

// ended waits for a host to end by itself and returns why.
func (h *host) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-h.done:
		h.cancel = nil
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s still runs", h.config.Address)
		return nil
	}
}

// childConfig is what a host in a process of its own needs to know.
type childConfig struct {
	Plan  Plan
	Inst  string
	Right bool
}

// spawn starts the host in a process of its own, to be killed, and waits until
// it serves.
func (h *host) spawn(t *testing.T) *exec.Cmd {
	t.Helper()
	data, err := json.Marshal(childConfig{Inst: h.config.Inst, Right: h.config.Right != nil, Plan: Plan{Address: h.config.Address, Peers: h.config.Peers}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "child.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childOf+"="+h.dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	got := make(chan string, 1)
	go func() {
		line := make([]byte, 16)
		n, _ := out.Read(line)
		got <- string(line[:n])
	}()
	select {
	case line := <-got:
		if line != "ready\n" {
			t.Fatalf("process of %s ended before it was ready", h.config.Address)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("process of %s is not ready after 20 s", h.config.Address)
	}
	return cmd
}

// kill ends a process as a power loss does.
func kill(cmd *exec.Cmd) {
	cmd.Process.Kill() //nolint:errcheck // it may have ended
	cmd.Wait()         //nolint:errcheck // killed
}

func child(dir string) int {
	data, err := os.ReadFile(filepath.Join(dir, "child.json"))
	var c childConfig
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	var listen, dial *tls.Config
	if err == nil {
		listen, dial, err = tlsConfigs(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	config := Config{
		Dir: DataDir(filepath.Join(dir, "data"), 0, 0), Address: c.Plan.Address, Listen: listen, Dial: dial, Peers: c.Plan.Peers, Inst: c.Inst, PeerInst: peerInst,
		CAHash: caHash, Socket: filepath.Join(dir, "sock"), Log: slog.New(slog.DiscardHandler),
		Ready: func() { fmt.Println("ready") },
	}
	if c.Right {
		r, err := RightOfGo(heldGo(), specID)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		config.Right = &r
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// logger writes to the test's log, and stops doing so when the test ends:
// dqlite's goroutines may outlive it by a moment.
func logger(t *testing.T, i int) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.end)
	level := slog.LevelInfo
	if os.Getenv("DIRECTORY_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})).With("cp", i+1)
}

type testWriter struct {
	mu sync.Mutex
	t  *testing.T
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
