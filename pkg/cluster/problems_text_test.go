package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestProblemsOfText holds what is said of files that are not quite text, or not
// quite meant, byte by byte.
func TestProblemsOfText(t *testing.T) {
	bomb := "a: &a [x, x, x, x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += fmt.Sprintf("      %c: &%c [*%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1)
	}
	for _, row := range []struct {
		name, file string
		want       []string
	}{
		{"a byte order mark", "\xef\xbb\xbf" + good, []string{
			"1:1: warning: the file begins with a byte order mark, which other programs may take for a part of the first word (save it as UTF-8 without the mark)",
		}},
		{"lines of Windows", strings.ReplaceAll(good, "\n", "\r\n"), []string{
			"1:28: warning: lines end as on Windows, with a carriage return, which other programs may take for a part of the last word (save it with the line ends of Unix)",
		}},
		{"lines of old Macs", strings.ReplaceAll(good, "\n", "\r")[:60], []string{
			"1:28: a carriage return within a line (save the file with the line ends of Unix)",
			"1:42: a carriage return within a line (save the file with the line ends of Unix)",
		}},
		{"UTF-16", "\xff\xfea\x00:\x00", []string{"1:1: the file is UTF-16 (save it as UTF-8)"}},
		{"Latin-1", strings.Replace(good, "name: k8s", "name: \xe4", 1), []string{
			"3:18: a byte that is not UTF-8 (save the file as UTF-8)",
		}},
		{"no-break space", strings.Replace(good, "expect: 5", "expect:\u00a05", 1), []string{
			"9:12: an invisible character (U+00A0), perhaps copied from a web page (type the blank anew)",
		}},
		{"line separator", strings.Replace(good, "packet", "packet\u2028", 1), []string{
			"6:19: an invisible character (U+2028), perhaps copied from a web page (type the blank anew)",
		}},
		{"a program", "\x7fELF\x00", []string{
			"1:1: a control character (U+007F) (remove it; is this a text file?)",
			"1:5: a control character (U+0000) (remove it; is this a text file?)",
		}},
		{"zeros", strings.Repeat("\x00", 99), []string{
			"1:1: a control character (U+0000) (remove it; is this a text file?)",
			"1:2: a control character (U+0000) (remove it; is this a text file?)",
			"1:3: a control character (U+0000) (remove it; is this a text file?)",
			"1:4: a control character (U+0000) (remove it; is this a text file?)",
			"1:5: a control character (U+0000) (remove it; is this a text file?)",
			"1:6: a control character (U+0000) (remove it; is this a text file?)",
			"1:7: a control character (U+0000) (remove it; is this a text file?)",
			"1:8: a control character (U+0000) (remove it; is this a text file?)",
			"1:9: a control character (U+0000) (remove it; is this a text file?)",
			"1:10: a control character (U+0000) (remove it; is this a text file?)",
		}},
		{"10 MB", strings.Repeat("# comment\n", 1<<20), []string{
			"1:1: the file has more than 1048576 bytes (is it a cluster file? `userdata init NAME` writes one of 3 KB)",
		}},
		{"deep lists", strings.Repeat("[", 9999) + strings.Repeat("]", 9999), []string{
			"1:66: nested more than 64 levels deep (is a bracket or an indentation wrong?)",
		}},
		{"deeper lists", strings.Repeat("[", 100_000), []string{
			"1:1: this is not YAML: nested more than 64 levels deep (look at the indentation, quotes and colons of this line and the one above)",
		}},
		{"deep mappings", strings.Replace(good, "  network:", "    kubelet: "+strings.Repeat("{a: ", 62)+"1"+strings.Repeat("}", 62)+"\n  network:", 1), []string{
			"18:259: nested more than 64 levels deep (is a bracket or an indentation wrong?)",
		}},
		{"a bomb of aliases", strings.Replace(good, "  network:", "    kubelet:\n      "+bomb+"  network:", 1), func() []string {
			want := []string{"19:10: spec.kubernetes.kubelet.a: anchors and aliases are not supported (write the value out)"}
			for c := 'b'; c <= 'z'; c++ {
				want = append(want, fmt.Sprintf("%d:10: spec.kubernetes.kubelet.%c: anchors and aliases are not supported (write the value out)", 19+c-'a', c))
			}
			return want
		}()},
		{"merge key", strings.Replace(good, "    controlPlanes: 3", "    controlPlanes: 3\n    <<: {quorum: safe}", 1), []string{
			"11:5: spec.servers.<<: unknown key (write the values out; anchors and merge keys are not supported)",
		}},
		{"tab after a key", strings.Replace(good, "  servers:\n", "  servers:\n\t# all\n", 1), []string{
			"9:1: a tab in the indentation, which YAML does not take (indent with blanks, two for each level)",
		}},
		{"bracket that stays open", strings.Replace(good, "name: k8s-bgp}", "name: k8s-bgp", 1), []string{
			"3:1: this is not YAML: did not find expected ',' or '}' (look at the indentation, quotes and colons of this line and the one above)",
		}},
		{"quote that stays open", strings.Replace(good, `4"}`, `4}`, 1), []string{
			"7:1: this is not YAML: found unexpected end of stream (look at the indentation, quotes and colons of this line and the one above)",
		}},
		{"a list", "- apiVersion: muster/v1alpha1\n", []string{
			"1:1: is a list, expected a mapping (keys: apiVersion, kind, metadata, spec)",
		}},
		{"user-data", "#cloud-config\nwrite_files: []\n", []string{
			"1:1: this is user-data, not the cluster file in it (`userdata show` prints the cluster file)",
		}},
		{"another document", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n", []string{
			"1:1: metadata.name: is missing (such as name: k8s-bgp)",
			"1:1: spec.id: is missing (such as id: 5b0c6d1f9e2a47b88c3d4e5f60718293)",
			"1:1: spec.kubernetes.version: is missing (such as version: v1.36.3)",
			"1:1: spec.platform: is missing (allowed: auto, packet, ec2, openstack, vultr, hetzner, latitude, nocloud, cloudinit, static)",
			"1:1: spec.servers.controlPlanes: is missing (such as controlPlanes: 3)",
			"1:1: spec.servers.expect: is missing (such as expect: 5)",
			`1:13: apiVersion: "kubeadm.k8s.io/v1beta4" is not allowed (allowed: muster/v1alpha1)`,
			`2:7: kind: "ClusterConfiguration" is not allowed (allowed: Cluster)`,
		}},
		{"a key that is a list", strings.Replace(good, "    expect: 5", "    [expect]: 5\n    expect: 5", 1), []string{
			"9:5: spec.servers: a key must be a single word, this one is a list (write it as `key: value`)",
		}},
		{"a private key", strings.Replace(good, "  network:", "    kubelet: {tlsKey: \"-----BEGIN EC PRIVATE KEY-----\"}\n  network:", 1), []string{
			"18:23: spec.kubernetes.kubelet.tlsKey: holds a private key, and everybody who reads user-data would have it (keep keys out of it; muster makes those of the cluster on the servers)",
		}},
		{"a cloud provider without its manager", strings.Replace(good, "  network:", "    cloudProvider: external\n  network:", 1), []string{
			"18:20: spec.kubernetes.cloudProvider: nothing says who runs a cloud controller manager, and without one every node keeps the taint node.cloudprovider.kubernetes.io/uninitialized: no pod starts there, CoreDNS among them (cloudController: {addon: NAME} names the element of addons that has the manager, {manual: true} says that you install it; or remove cloudProvider)",
		}},
		{"keys of kubernetes in other places", strings.Replace(good, "  network:", "    cloud-provider: external\n    addons: []\n  cloudProvider: external\n  network:", 1), []string{
			"18:5: spec.kubernetes.cloud-provider: unknown key (write kubernetes.cloudProvider: external)",
			"19:5: spec.kubernetes.addons: unknown key (it belongs at spec.addons; keys here: version, endpoint, podSubnets, serviceSubnets, dnsDomain, cloudProvider, cloudController, kubelet, kubeProxy, ignorePreflightErrors, skipPhases)",
			"20:3: spec.cloudProvider: unknown key (it belongs at spec.kubernetes.cloudProvider; keys here: id, platform, metadata, static, servers, join, identity, time, discovery, report, secretFrom, agent, artifacts, kubernetes, containerd, network, ports, addons, unsafe)",
		}},
		{"words of kubeadm", strings.Replace(good, "    podSubnets: [172", "    controlPlaneEndpoint: 147.75.194.92:6443\n    podSubnet: [172", 1), []string{
			"16:5: spec.kubernetes.controlPlaneEndpoint: unknown key (write kubernetes.endpoint: IP:6443)",
			"17:5: spec.kubernetes.podSubnet: unknown key (write podSubnets: [172.16.0.0/12], a list)",
		}},
		{"masks", strings.Replace(good, "[192.168.0.0/16]", "[192.168.0.1/16, 192.168.0.0/33, fd00::/8]", 1), []string{
			"17:22: spec.kubernetes.serviceSubnets[0]: 192.168.0.1/16 has bits set beyond its length (write 192.168.0.0/16)",
			`17:38: spec.kubernetes.serviceSubnets[1]: "192.168.0.0/33" is not an address with a length (an address, a slash and a length, such as 172.16.0.0/12 or fd00:10::/56)`,
			"17:54: spec.kubernetes.serviceSubnets[2]: fd00::/8 is too wide: kube-apiserver takes at most 2^20 Service addresses (use a /108 or narrower)",
		}},
		{"a mask of dots", strings.Replace(good, "192.168.0.0/16", "192.168.0.0/255.255.0.0", 1), []string{
			`17:22: spec.kubernetes.serviceSubnets[0]: "192.168.0.0/255.255.0.0" is not an address with a length (an address, a slash and a length, such as 172.16.0.0/12 or fd00:10::/56)`,
		}},
		{"more control planes than servers", strings.Replace(good, "expect: 5", "expect: 1", 1), []string{
			"10:20: spec.servers.controlPlanes: 3 control planes, but only 1 server is expected (expect counts control planes and workers: raise it to at least 3, or lower controlPlanes; a cluster that has formed takes it by `bootstrap apply` and `userdata render --join`)",
		}},
		{"octal", strings.Replace(good, "expect: 5", "expect: 0o5", 1), []string{
			`9:13: spec.servers.expect: "0o5" is not a whole number from 0 to 2147483647 (write it in digits)`,
		}},
		{"a fraction", strings.Replace(good, "expect: 5", "expect: 5.5", 1), []string{
			`9:13: spec.servers.expect: "5.5" is not a whole number from 0 to 2147483647 (write it in digits)`,
		}},
		{"nobody may lead", strings.Replace(staticFile, "controlPlanes: 1}", "controlPlanes: 1, eligible: {tag: muster-role}}", 1), []string{
			"7:52: spec.servers.eligible: selects no server of those in spec.static, but controlPlanes is 1 (select more of spec.static, or lower controlPlanes)",
		}},
		{"a pattern for nobody", strings.Replace(staticFile, "controlPlanes: 1}", "controlPlanes: 1, eligible: {hostname: 'cp-*'}}", 1), []string{
			"7:52: spec.servers.eligible: selects no server of those in spec.static, but controlPlanes is 1 (select more of spec.static, or lower controlPlanes)",
		}},
		{"a tag", strings.Replace(good, "expect: 5", "expect: !!str 5", 1), []string{
			`9:13: spec.servers.expect: "5" is text, expected a whole number (remove the quotes)`,
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			began := time.Now()
			_, problems := Parse("c.yaml", []byte(row.file))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
