package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/host"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/test/rig"
)

// The rival: cloud-init runs one shell script on each server, which knows the
// first control plane, all addresses, a token and the certificate authorities
// beforehand, decides nothing, and joins everybody at once. The endpoint is the
// first control plane's own address: no Elastic IP, no BGP, no fence.

//go:embed script.sh
var script string

//go:embed kubeadm.yaml
var kubeadmYAML string

var kubeadmTemplate = template.Must(template.New("kubeadm.yaml").Parse(kubeadmYAML))

// containerdUnit is as containerd ships it, without limits that containers on a
// shared kernel may not raise.
const containerdUnit = `[Unit]
After=network.target dbus.service
[Service]
Type=notify
ExecStart=/usr/local/bin/containerd
Delegate=yes
KillMode=process
Restart=always
TasksMax=infinity
`

// kubeletUnit is that of the official package.
const kubeletUnit = `[Unit]
After=containerd.service
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
Restart=always
RestartSec=2
[Install]
WantedBy=multi-user.target
`

// known is all that the script knows beforehand.
type known struct {
	Token     string
	Endpoint  netip.AddrPort
	Name      string
	Address   netip.Addr
	First     bool
	Control   bool
	Pods      netip.Prefix
	Services  netip.Prefix
	discovery []byte
	pki       map[string][]byte // path below /etc/kubernetes/pki
}

// addScripted adds the servers of a cluster that the script forms.
func (b *bench) addScripted(ctx context.Context, r *rig.Rig) error {
	pki, ca, err := authorities(filepath.Join(r.Dir(), "pki"))
	if err != nil {
		return err
	}
	token, err := kubeadm.NewToken(rand.Reader)
	if err != nil {
		return err
	}
	k := known{Token: token.Reveal(), Pods: rig.PodRange, Services: rig.ServiceRange, pki: pki}
	for i := range b.controlPlanes + b.workers {
		k.Control, k.First, k.Name = i < b.controlPlanes, i == 0, fmt.Sprintf("cp%d", i+1)
		if !k.Control {
			k.Name = fmt.Sprintf("w%d", i-b.controlPlanes+1)
		}
		s, err := r.Add(rig.ServerOptions{Name: k.Name})
		if err != nil {
			return err
		}
		if k.First {
			k.Endpoint = netip.AddrPortFrom(s.Addr, 6443)
			if k.discovery, err = kubeadm.Discovery("https://"+k.Endpoint.String(), ca); err != nil {
				return err
			}
		}
		k.Address = s.Addr
		data, err := k.userData()
		if err != nil {
			return err
		}
		if err := s.SetUserData(data); err != nil {
			return err
		}
	}
	return nil
}

// authorities makes the certificate authorities once and returns their files.
func authorities(dir string) (files map[string][]byte, ca []byte, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, nil, err
	}
	write := func(path string, data []byte, perm fs.FileMode) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, data, perm)
	}
	a, err := kubeadm.EnsureAuthorities(dir, write, time.Now())
	if err != nil {
		return nil, nil, err
	}
	files = map[string][]byte{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	return files, a.CA(), err
}

// userData is the cloud-config of one server.
func (k known) userData() ([]byte, error) {
	var config strings.Builder
	if err := kubeadmTemplate.Execute(&config, k); err != nil {
		return nil, fmt.Errorf("kubeadm's configuration: %w", err)
	}
	containerd, err := host.ContainerdConfig(layout.Local.Runc(), "registry.k8s.io/pause:3.10.2", map[string]map[string]any{
		"io.containerd.cri.v1.runtime": {"restrict_oom_score_adj": true},
	})
	if err != nil {
		return nil, err
	}
	type file struct {
		Path        string `yaml:"path"`
		Permissions string `yaml:"permissions"`
		Encoding    string `yaml:"encoding"`
		Content     string `yaml:"content"`
	}
	var files []file
	add := func(path string, content []byte) {
		files = append(files, file{path, "0600", "b64", base64.StdEncoding.EncodeToString(content)})
	}
	add("/etc/containerd/config.toml", containerd)
	add("/etc/systemd/system/containerd.service", []byte(containerdUnit))
	add("/etc/systemd/system/kubelet.service", []byte(kubeletUnit))
	add("/root/kubeadm.yaml", []byte(config.String()))
	add("/root/discovery.conf", k.discovery)
	add("/root/form.sh", []byte(script))
	if k.Control {
		for name, pem := range k.pki {
			add("/etc/kubernetes/pki/"+name, pem)
		}
	}
	act := "join"
	if k.First {
		act = "init"
	}
	body, err := yaml.Marshal(map[string]any{
		"locale": "C.UTF-8", "manage_etc_hosts": "localhost", "write_files": files,
		"runcmd": [][]string{{"sh", "/root/form.sh", act, k.Endpoint.String()}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding user-data: %w", err)
	}
	return append([]byte("#cloud-config\n"), body...), nil
}
