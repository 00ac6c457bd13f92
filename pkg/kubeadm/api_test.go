package kubeadm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/test/kubeapi"
)

// server is an API server with state, as far as API asks one: health, nodes,
// secrets, and a client certificate of the cluster CA where one is needed.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	objects kubeapi.Server // Lease and ConfigMap
	health  int
	nodes   map[string]bool // name to Ready
	secrets []map[string]string
}

func startServer(t *testing.T, a Authorities) *server {
	t.Helper()
	s := &server{health: http.StatusOK, nodes: map[string]bool{}}
	mux := http.NewServeMux()
	healthy := func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.WriteHeader(s.health)
		fmt.Fprint(w, "[+]ping ok\n[-]etcd failed: reason withheld\n")
	}
	mux.HandleFunc("GET /readyz", healthy)
	mux.HandleFunc("GET /livez", healthy)
	mux.HandleFunc("GET /api/v1/nodes", s.known(s.listNodes))
	mux.HandleFunc("GET /api/v1/nodes/{name}", s.known(s.getNode))
	mux.HandleFunc("POST /api/v1/namespaces/kube-system/secrets", s.known(s.postSecret))
	for _, path := range []string{leasePath, leasePath + "/", mirrorPath, mirrorPath + "/"} {
		mux.HandleFunc(path, s.known(s.objects.ServeHTTP))
	}
	// What a cluster says that is closed to anonymous callers; kubeadm goes on.
	mux.HandleFunc("GET /api/v1/namespaces/kube-public/configmaps/cluster-info", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"forbidden"}`)
	})
	s.Server = httptest.NewUnstartedServer(mux)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CA())
	s.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
		Certificates: []tls.Certificate{pair(t, a, "kube-apiserver")},
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are part of the tests
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *server) at() netip.AddrPort { return netip.MustParseAddrPort(s.Listener.Addr().String()) }

func (s *server) known(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","message":"nodes is forbidden: User \"system:anonymous\" cannot"}`)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		h(w, r)
	}
}

func nodeJSON(name string, ready bool) string {
	status := map[bool]string{true: "True", false: "False"}[ready]
	return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"node-role.kubernetes.io/control-plane":""}},"status":{
		"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":%q,"message":"cni plugin not initialized"}],
		"addresses":[{"type":"Hostname","address":%q},{"type":"InternalIP","address":"10.99.14.9"}]}}`, name, status, name)
}

func (s *server) listNodes(w http.ResponseWriter, _ *http.Request) {
	var items []string
	for name, ready := range s.nodes {
		items = append(items, nodeJSON(name, ready))
	}
	slices.Sort(items)
	fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
}

func (s *server) getNode(w http.ResponseWriter, r *http.Request) {
	ready, ok := s.nodes[r.PathValue("name")]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","message":"nodes not found"}`)
		return
	}
	fmt.Fprint(w, nodeJSON(r.PathValue("name"), ready))
}

func (s *server) postSecret(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	var o struct {
		Type       string            `json:"type"`
		StringData map[string]string `json:"stringData"`
	}
	if err := json.Unmarshal(data, &o); err != nil || o.Type != "bootstrap.kubernetes.io/token" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.secrets = append(s.secrets, o.StringData)
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, `{}`)
}

