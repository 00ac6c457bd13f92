package kubeadm

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/layout"
)

// leaves are the certificates that kubeadm makes on a node, below the PKI's directory.
// A worker's ca.crt has no key, nor has a certificate that an operator laid there.
var leaves = []string{"apiserver", "apiserver-kubelet-client", "apiserver-etcd-client", "front-proxy-client", "etcd/server", "etcd/peer", "etcd/healthcheck-client"}

// removeTorn takes away what kubeadm wrote and a power loss left without its content,
// with the other half of a pair: kubeadm makes anew what is missing, and stops at what
// it cannot read. The authorities are not among it, which the agent mends, nor the
// kubelet's configuration, which kubeadm writes over.
func removeTorn(root string) error {
	for _, path := range leftBehind(root) {
		if !strings.HasPrefix(path, layout.Kubernetes+"/") || !torn(filepath.Join(root, path)) {
			continue
		}
		remove := []string{path}
		if base, isPair := pairBase(path); isPair {
			if !slices.Contains(leaves, strings.TrimPrefix(base, layout.KubernetesPKI+"/")) {
				continue
			}
			remove = []string{base + ".crt", base + ".key"}
		}
		for _, p := range remove {
			if err := os.Remove(filepath.Join(root, p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removing a file that a power loss left without its content: %w", err)
			}
		}
	}
	return nil
}

// torn says whether a file has not the form that its name promises, or lacks the
// other half of its pair.
func torn(path string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false // gone, with its pair
	}
	if base, isPair := pairBase(path); isPair {
		block, _ := pem.Decode(data)
		_, missing := os.Stat(base + ".crt")
		_, alone := os.Stat(base + ".key")
		return block == nil || missing != nil || alone != nil
	}
	var document map[string]any
	return yaml.Unmarshal(data, &document) != nil || len(document) == 0
}

// pairBase is the common part of the names of a certificate and its key.
func pairBase(path string) (string, bool) {
	for _, suffix := range []string{".crt", ".key"} {
		if base, ok := strings.CutSuffix(path, suffix); ok {
			return base, true
		}
	}
	return "", false
}
