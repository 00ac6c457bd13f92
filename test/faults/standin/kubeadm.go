package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/test/faults/ledger"
)

const controllerManagerConf = "/etc/kubernetes/controller-manager.conf"

// config is the part of kubeadm's documents that is used here.
type config struct {
	Kind             string `yaml:"kind"`
	NodeRegistration struct {
		Name                  string   `yaml:"name"`
		IgnorePreflightErrors []string `yaml:"ignorePreflightErrors"`
	} `yaml:"nodeRegistration"`
	LocalAPIEndpoint     endpoint `yaml:"localAPIEndpoint"`
	ControlPlaneEndpoint string   `yaml:"controlPlaneEndpoint"`
	ControlPlane         *struct {
		LocalAPIEndpoint endpoint `yaml:"localAPIEndpoint"`
	} `yaml:"controlPlane"`
	Discovery struct {
		File struct {
			KubeConfigPath string `yaml:"kubeConfigPath"`
		} `yaml:"file"`
		TLSBootstrapToken string `yaml:"tlsBootstrapToken"`
	} `yaml:"discovery"`
	SkipPhases []string `yaml:"skipPhases"`
	APIServer  struct {
		CertSANs []string `yaml:"certSANs"`
	} `yaml:"apiServer"`
}

type endpoint struct {
	AdvertiseAddress string `yaml:"advertiseAddress"`
}

func kubeadm(args []string) error {
	switch line := strings.Join(args, " "); {
	case line == "version --output short":
		fmt.Println(images.KubernetesVersion)
		return nil
	case strings.HasPrefix(line, "config images list"):
		fmt.Print(imageList)
		return nil
	case len(args) == 0:
		return errors.New("what?")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	file := flags.String("config", "", "")
	for _, name := range []string{"skip-token-print", "skip-certificate-key-print", "force"} {
		flags.Bool(name, false, "")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	c, err := readConfig(*file)
	if err != nil {
		return err
	}
	// Below the unit's own time-out, as kubeadm's are.
	ctx, cancel := context.WithTimeoutCause(context.Background(), 5*time.Minute, errors.New("not within 5 minutes"))
	defer cancel()
	switch args[0] {
	case "init":
		return initialise(ctx, c)
	case "join":
		return join(ctx, c)
	case "reset":
		return reset(ctx)
	}
	return fmt.Errorf("%q is not known", args)
}

// readConfig lays the documents of a file over each other; none sets what another
// does.
func readConfig(file string) (config, error) {
	var c config
	b, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	documents := yaml.NewDecoder(bytes.NewReader(b))
	for {
		err := documents.Decode(&c)
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return c, fmt.Errorf("%s: %w", file, err)
		}
	}
}

// preflight refuses what is there already, as kubeadm's checks of these names do.
func (c config) preflight(joins bool) error {
	ignored := func(check string) bool {
		return slices.ContainsFunc(c.NodeRegistration.IgnorePreflightErrors, func(s string) bool {
			return strings.EqualFold(s, check) || strings.EqualFold(s, "all")
		})
	}
	var errs []error
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
		if _, err := os.Stat(manifest(name)); err == nil && !ignored("FileAvailable--etc-kubernetes-manifests-"+name+".yaml") {
			errs = append(errs, fmt.Errorf("[ERROR FileAvailable]: %s already exists", manifest(name)))
		}
	}
	if entries, err := os.ReadDir(layout.EtcdData); err == nil && len(entries) > 0 && !ignored("DirAvailable--var-lib-etcd") {
		errs = append(errs, fmt.Errorf("[ERROR DirAvailable]: %s is not empty", layout.EtcdData))
	}
	if joins {
		for _, name := range []string{"kubelet.conf", "bootstrap-kubelet.conf"} {
			if _, err := os.Stat("/etc/kubernetes/" + name); err == nil && !ignored("FileAvailable--etc-kubernetes-"+name) {
				errs = append(errs, fmt.Errorf("[ERROR FileAvailable]: /etc/kubernetes/%s already exists", name))
			}
		}
		if _, err := os.Stat(workerCA); err == nil && c.ControlPlane == nil && !ignored("FileAvailable--etc-kubernetes-pki-ca.crt") {
			errs = append(errs, fmt.Errorf("[ERROR FileAvailable]: %s already exists", workerCA))
		}
	}
	return errors.Join(errs...)
}

// record writes a line into the ledger.
func record(what, node string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	l := ledger.Line{Time: time.Now(), What: what, Server: host, Node: node}
	if found, err := durable.Read(layout.Elect); err == nil && found.State != nil {
		l.Inst, l.HW = found.State.Inst, found.State.Hardware.HW
		_, l.Epoch, _ = found.State.Leader()
	}
	if ca, err := os.ReadFile(filepath.Join(layout.KubernetesPKI, "ca.crt")); err == nil {
		// A power loss may have torn the file that a reset takes away.
		if l.CA, err = plan.CAHash(ca); err != nil && what != ledger.Reset {
			return err
		}
	}
	return ledger.Append(ledger.Dir, l)
}

// pace is how long the real kubeadm init takes, made shorter; a test makes it
// longer to hit it half way.
func pace() time.Duration {
	b, err := os.ReadFile(filepath.Join(ledger.Dir, "pace"))
	if err != nil {
		return 500 * time.Millisecond
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return d
}

// wait is what work there would be.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// writeKubelet lays the kubelet's configuration and starts it.
func writeKubelet(ctx context.Context, name, ip string) error {
	flags := fmt.Sprintf("KUBELET_KUBEADM_ARGS=\"--hostname-override=%s --node-ip=%s\"\n", name, ip)
	err := errors.Join(
		os.MkdirAll(layout.KubeletData, 0o755),
		os.WriteFile(filepath.Join(layout.KubeletData, "kubeadm-flags.env"), []byte(flags), 0o644),
		os.WriteFile(filepath.Join(layout.KubeletData, "config.yaml"), []byte("kind: KubeletConfiguration\n"), 0o644))
	if err != nil {
		return err
	}
	return systemctl(ctx, "restart", layout.UnitKubelet)
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// reset removes what the real one does. Containers end with their manifests.
func reset(ctx context.Context) error {
	if err := errors.Join(record(ledger.Reset, ""), systemctl(ctx, "stop", layout.UnitKubelet)); err != nil {
		return err
	}
	etcd := layout.EtcdData
	if _, err := os.Stat(manifest("etcd")); errors.Is(err, fs.ErrNotExist) {
		etcd = layout.Manifests // the real one finds etcd's data through the manifest, and leaves it
	}
	var errs []error
	for _, dir := range []string{layout.Manifests, layout.KubernetesPKI, layout.KubeletData, etcd} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	for _, name := range []string{layout.AdminConf, layout.KubeletConf, bootstrapConf, controllerManagerConf} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ips are addresses as a certificate has them.
func ips(words ...string) (ips []net.IP, names []string) {
	for _, w := range words {
		if ip := net.ParseIP(w); ip != nil {
			ips = append(ips, ip)
		} else if w != "" {
			names = append(names, w)
		}
	}
	return ips, names
}
