package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// oldContainerd is what a distribution may bring: too old for this Kubernetes, with the
// CRI off and another sandbox image in its configuration.
var oldContainerd = map[string]string{
	"usr/bin/containerd": "#!/bin/sh\necho containerd github.com/containerd/containerd 1.6.20~ds1\nexit 1\n",
	"etc/containerd/config.toml": "version = 2\ndisabled_plugins = [\"cri\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\n" +
		"  sandbox_image = \"registry.k8s.io/pause:3.1\"\n",
	// Before the agent, and after cloud-init, the server calls itself as every other one.
	"etc/systemd/system/late-hostname.service": "[Unit]\nAfter=cloud-init.service\nBefore=muster.service\n" +
		"[Service]\nType=oneshot\nExecStart=/bin/hostname localhost\n",
	// A second way out beside the one by the public link, by which a kubelet that is not
	// told takes its address.
	"etc/systemd/system/second-route.service": "[Unit]\nAfter=network-online.target\nBefore=muster.service\n" +
		"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'ip route add default via $$(ip -4 route show 10.0.0.0/8 | cut -d\" \" -f3) metric 100'\n",
	// The kernel of the rig's servers is the host's, and so is its swap. The agent has a
	// /proc of its own (ProtectProc=), so this is laid into that.
	"etc/systemd/system/muster.service.d/swap.conf": "[Service]\nBindReadOnlyPaths=/etc/swaps:/proc/swaps\n",
	"etc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/swapfile file\t2097148\t0\t-2\n",
}

// A server whose image brings an old containerd with a configuration of its own, which
// is called localhost when the agent starts, has a second default route, and swap on:
// swap has to be taken off by a person, and the rest hinders nothing.
// test/firstboot_test.go names all six pains and their tests.
func TestFirstBootPains(t *testing.T) {
	image := testImage(t)
	extra := t.TempDir()
	for name, content := range oldContainerd {
		path := filepath.Join(extra, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if unit, ok := strings.CutPrefix(name, "etc/systemd/system/"); ok && strings.HasSuffix(unit, ".service") {
			wants := filepath.Join(extra, "etc/systemd/system/multi-user.target.wants")
			if err := os.MkdirAll(wants, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../"+unit, filepath.Join(wants, unit)); err != nil {
				t.Fatal(err)
			}
		}
	}
	image.Lower = append([]string{extra}, image.Lower...)
	c := begin(t, image)
	var err error
	c.servers, err = c.rig.AddCluster(c.ctx, binary(t, "userdata"), rig.Cluster{Servers: 1, ControlPlanes: 1, Public: true})
	c.must(err)
	s := c.servers[0]
	c.bootAll()
	c.eventually(2*time.Minute, "status to say that swap is on", func() error {
		list, err := readStatus(c.ctx, s)
		if err != nil {
			return err
		}
		if p := list[0].Problem; !strings.Contains(p, "preparing this server, swap: swap is on (/swapfile), and the kubelet does not start with it: swapoff -a") {
			return fmt.Errorf("phase %s, problem %q", list[0].Phase, p)
		}
		return nil
	})
	for what, argv := range map[string][]string{
		"localhost\n":               {"hostname"},
		"2\n":                       {"sh", "-c", "ip -4 route show default | wc -l"},
		" src " + s.Public.String(): {"ip", "route", "get", "198.51.100.1"},
		"containerd 1.6.":           {"sh", "-c", "/usr/bin/containerd | sed 's/github.com.* //'"},
	} {
		if out, _ := s.Exec(c.ctx, argv...); !strings.Contains(out, what) {
			t.Errorf("the pain is not there: %s says %q, expected %q", strings.Join(argv, " "), out, what)
		}
	}
	_, err = s.Exec(c.ctx, "sh", "-c", "echo 'Filename Type Size Used Priority' > /etc/swaps") // as swapoff does
	c.must(err)
	c.awaitReady(4 * time.Minute)

	node := c.kubectl("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address} {.status.nodeInfo.containerRuntimeVersion}{"\n"}{end}`)
	if want := fmt.Sprintf("%s %s containerd://", s.Name, s.Addr); !strings.HasPrefix(node, want) || strings.Contains(node, "1.6.") || strings.Count(node, "\n") > 1 {
		t.Errorf("the nodes are %q, expected one with %q", node, want)
	}
	flags, err := s.Exec(c.ctx, "sh", "-c", "cat /etc/containerd/config.toml /etc/kubernetes/manifests/kube-apiserver.yaml /etc/kubernetes/manifests/etcd.yaml; ctr --namespace k8s.io containers list")
	c.must(err)
	for _, want := range []string{"pause:3.10.2", "--advertise-address=" + s.Addr.String(), "--listen-peer-urls=https://" + s.Addr.String() + ":2380"} {
		if !strings.Contains(flags, want) {
			t.Errorf("%q is missing in\n%s", want, flags)
		}
	}
	for _, never := range []string{"pause:3.1\"", "disabled_plugins", s.Public.String() + ":"} {
		if strings.Contains(flags, never) {
			t.Errorf("%q is in\n%s", never, flags)
		}
	}
	if st := c.status(s); st.Name != s.Name || st.Phase != member.Ready {
		t.Errorf("status: %s, %s, %q", st.Name, st.Phase, st.Problem)
	}
	testNextHops(t, c, 1)
}
