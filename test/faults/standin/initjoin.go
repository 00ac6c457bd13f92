package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/test/faults/ledger"
)

// initialise is kubeadm init.
func initialise(ctx context.Context, c config) error {
	if err := c.preflight(false); err != nil {
		return err
	}
	name, address := c.NodeRegistration.Name, c.LocalAPIEndpoint.AdvertiseAddress
	if err := record(ledger.Init, name); err != nil {
		return err
	}
	if err := wait(ctx, pace()/2); err != nil {
		return err
	}
	ca, err := layCertificates(c, name, address)
	if err != nil {
		return err
	}
	if err := layControlPlane(ca, c.ControlPlaneEndpoint, name, address); err != nil {
		return err
	}
	local := "https://" + net.JoinHostPort(address, "6443")
	err = ca.ensureKubeconfig(layout.KubeletConf, local, subject{name: "system:node:" + name, group: "system:nodes"})
	if err != nil {
		return err
	}
	if err := writeManifests(pod{Name: name, Address: address}); err != nil {
		return err
	}
	if err := writeKubelet(ctx, name, address); err != nil {
		return err
	}
	if err := wait(ctx, pace()/2); err != nil {
		return err
	}
	if err := markControlPlane(ctx, local, name); err != nil {
		return err
	}
	if err := publishConfig(ctx, local, c); err != nil {
		return err
	}
	return record(ledger.Done, name)
}

// shared is what later control planes need of init's configuration; the real kubeadm
// keeps it in a ConfigMap of the same name.
type shared struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Endpoint string   `json:"controlPlaneEndpoint"`
	CertSANs []string `json:"certSANs"`
}

const configMaps = "/api/v1/namespaces/kube-system/configmaps"

func publishConfig(ctx context.Context, server string, c config) error {
	api, err := admin(server)
	if err != nil {
		return err
	}
	s := shared{Endpoint: c.ControlPlaneEndpoint, CertSANs: c.APIServer.CertSANs}
	s.Metadata.Name = "kubeadm-config"
	err = api.call(ctx, http.MethodPost, configMaps, s, nil)
	var f failure
	if errors.As(err, &f) && f.code == http.StatusConflict {
		return nil // of an earlier run that this one finishes
	}
	return err
}

// admin is a client of one API server with the rights of admin.conf.
func admin(server string) (*client, error) {
	conf, err := readKubeconfig(layout.AdminConf)
	if err != nil {
		return nil, err
	}
	conf.Clusters[0].Cluster.Server = server
	return conf.open("")
}

// layCertificates makes what kubeadm makes under the authorities that are there.
func layCertificates(c config, name, address string) (authority, error) {
	ca, err := readAuthority("ca")
	if err != nil {
		return ca, err
	}
	etcdCA, err := readAuthority("etcd/ca")
	if err != nil {
		return ca, err
	}
	host, _, _ := net.SplitHostPort(c.ControlPlaneEndpoint)
	own := subject{name: name}
	own.ips, own.names = ips(append(slices.Clone(c.APIServer.CertSANs), "127.0.0.1", address, host, name)...)
	return ca, errors.Join(
		ca.ensurePair("apiserver", own),
		etcdCA.ensurePair("etcd/server", own),
		etcdCA.ensurePair("etcd/healthcheck-client", subject{name: "kube-etcd-healthcheck-client"}))
}

func layControlPlane(ca authority, server, name, address string) error {
	return errors.Join(
		ca.ensureKubeconfig(layout.AdminConf, "https://"+server, subject{name: "kubernetes-admin", group: "kubeadm:cluster-admins"}),
		ca.ensureKubeconfig(controllerManagerConf, "https://"+net.JoinHostPort(address, "6443"), subject{name: "system:kube-controller-manager"}))
}

func writeManifests(p pod) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(layout.Manifests, 0o755)}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		errs = append(errs, os.WriteFile(manifest(name), raw, 0o600))
	}
	return errors.Join(errs...)
}

// markControlPlane waits for the API server and the node, and labels it.
func markControlPlane(ctx context.Context, server, name string) error {
	api, err := admin(server)
	if err != nil {
		return err
	}
	label := object{"metadata": object{"labels": object{"node-role.kubernetes.io/control-plane": ""}}}
	return until(ctx, "the node of this control plane", func() error {
		return api.call(ctx, http.MethodPatch, "/api/v1/nodes/"+name, label, nil)
	})
}

// join is kubeadm join.
func join(ctx context.Context, c config) error {
	if err := c.preflight(true); err != nil {
		return err
	}
	conf, err := readKubeconfig(c.Discovery.File.KubeConfigPath)
	if err != nil {
		return err
	}
	conf.Users[0].User.Token = c.Discovery.TLSBootstrapToken
	api, err := conf.open("")
	if err != nil {
		return err
	}
	if err := until(ctx, "the API server that discovery names", func() error { return api.call(ctx, http.MethodGet, "/readyz", nil, nil) }); err != nil {
		return err
	}
	name, address := c.NodeRegistration.Name, ""
	if c.ControlPlane != nil {
		address = c.ControlPlane.LocalAPIEndpoint.AdvertiseAddress
	}
	if !slices.Contains(c.SkipPhases, "kubelet-start") {
		if err := startKubelet(ctx, api, conf, name, address); err != nil {
			return err
		}
	}
	if c.ControlPlane != nil {
		var s shared
		if err := api.call(ctx, http.MethodGet, configMaps+"/kubeadm-config", nil, &s); err != nil {
			return err
		}
		c.ControlPlaneEndpoint, c.APIServer.CertSANs = s.Endpoint, s.CertSANs
		if err := joinEtcd(ctx, c, conf, name, address); err != nil {
			return err
		}
	}
	return record(ledger.Join, name)
}

