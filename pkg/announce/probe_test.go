package announce

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// authority makes a CA, its PEM form, and a server certificate for addr.
func authority(addr netip.Addr) (caPEM []byte, server tls.Certificate, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, server, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, server, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, server, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{addr.AsSlice()},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, server, err
	}
	caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return caPEM, tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}, nil
}

// apiServer stands for a kube-apiserver: /readyz that excludes checks as the
// real one does. etcd blocks as the real check does while etcd has no leader.
type apiServer struct {
	etcd  string // ok, failed, blocks
	other int    // status of all other checks
	hang  chan struct{}
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.hang != nil {
		<-a.hang
	}
	excluded := r.URL.Query()["exclude"]
	if !slices.Contains(excluded, "etcd") || !slices.Contains(excluded, "etcd-readiness") {
		switch a.etcd {
		case "blocks":
			<-r.Context().Done()
			return
		case "failed":
			http.Error(w, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed", http.StatusInternalServerError)
			return
		}
	}
	w.WriteHeader(a.other)
}

func startAPIServer(t *testing.T, a *apiServer) (url, caFile string) {
	t.Helper()
	ca, cert, err := authority(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(a)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL + "/readyz", caFile
}

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name   string
		server apiServer
		want   Verdict
		says   string
		most   time.Duration
	}{
		{"200", apiServer{etcd: "ok", other: 200}, Ready, "", probeTimeout},
		{"etcd failed", apiServer{etcd: "failed", other: 200}, EtcdOnly, "but for etcd", probeTimeout},
		{"etcd's check blocks", apiServer{etcd: "blocks", other: 200}, EtcdOnly, "but for etcd", 2 * probeTimeout},
		{"draining", apiServer{etcd: "ok", other: 500}, Failed, "status 500", probeTimeout},
		{"etcd failed and draining", apiServer{etcd: "failed", other: 500}, Failed, "status 500", probeTimeout},
		{"starting", apiServer{etcd: "ok", other: 403}, Failed, "status 403", probeTimeout},
		{"a redirect is no 200", apiServer{etcd: "ok", other: 204}, Failed, "status 204", probeTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url, ca := startAPIServer(t, &tc.server)
			p := NewProber(url, ca)
			defer p.Close()
			begin := time.Now()
			got, why := p.Probe(t.Context())
			if got != tc.want || !strings.Contains(why, tc.says) || (tc.says == "") != (why == "") {
				t.Errorf("verdict %d %q, want %d and %q", got, why, tc.want, tc.says)
			}
			if d := time.Since(begin); d > tc.most {
				t.Errorf("took %v, want at most %v", d, tc.most)
			}
		})
	}
}

func TestProbeSilent(t *testing.T) {
	hang := make(chan struct{})
	url, ca := startAPIServer(t, &apiServer{etcd: "ok", other: 200, hang: hang})
	defer close(hang)
	p := NewProber(url, ca)
	defer p.Close()
	begin := time.Now()
	got, why := p.Probe(t.Context())
	if got != Failed || !strings.Contains(why, "no answer") {
		t.Errorf("verdict %d %q, want a failure without an answer", got, why)
	}
	if d := time.Since(begin); d > probeTimeout+500*time.Millisecond {
		t.Errorf("took %v, want about %v", d, probeTimeout)
	}
}

func TestProbeCA(t *testing.T) {
	url, ca := startAPIServer(t, &apiServer{etcd: "ok", other: 200})
	right, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := authority(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	p := NewProber(url, file)
	defer p.Close()
	expect := func(step string, want Verdict, says string) {
		t.Helper()
		if got, why := p.Probe(t.Context()); got != want || !strings.Contains(why, says) {
			t.Errorf("%s: verdict %d %q, want %d and %q", step, got, why, want, says)
		}
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	expect("before kubeadm init", Failed, "not there yet")
	write([]byte("no PEM"))
	expect("no certificate", Failed, "PEM")
	write(other)
	expect("another cluster's CA", Failed, "certificate")
	write(right)
	expect("the right CA", Ready, "")
	refused := NewProber("https://127.0.0.1:1/readyz", file)
	if got, why := refused.Probe(t.Context()); got != Failed || !strings.Contains(why, "refused") {
		t.Errorf("refused: verdict %d %q, want a failure that says so", got, why)
	}
}

func TestWatch(t *testing.T) {
	server := &apiServer{etcd: "ok", other: 200}
	url, ca := startAPIServer(t, server)
	ctx, cancel := context.WithCancel(t.Context())
	type report struct {
		open bool
		why  string
	}
	reports := make(chan report, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		NewProber(url, ca).Watch(ctx, func(open bool, why string) { reports <- report{open, why} })
	}()
	if got := <-reports; !got.open {
		t.Errorf("first report %+v, want open", got)
	}
	begin := time.Now()
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	for got := range reports {
		if !got.open {
			break
		}
	}
	if d := time.Since(begin); d < probePeriod || d > 3*time.Second {
		t.Errorf("shut after %v, want after two failures and within 3 s", d)
	}
	cancel()
	<-done
}