// pair is a certificate of the cluster CA for a server on loopback or a client.
func pair(t *testing.T, a Authorities, name string) tls.Certificate {
	t.Helper()
	certPEM, keyPEM := pairPEM(t, a, name, time.Now().Add(time.Hour))
	p, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pairPEM(t *testing.T, a Authorities, name string, until time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	ca, err := tls.X509KeyPair(a.files[caCert], a.files[caKey])
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// conf is a kubeconfig as kubeadm writes admin.conf.
func conf(t *testing.T, a Authorities, server string) []byte {
	t.Helper()
	certPEM, keyPEM := pairPEM(t, a, "kubernetes-admin", time.Now().Add(time.Hour))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: %s
  name: k8s-bgp
contexts:
- context:
    cluster: k8s-bgp
    user: kubernetes-admin
  name: kubernetes-admin@k8s-bgp
current-context: kubernetes-admin@k8s-bgp
kind: Config
users:
- name: kubernetes-admin
  user:
    client-certificate-data: %s
    client-key-data: %s
`, b64(a.CA()), server, b64(certPEM), b64(keyPEM))
}

func admin(t *testing.T, a Authorities, s *server) *API {
	t.Helper()
	// The file names the Elastic IP; the call goes to the server's own address.
	x, err := parseKubeconfig(conf(t, a, "https://147.75.194.92:6443"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x.at(s.at())
}

func TestHealth(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	api, err := NewAPI(s.at(), a.CA())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		code int
		ok   bool
	}{{200, true}, {401, false}, {403, false}, {500, false}} {
		s.health = row.code
		for name, err := range map[string]error{"readyz": api.Readyz(t.Context()), "livez": api.Livez(t.Context())} {
			if (err == nil) != row.ok {
				t.Errorf("%s with %d: %v", name, row.code, err)
			}
		}
	}
	if err := api.Readyz(t.Context()); err == nil || !strings.Contains(err.Error(), "[-]etcd failed") {
		t.Errorf("the error does not say what failed: %v", err)
	}
}

func TestAnotherCAIsRefused(t *testing.T) {
	s := startServer(t, authorities(t))
	api, err := NewAPI(s.at(), authorities(t).CA())
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Livez(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestNodes(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	s.nodes = map[string]bool{"cp1": true, "w1": false}
	ip := netip.MustParseAddr("10.99.14.9")
	want := []Node{
		{Name: "cp1", Ready: true, InternalIP: ip, ControlPlane: true},
		{Name: "w1", Reason: "cni plugin not initialized", InternalIP: ip, ControlPlane: true},
	}
	got, err := admin(t, a, s).Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	n, found, err := admin(t, a, s).Node(t.Context(), "w1")
	if err != nil || !found || n.Ready {
		t.Errorf("w1: %+v, %t, %v", n, found, err)
	}
	if _, found, err := admin(t, a, s).Node(t.Context(), "w2"); found || err != nil {
		t.Errorf("w2: found %t, %v", found, err)
	}
	anonymous, err := NewAPI(s.at(), a.CA())
	if err != nil {
		t.Fatal(err)
	}
	var status *StatusError
	if _, err := anonymous.Nodes(t.Context()); !errors.As(err, &status) || status.Code != http.StatusForbidden {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestCreateBootstrapToken(t *testing.T) {
	a := authorities(t)
	s := startServer(t, a)
	before := time.Now()
	token, err := admin(t, a, s).CreateBootstrapToken(t.Context(), 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.secrets) != 1 {
		t.Fatalf("%d secrets", len(s.secrets))
	}
	got := s.secrets[0]
	expires, err := time.Parse(time.RFC3339, got["expiration"])
	if err != nil || expires.Before(before.Add(14*time.Minute)) || expires.After(time.Now().Add(16*time.Minute)) {
		t.Errorf("expires %s, %v", got["expiration"], err)
	}
	if got["token-id"]+"."+got["token-secret"] != token.Reveal() {
		t.Error("the token returned is not the one stored")
	}
	delete(got, "expiration")
	delete(got, "token-id")
	delete(got, "token-secret")
	want := map[string]string{
		"description": "muster: one join", "usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true",
		"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := fmt.Sprint(token); strings.Contains(s, token.Reveal()) {
		t.Error("the token prints itself")
	}
}

func TestCallIsBounded(t *testing.T) {
	hang := make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer s.Close()
	defer close(hang)
	api, err := NewAPI(netip.MustParseAddrPort(s.Listener.Addr().String()), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := api.Livez(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestBadKubeconfigs(t *testing.T) {
	good := string(conf(t, authorities(t), "https://10.0.0.1:6443"))
	for name, bad := range map[string]string{
		"torn":            good[:60],
		"no server":       strings.Replace(good, "https://10.0.0.1:6443", `""`, 1),
		"no such context": strings.Replace(good, "current-context: ", "current-context: x", 1),
		"no CA":           strings.Replace(good, "certificate-authority-data: ", "x: ", 1),
		"bad certificate": strings.Replace(good, "client-certificate-data: ", "client-certificate-data: eA==\n    x: ", 1),
	} {
		if _, err := parseKubeconfig([]byte(bad), os.ReadFile); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDiscovery(t *testing.T) {
	a := authorities(t)
	data, err := Discovery("https://10.99.14.9:6443", a.CA())
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseKubeconfig(data, nil)
	if err != nil || got.server.Host != "10.99.14.9:6443" || got.client != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"10.99.14.9:6443", "http://10.99.14.9:6443", "https://"} {
		if _, err := Discovery(bad, a.CA()); err == nil {
			t.Errorf("server %q was accepted", bad)
		}
	}
	if _, err := Discovery("https://10.99.14.9:6443", []byte("x")); err == nil {
		t.Error("a CA without certificate was accepted")
	}
}

func FuzzKubeconfig(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: b}}]\nclusters: [{name: b, cluster: {server: 'https://x'}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseKubeconfig(data, func(string) ([]byte, error) { return nil, errors.New("no file") })
		if err == nil && (a.server == nil || a.roots == nil) {
			t.Error("no error, and no server or CA")
		}
	})
}
