package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
)

// staticPods are etcd and the API server, run while their manifests are there.
type staticPods struct {
	etcd *etcd
	stop []func() error // of etcd
	api  *http.Server
}

// reconcile starts and ends what the manifests say.
func (p *staticPods) reconcile() error {
	raw, err := os.ReadFile(manifest("etcd"))
	wanted := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !wanted {
		p.end()
		return nil
	}
	if p.etcd == nil {
		var what pod
		if err := json.Unmarshal(raw, &what); err != nil {
			return nil // half-written; the next look is soon
		}
		if err := p.startEtcd(what); err != nil {
			return fmt.Errorf("starting etcd: %w", err)
		}
	}
	if _, err := os.Stat(manifest("kube-apiserver")); err == nil && p.api == nil {
		if err := p.startAPI(); err != nil {
			return fmt.Errorf("starting kube-apiserver: %w", err)
		}
	}
	return nil
}

func (p *staticPods) startEtcd(what pod) error {
	e, err := openEtcd(what)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(layout.KubernetesPKI, "etcd/ca.crt"))
	if err != nil {
		return err
	}
	config, err := serverTLS("etcd/server", ca)
	if err != nil {
		return err
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	peers, err := net.Listen("tcp", ":"+peerPort)
	if err != nil {
		return err
	}
	clients, err := tls.Listen("tcp", ":"+clientPort, config)
	if err != nil {
		return errors.Join(err, peers.Close())
	}
	// To take a connection is all that peers are asked for.
	go func() {
		for {
			c, err := peers.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	server := &http.Server{Handler: e.gateway(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(clients) }() // ends with end
	p.etcd, p.stop = e, []func() error{peers.Close, server.Close}
	return nil
}

func (p *staticPods) startAPI() error {
	ca, err := readAuthority("ca")
	if err != nil {
		return err
	}
	config, err := serverTLS("apiserver", ca.pem)
	if err != nil {
		return err
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	l, err := tls.Listen("tcp", ":6443", config)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: &apiServer{etcd: p.etcd, ca: ca}, ReadHeaderTimeout: 5 * time.Second}
	p.api = server
	go func() { _ = server.Serve(l) }() // ends with end
	return nil
}

// end ends both.
func (p *staticPods) end() {
	if p.api != nil {
		_ = p.api.Close()
	}
	for _, stop := range p.stop {
		_ = stop()
	}
	*p = staticPods{}
}

// serverTLS is the TLS of a server with a pair below the directory of keys.
func serverTLS(name string, clientCA []byte) (*tls.Config, error) {
	base := filepath.Join(layout.KubernetesPKI, name)
	cert, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(clientCA) {
		return nil, errors.New("the CA holds no certificate")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientCAs: clients}, nil
}
