// Command standin is one program in the place of kubeadm, kubelet, containerd and
// their tools on the light servers of package faults; it acts by the name it is
// called. It lets the real agent go through the whole boot in seconds, and writes
// every kubeadm init into a ledger outside of the servers.
//
// What it keeps true of the real programs, each as far as the agent can see it
// (test/e2e proves the same against the real ones):
//
//   - kubeadm init and join refuse what preflight refuses: manifests, etcd data and
//     kubeconfigs that are there and not named in ignorePreflightErrors; join
//     refuses the name of a Ready node; reset removes what the real one removes, the
//     certificates too.
//   - kubeadm keeps the authorities that it finds, and leaves admin.conf,
//     controller-manager.conf, kubelet.conf, manifests, the kubelet's configuration
//     and etcd's data. It fsyncs none of it.
//   - The API server speaks TLS with a certificate of the cluster CA, refuses
//     callers without a certificate of that CA or a live bootstrap token, is ready
//     only with etcd's quorum, and gives resourceVersion its meaning.
//   - etcd has members and learners, takes one learner at a time, and changes
//     nothing unless a majority of its voters reach each other over the servers'
//     network. Its data alone cheats: it lies outside of the servers.
//   - The kubelet runs what the manifests say, gets its certificate by the
//     bootstrap token, registers its node and calls it Ready. Unlike real static
//     pods, these end with it.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mustermetal/muster/images"
)

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	var err error
	switch name {
	case "kubeadm":
		err = kubeadm(args)
	case "kubelet":
		err = kubelet(args)
	case "containerd":
		err = containerd()
	case "ctr":
		err = ctr(args)
	default:
		err = errors.New("only its presence is checked")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s (stand-in): %v\n", name, err)
		os.Exit(1)
	}
}

// imageList is what `kubeadm config images list` prints and ctr says is there.
const imageList = `registry.k8s.io/kube-apiserver:` + images.KubernetesVersion + `
registry.k8s.io/etcd:3.6.8-0
registry.k8s.io/pause:3.10.2
`

func ctr(args []string) error {
	switch line := strings.Join(args, " "); {
	case strings.HasSuffix(line, "plugins list"):
		fmt.Print("TYPE                  ID  PLATFORMS  STATUS\nio.containerd.grpc.v1 cri -          ok\n")
	case strings.HasSuffix(line, "images list --quiet"):
		fmt.Print(imageList)
	default:
		return fmt.Errorf("%q is not known", line)
	}
	return nil
}
