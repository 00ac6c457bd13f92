package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/pkg/layout"
)

const bootstrapConf = "/etc/kubernetes/bootstrap-kubelet.conf"

// node is what kubeadm-flags.env says of this node.
type node struct{ name, ip string }

// kubelet runs what the manifests say and keeps this server's node.
func kubelet(args []string) error {
	if strings.Join(args, " ") == "--version" {
		fmt.Println("Kubernetes " + images.KubernetesVersion)
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var n node
	for _, arg := range args {
		if v, ok := strings.CutPrefix(arg, "--hostname-override="); ok {
			n.name = v
		}
		if v, ok := strings.CutPrefix(arg, "--node-ip="); ok {
			n.ip = v
		}
	}
	if n.name == "" || n.ip == "" {
		return fmt.Errorf("arguments %q name no node", args)
	}
	pods := &staticPods{}
	defer pods.end()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var reported time.Time
	said := ""
	for {
		err := pods.reconcile()
		// The real one reports every 10 s, and at once when something changed.
		if err == nil && time.Since(reported) > 10*time.Second {
			if err = n.report(ctx); err == nil {
				reported = time.Now()
			}
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			fmt.Fprintln(os.Stderr, "kubelet (stand-in):", said)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// report registers the node, or calls it Ready again.
func (n node) report(ctx context.Context) error {
	if err := n.bootstrap(ctx); err != nil {
		return fmt.Errorf("getting a certificate: %w", err)
	}
	conf, err := readKubeconfig(layout.KubeletConf)
	if err != nil {
		return err
	}
	api, err := conf.open("")
	if err != nil {
		return err
	}
	status := object{
		"conditions": []object{{"type": "Ready", "status": "True", "message": "stand-in"}},
		"addresses":  []object{{"type": "InternalIP", "address": n.ip}},
		"nodeInfo":   object{"kubeletVersion": images.KubernetesVersion},
	}
	own := object{"kind": "Node", "apiVersion": "v1", "metadata": object{"name": n.name, "labels": object{}}, "status": status}
	err = api.call(ctx, http.MethodPost, "/api/v1/nodes", own, nil)
	var f failure
	if errors.As(err, &f) && f.code == http.StatusConflict {
		return api.call(ctx, http.MethodPatch, "/api/v1/nodes/"+n.name, object{"status": status}, nil)
	}
	return err
}

// bootstrap gets the kubelet's certificate by the bootstrap token, unless it has
// one.
func (n node) bootstrap(ctx context.Context) error {
	if _, err := os.Stat(layout.KubeletConf); err == nil {
		return nil
	}
	conf, err := readKubeconfig(bootstrapConf)
	if err != nil {
		return err
	}
	api, err := conf.open("")
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + n.name, Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		return err
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	var signed struct {
		Status struct {
			Certificate string `json:"certificate"`
		} `json:"status"`
	}
	err = api.call(ctx, http.MethodPost, csrPath, object{"spec": object{"request": base64.StdEncoding.EncodeToString(request)}}, &signed)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	conf.Users[0].User.Token = ""
	conf.Users[0].User.CertData = signed.Status.Certificate
	conf.Users[0].User.KeyData = base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	return conf.write(layout.KubeletConf)
}

func manifest(name string) string { return filepath.Join(layout.Manifests, name+".yaml") }
