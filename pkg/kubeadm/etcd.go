package kubeadm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/layout"
)

// etcdURL asks the etcd beside an API server, which listens at the address that the
// API server advertises; on lo it has 127.0.0.1 or ::1, by the family of that. The
// path is that of etcd's JSON gateway (etcd 3.5 to 3.7).
func etcdURL(apiServer netip.AddrPort) string {
	const clientPort = 2379
	return "https://" + netip.AddrPortFrom(apiServer.Addr(), clientPort).String() + memberList
}

// memberList is the gateway's path for the list of members.
const memberList = "/v3/cluster/member/list"

// Promoted says whether the etcd of this node votes. Until it does, it is a
// learner, and etcd takes no second one: no other control plane can join.
func (k *Kubeadm) Promoted(ctx context.Context, node string) (bool, error) {
	at, err := localServer(k.Root)
	if err != nil {
		return false, err
	}
	client, err := k.etcdClient()
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	return promoted(ctx, client, etcdURL(at), node)
}

func promoted(ctx context.Context, client *http.Client, url, node string) (bool, error) {
	var list struct {
		Members []etcdMember `json:"members"`
	}
	g := etcdGateway{client: client, base: strings.TrimSuffix(url, memberList)}
	if err := g.ask(ctx, memberList, struct{}{}, &list); err != nil {
		return false, err
	}
	return slices.Contains(list.Members, etcdMember{Name: node}), nil
}

// etcdMember is what etcd says of a member, as far as it matters here. A member
// that was added and has not started has no name.
type etcdMember struct {
	Name      string `json:"name"`
	IsLearner bool   `json:"isLearner"`
}

// etcdClient has the rights of kubeadm's own health check of etcd.
func (k *Kubeadm) etcdClient() (*http.Client, error) {
	dir := k.path(filepath.Join(layout.KubernetesPKI, "etcd"))
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("reading etcd's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("etcd's CA holds no certificate")
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "healthcheck-client.crt"), filepath.Join(dir, "healthcheck-client.key"))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate for etcd: %w", err)
	}
	return &http.Client{Timeout: callTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{cert},
	}}}, nil
}
