package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/test/rig/machine"
)

// Node is a Kubernetes node as far as tests and the demo look at it.
type Node struct {
	Name         string
	Ready        bool
	ControlPlane bool
	InternalIPs  []string // one of each address family
	PodCIDRs     []string
	Version      string
}

// errNoCluster says that no server has an admin.conf yet.
var errNoCluster = errors.New("no server has an /etc/kubernetes/admin.conf yet")

// AdminOf has AdminConf take a server's kubeconfig from now on: the disk of
// another may hold one of a cluster that was given up.
func (r *Rig) AdminOf(s *Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.admin = s.Name
}

// AdminConf is a copy on this machine of the kubeconfig of a server's disk; its
// server is the cluster's endpoint.
func (r *Rig) AdminConf() (string, error) {
	r.mu.Lock()
	admin := r.admin
	r.mu.Unlock()
	for _, s := range r.Servers() {
		if admin != "" && s.Name != admin {
			continue
		}
		path := filepath.Join(s.path("state"), "kubernetes", "admin.conf")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", errNoCluster
}

// KubectlCommand is the command line of this machine that runs kubectl in the
// ToR's network, so that it goes through the endpoint like anybody's.
func (r *Rig) KubectlCommand(args ...string) ([]string, error) {
	conf, err := r.AdminConf()
	if err != nil {
		return nil, err
	}
	for _, lower := range r.state.Image.Lower {
		kubectl := filepath.Join(lower, "usr/local/bin/kubectl")
		if _, err := os.Stat(kubectl); err == nil {
			return machine.InNetns(r.torName(), append([]string{kubectl, "--kubeconfig=" + conf, "--request-timeout=5s"}, args...)...), nil
		}
	}
	return nil, errors.New("the image has no /usr/local/bin/kubectl")
}

// Kubectl runs kubectl in the ToR's network and returns what it prints.
func (r *Rig) Kubectl(ctx context.Context, args ...string) (string, error) {
	argv, err := r.KubectlCommand(args...)
	if err != nil {
		return "", err
	}
	return machine.Output(ctx, argv...)
}

// Nodes lists the nodes of the cluster, by name, asked through the endpoint.
func (r *Rig) Nodes(ctx context.Context) ([]Node, error) {
	out, err := r.Kubectl(ctx, "get", "nodes", "-o", "json")
	if err != nil {
		return nil, err
	}
	return parseNodes([]byte(out))
}

func parseNodes(b []byte) ([]Node, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name   string
				Labels map[string]string
			}
			Spec   struct{ PodCIDRs []string }
			Status struct {
				Conditions []struct{ Type, Status string }
				Addresses  []struct{ Type, Address string }
				NodeInfo   struct{ KubeletVersion string }
			}
		}
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("kubectl get nodes: %w", err)
	}
	var nodes []Node
	for _, item := range list.Items {
		n := Node{Name: item.Metadata.Name, Version: item.Status.NodeInfo.KubeletVersion, PodCIDRs: item.Spec.PodCIDRs}
		_, n.ControlPlane = item.Metadata.Labels["node-role.kubernetes.io/control-plane"]
		for _, c := range item.Status.Conditions {
			n.Ready = n.Ready || c.Type == "Ready" && c.Status == "True"
		}
		for _, a := range item.Status.Addresses {
			if a.Type == "InternalIP" {
				n.InternalIPs = append(n.InternalIPs, a.Address)
			}
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// Status returns what `bootstrap status -o json` prints on the first server that
// answers, and which one that was.
func (r *Rig) Status(ctx context.Context) (status []byte, from string, err error) {
	errs := []error{errors.New("no agent answers")}
	for _, s := range r.Servers() {
		if !s.Running() {
			continue
		}
		out, err := s.Exec(ctx, "bootstrap", "status", "-o", "json")
		if err == nil {
			return []byte(out), s.Name, nil
		}
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// CollectLogs saves into dir, for each server, its console and, when it is on, its
// whole journal; and what the ToR said. It saves what it can.
func (r *Rig) CollectLogs(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("saving logs: %w", err)
	}
	var errs []error
	save := func(name string, b []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		errs = append(errs, err)
	}
	for _, s := range r.Servers() {
		b, err := os.ReadFile(s.Console())
		save(s.Name+".console", b, err)
		if !s.Running() {
			continue
		}
		out, err := s.Exec(ctx, "journalctl", "--no-pager", "--output=short-iso-precise")
		save(s.Name+".journal", []byte(out), err)
	}
	for _, log := range []string{"bird.log", "metadata.out"} {
		b, err := os.ReadFile(r.torFile(log))
		save("tor."+log, b, err)
	}
	return errors.Join(errs...)
}
