package kubeadm

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

// Evidence is what a run of kubeadm left on this disk.
type Evidence struct {
	AdminConf   bool   // /etc/kubernetes/admin.conf
	Endpoint    string // host:port that admin.conf names
	KubeletConf bool   // kubelet.conf with a certificate that is valid now
	Manifests   int    // static pods: 4 on a complete control plane
	EtcdData    bool   // /var/lib/etcd/member
	CAHash      string // of /etc/kubernetes/pki/ca.crt
	// Leftovers are other files of kubeadm's, whole or torn: a new run stops at them.
	// They prove no node, so they count only where the journal knows of a run.
	Leftovers []string
}

// Any says that something is there. The authorities alone do not count: the
// agent lays them before kubeadm runs.
func (e Evidence) Any() bool {
	return e.AdminConf || e.KubeletConf || e.Manifests > 0 || e.EtcdData
}

// Look reads the evidence below root ("/" on a server). What cannot be read
// counts as absent, since kubeadm would not use it either.
func Look(root string, now time.Time) Evidence {
	at := func(p string) string { return filepath.Join(root, p) }
	var e Evidence
	if a, err := parseFile(root, layout.AdminConf); err == nil {
		e.AdminConf, e.Endpoint = true, a.server.Host
	} else if _, err := os.Stat(at(layout.AdminConf)); err == nil {
		e.AdminConf = true // half-written
	}
	e.KubeletConf = kubeletJoined(root, now)
	if found, err := filepath.Glob(filepath.Join(at(layout.Manifests), "*.yaml")); err == nil {
		e.Manifests = len(found)
	}
	_, err := os.Stat(filepath.Join(at(layout.EtcdData), "member"))
	e.EtcdData = err == nil
	if data, err := os.ReadFile(filepath.Join(at(layout.KubernetesPKI), caCert)); err == nil {
		e.CAHash, _ = plan.CAHash(data)
	}
	e.Leftovers = leftBehind(root)
	return e
}

// leftBehind finds what an unfinished kubeadm wrote beside the authorities: a power
// loss leaves its files with their names and nothing in them (ext4: within the half
// minute until the kernel writes back, once anybody on that disk called fsync), and
// kubeadm refuses a certificate that it cannot read, and a worker's CA that is there.
func leftBehind(root string) []string {
	var found []string
	for _, pattern := range []string{
		layout.Kubernetes + "/*.conf", layout.KubeletData + "/config.yaml",
		layout.KubernetesPKI + "/*", layout.KubernetesPKI + "/etcd/*",
	} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			continue // of a pattern that is wrong alone
		}
		for _, path := range paths {
			name := strings.TrimPrefix(path, filepath.Join(root, layout.KubernetesPKI)+"/")
			if name != "etcd" && !laid(root, name) {
				found = append(found, "/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"))
			}
		}
	}
	return found
}

// laid says whether a file below pki is of the agent, which lays the authorities
// with their keys; a worker has the CA's certificate alone, from kubeadm.
func laid(root, name string) bool {
	_, err := os.Stat(filepath.Join(root, layout.KubernetesPKI, caKey))
	return err == nil && slices.Contains(sharedNames(), name)
}

func parseFile(root, path string) (access, error) {
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return access{}, err
	}
	return parseKubeconfig(data, func(p string) ([]byte, error) { return os.ReadFile(filepath.Join(root, p)) })
}

// kubeletJoined says whether the kubelet has kubelet.conf and the certificate
// that it names, valid now: the end of TLS bootstrap.
func kubeletJoined(root string, now time.Time) bool {
	a, err := parseFile(root, layout.KubeletConf)
	if err != nil || a.client == nil {
		return false
	}
	cert, err := x509.ParseCertificate(a.client.Certificate[0])
	return err == nil && now.After(cert.NotBefore) && now.Before(cert.NotAfter)
}

// Step is what is to be done next about kubeadm on this server.
type Step string

// Steps.
const (
	Nothing  Step = "nothing"   // it is done
	Run      Step = "run"       // run kubeadm
	Finish   Step = "finish"    // run kubeadm over what is there: it keeps it and does the rest
	ResetRun Step = "reset-run" // kubeadm reset, then run
	NotOurs  Step = "not-ours"  // another hand made this node: touch nothing
)

// Facts are what InitStep and JoinStep decide from.
type Facts struct {
	Done     bool // journal: this very step ended well
	Started  bool // journal: this very step was begun by this instance
	Evidence Evidence
	Endpoint string // host:port of the cluster
	CAHash   string // of the cluster's authorities
	Alive    bool   // the API server of this server answers 200 on /livez
	EtcdGone bool   // etcd's majority knows no member at this server's address
}

// InitStep decides about kubeadm init. Before init has ended nobody has joined,
// because the decree is sealed only afterwards; so starting over loses nothing
// but seconds, and is surer than finishing what has no API server.
func InitStep(f Facts) Step {
	switch {
	case f.Done:
		return Nothing
	case !f.found():
		return Run
	case !f.Started:
		return NotOurs
	case f.Alive && f.fits():
		return Finish
	}
	return ResetRun
}

// JoinStep decides about kubeadm join. etcd's data means that this member may
// have been promoted: wiping it would leave a dead voter, and with two voters
// that is the end of the quorum. A kubelet that has its certificate may have a
// Ready node, whose name kubeadm refuses to take again. Neither is ever reset
// here, only finished; except that etcd's majority says it has no such member: it
// was taken out when its turn was over, and would not start with that data.
func JoinStep(f Facts) Step {
	switch {
	case f.Done:
		return Nothing
	case !f.found():
		return Run
	case !f.Started:
		return NotOurs
	case f.Evidence.EtcdData && f.EtcdGone:
		return ResetRun
	case f.Evidence.EtcdData || f.Evidence.KubeletConf:
		return Finish
	}
	return ResetRun
}

// found says whether there is something that kubeadm would stumble over.
func (f Facts) found() bool {
	return f.Evidence.Any() || f.Started && len(f.Evidence.Leftovers) > 0
}

// fits says whether what is there was made for this cluster file: kubeadm keeps
// certificates and kubeconfigs silently, even when the endpoint has changed.
func (f Facts) fits() bool {
	return f.Evidence.Endpoint == f.Endpoint && f.Evidence.CAHash == f.CAHash
}

// String says what was found, for a person.
func (e Evidence) String() string {
	var found []string
	if e.AdminConf {
		found = append(found, layout.AdminConf)
	}
	if e.KubeletConf {
		found = append(found, layout.KubeletConf)
	}
	if e.Manifests > 0 {
		found = append(found, fmt.Sprintf("%d files in %s", e.Manifests, layout.Manifests))
	}
	if e.EtcdData {
		found = append(found, layout.EtcdData+"/member")
	}
	if len(found) == 0 {
		return "nothing of Kubernetes"
	}
	return strings.Join(found, ", ")
}

// localServer is the API server of this server. controller-manager.conf names it
// by its private address, unlike admin.conf, which names the endpoint.
func localServer(root string) (netip.AddrPort, error) {
	a, err := parseFile(root, controllerManagerConf)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("finding the API server of this server: %w", err)
	}
	at, err := netip.ParseAddrPort(a.server.Host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("finding the API server of this server: %s names %q, expected address:port", controllerManagerConf, a.server.Host)
	}
	return at, nil
}

const controllerManagerConf = "/etc/kubernetes/controller-manager.conf"