// startKubelet is the phase of that name: it refuses the name of a Ready node, and
// ends when the kubelet has its certificate.
func startKubelet(ctx context.Context, api *client, conf kubeconfig, name, address string) error {
	var there struct {
		Status struct {
			Conditions []struct{ Type, Status string } `json:"conditions"`
		} `json:"status"`
	}
	var f failure
	err := api.call(ctx, http.MethodGet, "/api/v1/nodes/"+name, nil, &there)
	if err != nil && (!errors.As(err, &f) || f.code != http.StatusNotFound) {
		return err
	}
	for _, cond := range there.Status.Conditions {
		if cond.Type == "Ready" && cond.Status == "True" {
			return fmt.Errorf("a Node with name %q and status \"Ready\" already exists in the cluster", name)
		}
	}
	ca, err := base64.StdEncoding.DecodeString(conf.Clusters[0].Cluster.CAData)
	if err != nil {
		return err
	}
	if address == "" {
		// A worker's address is the one that it reaches the API server from.
		if address, err = sourceAddress(conf.Clusters[0].Cluster.Server); err != nil {
			return err
		}
	}
	err = errors.Join(os.MkdirAll(layout.KubernetesPKI, 0o755), conf.write(bootstrapConf))
	if _, there := os.Stat(workerCA); there != nil {
		err = errors.Join(err, os.WriteFile(workerCA, ca, 0o644))
	}
	if err != nil {
		return err
	}
	if err := writeKubelet(ctx, name, address); err != nil {
		return err
	}
	return until(ctx, "the kubelet's certificate", func() error {
		_, err := os.Stat(layout.KubeletConf)
		return err
	})
}

// workerCA is where a worker has the CA's certificate from kubeadm, and a control
// plane had it before.
const workerCA = layout.KubernetesPKI + "/ca.crt"

func sourceAddress(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	c, err := net.Dial("udp", u.Host)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	return host, errors.Join(err, c.Close())
}

// joinEtcd adds this server's etcd as a learner, starts it, and has it promoted.
func joinEtcd(ctx context.Context, c config, conf kubeconfig, name, address string) error {
	ca, err := layCertificates(c, name, address)
	if err != nil {
		return err
	}
	u, err := url.Parse(conf.Clusters[0].Cluster.Server)
	if err != nil {
		return err
	}
	if err := layControlPlane(ca, c.ControlPlaneEndpoint, name, address); err != nil {
		return err
	}
	etcdCA, err := os.ReadFile(filepath.Join(layout.KubernetesPKI, "etcd/ca.crt"))
	if err != nil {
		return err
	}
	base := filepath.Join(layout.KubernetesPKI, "etcd/healthcheck-client")
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		return err
	}
	members, err := newClient("https://"+net.JoinHostPort(u.Hostname(), clientPort)+"/v3/cluster/member", etcdCA, &pair, "")
	if err != nil {
		return err
	}
	own, cluster, err := addLearner(ctx, members, address)
	if err != nil {
		return err
	}
	if err := writeManifests(pod{Name: name, Address: address, Cluster: cluster, Member: own.ID}); err != nil {
		return err
	}
	if own.IsLearner {
		if err := promote(ctx, members, own.ID); err != nil {
			return err
		}
	}
	return markControlPlane(ctx, "https://"+net.JoinHostPort(address, "6443"), name)
}

// addLearner returns this server's member, which an earlier run may have added.
func addLearner(ctx context.Context, members *client, address string) (own etcdMember, cluster string, err error) {
	err = until(ctx, "etcd's learner", func() error {
		var reply memberReply
		if err := members.call(ctx, http.MethodPost, "/list", object{}, &reply); err != nil {
			return err
		}
		cluster = reply.Header.ClusterID
		i := slices.IndexFunc(reply.Members, func(m etcdMember) bool { return m.address() == address })
		if i >= 0 {
			own = reply.Members[i]
			return nil
		}
		err := members.call(ctx, http.MethodPost, "/add", memberRequest{PeerURLs: []string{peerURL(address)}, IsLearner: true}, &reply)
		if err == nil {
			own = *reply.Member
		}
		return err
	})
	return own, cluster, err
}

// promote makes a learner a voter. An answer may be lost on its way, so it looks before
// each try whether the one before did it, as kubeadm 1.36 does.
func promote(ctx context.Context, members *client, id string) error {
	return until(ctx, "etcd's promotion", func() error {
		var reply memberReply
		if err := members.call(ctx, http.MethodPost, "/list", object{}, &reply); err != nil {
			return err
		}
		if slices.ContainsFunc(reply.Members, func(m etcdMember) bool { return m.ID == id && !m.IsLearner }) {
			return nil
		}
		return members.call(ctx, http.MethodPost, "/promote", memberRequest{ID: id}, nil)
	})
}
