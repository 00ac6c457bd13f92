package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// good is a complete file; rows of TestProblems change one thing in it.
const good = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://169.254.169.254"}
  servers:
    expect: 5
    controlPlanes: 3
  discovery:
    - static: [10.99.14.9, 10.99.14.11]
  kubernetes:
    version: v1.36.3
    endpoint: 147.75.194.92:6443
    podSubnets: [172.16.0.0/12]
    serviceSubnets: [192.168.0.0/16]
  network:
    elasticIPs:
      - {address: 147.75.194.92/32, on: control-planes}
`

// static is a complete file of the other platform.
const staticFile = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: lab}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: static
  servers: {expect: 1, controlPlanes: 1}
  static:
    - match: {hostname: cp1}
      id: one
      hostname: cp1
      addresses:
        - {address: 10.99.14.9/31, gateway: 10.99.14.8}
      bgpNeighbors:
        - {customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], md5: hunter2}
  kubernetes: {version: v1.37.0}
`

func TestGood(t *testing.T) {
	for name, file := range map[string]string{"packet": good, "static": staticFile} {
		if _, problems := Parse("c.yaml", []byte(file)); len(problems) != 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

// render is one problem a line without the file's name.
func render(problems []Problem) []string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, strings.TrimPrefix(p.String(), "c.yaml:"))
	}
	return lines
}

// TestProblems holds the text of every problem that a person may meet, each at its
// place. Rows say which words of a good file are replaced by which.
func TestProblems(t *testing.T) {
	for _, row := range []struct {
		name, file, old, new string
		want                 []string
	}{
		{"unknown key", good, "expect: 5", "expct: 5", []string{
			"9:5: spec.servers.expct: unknown key (did you mean expect?)",
		}},
		{"unknown key beside the right one", good, "expect: 5", "expect: 2\n    expct: 5", []string{
			"10:5: spec.servers.expct: unknown key (did you mean expect?)",
			"11:20: spec.servers.controlPlanes: 3 control planes, but only 2 servers are expected (expect counts control planes and workers: raise it to at least 3, or lower controlPlanes; a cluster that has formed takes it by `bootstrap apply` and `userdata render --join`)",
		}},
		{"unknown key far from any", good, "platform: packet", "platform: packet\n  flavour: 3", []string{
			"7:3: spec.flavour: unknown key (keys here: id, platform, metadata, static, servers, join, identity, time, discovery, report, secretFrom, agent, artifacts, kubernetes, containerd, network, ports, addons, unsafe)",
		}},
		{"key of another place", good, "  discovery:", "  controlPlanes: 3\n  discovery:", []string{
			"11:3: spec.controlPlanes: unknown key (it belongs at spec.servers.controlPlanes; keys here: id, platform, metadata, static, servers, join, identity, time, discovery, report, secretFrom, agent, artifacts, kubernetes, containerd, network, ports, addons, unsafe)",
		}},
		{"artefacts without a lock", full, "expect: 5", "expect: 6", []string{
			"13:3: spec.agent.sha256: is missing (such as sha256: {amd64: …}; `sha256sum` of the file prints it. Without one a mirror could run anything as root on every server)",
			"15:5: spec.artifacts: there is no lock file beside the cluster file, so nothing has a digest (run `userdata lock`)",
		}},
		{"artefacts", strings.Replace(full, "agent: {", "ports: {} # {", 1), "versions: {containerd: v2.3.5}", `versions: {runc: "1.4"}
    architectures: [amd64, riscv]`, []string{
			"15:5: spec.artifacts: there is no lock file beside the cluster file, so nothing has a digest (run `userdata lock`)",
			`16:22: spec.artifacts.versions.runc: "1.4" is not a release (such as v2.3.4)`,
			`17:28: spec.artifacts.architectures[1]: "riscv" is not an architecture that the agent is built for (allowed: amd64, arm64)`,
		}},
		{"mirrors and images", strings.Replace(full, "agent: {", "ports: {} # {", 1), `mirrors: ["http://10.0.0.5/mirror/", publishers]
    versions: {containerd: v2.3.5}
    images: [`, `mirrors: [publisher, publishers, publishers]
    images: [{name: A, urls: [http://m/a.tar, http://n/b.tar, ftp://m/a.tar]}, `, []string{
			"15:5: spec.artifacts: there is no lock file beside the cluster file, so nothing has a digest (run `userdata lock`)",
			`15:15: spec.artifacts.mirrors[0]: "publisher" is not an http, https or file URL (publishers, or a base URL such as http://10.0.0.5/mirror)`,
			`15:38: spec.artifacts.mirrors[2]: "publishers" is listed twice, first as element 1 (remove it)`,
			`16:21: spec.artifacts.images[0].name: "A" is not a DNS label (lower-case letters, digits and hyphens, at most 63, no hyphen at either end, such as k8s-bgp)`,
			"16:47: spec.artifacts.images[0].urls[1]: names another file than the first URL (give the file the name a.tar there)",
			`16:63: spec.artifacts.images[0].urls[2]: "ftp://m/a.tar" is not an http, https or file URL (such as http://10.0.0.5/images-ARCH.tar)`,
		}},
		{"lock in the cluster file", good, "kind: Cluster\n", "kind: Cluster\nlock: []\n", []string{
			"3:7: lock: does not belong into the cluster file (remove it here; `userdata lock` writes a file of its own and `userdata render` adds it)",
		}},
		{"duplicate key", good, "    controlPlanes: 3", "    controlPlanes: 3\n    expect: 7", []string{
			"11:5: spec.servers.expect: given twice, first in line 9 (keep one of them)",
		}},
		{"second document", good, "on: control-planes}\n", "on: control-planes}\n---\napiVersion: muster/v1alpha1\n", []string{
			"21:1: a second document begins here (keep one document; remove everything from this `---` on)",
		}},
		{"not YAML", good, "kind: Cluster", "kind: Cluster\n bad", []string{
			`2:7: kind: "Cluster bad" is not allowed (allowed: Cluster)`,
		}},
		{"tab", good, "  id:", "\tid:", []string{
			"5:1: a tab in the indentation, which YAML does not take (indent with blanks, two for each level)",
		}},
		{"missing fields", good, "  servers:\n    expect: 5\n    controlPlanes: 3\n", "", []string{
			"4:1: spec.servers.controlPlanes: is missing (such as controlPlanes: 3)",
			"4:1: spec.servers.expect: is missing (such as expect: 5)",
		}},
		{"wrong type, number as text", good, "expect: 5", `expect: "5"`, []string{
			`9:13: spec.servers.expect: "5" is text, expected a whole number (remove the quotes)`,
		}},
		{"wrong type, text as number", good, "controlPlanes: 3", "controlPlanes: three", []string{
			`10:20: spec.servers.controlPlanes: "three" is not a whole number from 0 to 2147483647 (write it in digits)`,
		}},
		{"wrong type, mapping", good, "metadata: {name: k8s-bgp}", "metadata: k8s-bgp", []string{
			`3:11: metadata: is "k8s-bgp", expected a mapping (keys: name)`,
		}},
		{"wrong type, list", good, "podSubnets: [172.16.0.0/12]", "podSubnets: 172.16.0.0/12", []string{
			`16:17: spec.kubernetes.podSubnets: is "172.16.0.0/12", expected a list (write it as a list: [172.16.0.0/12])`,
		}},
		{"wrong type, scalar", good, "version: v1.36.3", "version: [v1.36.3]", []string{
			"14:14: spec.kubernetes.version: is a list, expected text (write one value after the key)",
		}},
		{"no value", good, "version: v1.36.3", "version:", []string{
			"14:13: spec.kubernetes.version: has no value (give it a value, or remove the key)",
		}},
		{"name is a number", good, "name: k8s-bgp", "name: 42", []string{
			"3:18: metadata.name: 42 is a number to YAML, expected text (write it in quotes)",
		}},
		{"anchor", good, "platform: packet", "platform: &p packet", []string{
			"6:13: spec.platform: anchors and aliases are not supported (write the value out)",
		}},
		{"enumeration", good, "platform: packet", "platform: packt", []string{
			`6:13: spec.platform: "packt" is not allowed (did you mean packet? allowed: auto, packet, ec2, openstack, vultr, hetzner, latitude, nocloud, cloudinit, static)`,
		}},
		{"api version", good, "muster/v1alpha1", "muster/v1", []string{
			`1:13: apiVersion: "muster/v1" is not allowed (allowed: muster/v1alpha1)`,
		}},
		{"id", good, "5b0c6d1f9e2a47b88c3d4e5f60718293", "5B0C", []string{
			"5:7: spec.id: \"5B0C\" is not 32 lower-case hex digits (`userdata init` writes a new one; `openssl rand -hex 16` prints one)",
		}},
		{"name", good, "k8s-bgp", "K8s_BGP", []string{
			`3:18: metadata.name: "K8s_BGP" is not a DNS label (lower-case letters, digits and hyphens, at most 63, no hyphen at either end, such as k8s-bgp)`,
		}},
		{"expect too small", good, "expect: 5", "expect: 2", []string{
			"10:20: spec.servers.controlPlanes: 3 control planes, but only 2 servers are expected (expect counts control planes and workers: raise it to at least 3, or lower controlPlanes; a cluster that has formed takes it by `bootstrap apply` and `userdata render --join`)",
		}},
		{"expect zero", good, "expect: 5", "expect: 0", []string{
			"9:13: spec.servers.expect: 0 servers cannot form a cluster (1 to 1000: the servers that get this user-data, workers too)",
		}},
		{"two control planes", good, "controlPlanes: 3", "controlPlanes: 2", []string{
			"10:20: spec.servers.controlPlanes: 2 control planes stop when either fails: etcd needs a majority, so two are worse than one (1, or 3 so that one may fail)",
		}},
		{"four control planes", good, "controlPlanes: 3", "controlPlanes: 4", []string{
			"10:20: warning: spec.servers.controlPlanes: 4 control planes: an even number gains nothing (3 tolerate the same number of failures)",
		}},
		{"majority", good, "    controlPlanes: 3", "    controlPlanes: 3\n    quorum: majority", []string{
			"11:13: warning: spec.servers.quorum: with majority one server that loses its disk while the cluster forms may lead to two clusters (safe tolerates one wiped or surplus server in three)",
		}},
		{"quorum", good, "    controlPlanes: 3", "    controlPlanes: 3\n    quorum: safest", []string{
			`11:13: spec.servers.quorum: "safest" is not allowed (did you mean safe? allowed: safe, majority)`,
		}},
		{"eligible twice", good, "    controlPlanes: 3", "    controlPlanes: 3\n    eligible: {tag: cp, hostname: \"[\"}", []string{
			"11:15: spec.servers.eligible: says hostname and tag, which may contradict each other (keep one of them)",
			`11:35: spec.servers.eligible.hostname: "[" is not a pattern (such as cp-* or node-[1-3])`,
		}},
		{"eligible none", good, "    controlPlanes: 3", "    controlPlanes: 3\n    eligible: {none: true}", []string{
			"11:22: spec.servers.eligible.none: no server may become a control plane, and no cluster would form (remove it; `userdata render --role worker` writes it for servers that shall be workers)",
		}},
		{"eligible too few", good, "    controlPlanes: 3", "    controlPlanes: 3\n    eligible: {list: [a, a]}", []string{
			"11:22: spec.servers.eligible.list: names 2 servers, but controlPlanes is 3 (name more servers, or lower controlPlanes)",
			`11:26: spec.servers.eligible.list[1]: "a" is listed twice, first as element 0 (remove it)`,
		}},
		{"electors", good, "    controlPlanes: 3", "    controlPlanes: 3\n    electors: [12ab, 5b0c6d1f9e2a47b88c3d4e5f60718293, 5b0c6d1f9e2a47b88c3d4e5f60718293]", []string{
			"11:16: spec.servers.electors[0]: \"12ab\" is not a hardware id, which is 32 lower-case hex digits (`bootstrap status -o json` on a server shows its own as hw)",
			`11:56: spec.servers.electors[2]: "5b0c6d1f9e2a47b88c3d4e5f60718293" is listed twice, first as element 1 (remove it)`,
		}},
		{"join", good, "  discovery:", "  join: {ca: sha256:E3B0, token: x}\n  discovery:", []string{
			"11:14: spec.join.ca: \"sha256:E3B0\" is not the hash of a CA (sha256: and 64 lower-case hex digits, as `bootstrap status -o json` on a server of the cluster shows it as caHash)",
			"11:27: spec.join.token: unknown key (keys here: ca)",
		}},
		{"join without a hash", good, "  discovery:", "  join:\n  discovery:", []string{
			"11:3: spec.join.ca: is missing (such as ca: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855)",
		}},
		{"join without discovery", staticFile, "  platform: static", "  platform: static\n  join: {ca: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}", []string{
			"4:1: spec.discovery: is missing (a server that joins must find the cluster: - static: [10.99.14.9, 10.99.14.11], private addresses of its servers)",
		}},
		{"metadata url missing", good, "  metadata: {url: \"http://169.254.169.254\"}\n", "", []string{
			"4:1: spec.metadata.url: is missing (the base URL of your metadata service, such as url: http://169.254.169.254; servers read URL/metadata)",
		}},
		{"metadata url of the document", good, "http://169.254.169.254", "http://169.254.169.254/metadata", []string{
			`7:19: spec.metadata.url: "http://169.254.169.254/metadata" names the document; /metadata is appended to the base URL (write http://169.254.169.254)`,
		}},
		{"metadata url and deadline", good, `{url: "http://169.254.169.254"}`, `{url: "169.254.169.254", deadline: 5}`, []string{
			`7:19: spec.metadata.url: "169.254.169.254" is not an http or https URL of a host, without user, query and fragment (such as http://169.254.169.254)`,
			`7:48: spec.metadata.deadline: "5" is not a duration (a number with a unit: 90s, 5m, 1h30m)`,
		}},
		{"a server is replaced too early", good, "expect: 5", "expect: 5\n    replace: {by: auto, after: 5s}", []string{
			"10:32: spec.servers.replace.after: 5s is shorter than gossip needs to be sure that a server is gone, or too long for anybody to wait (1m to 24h; 10m when left out)",
		}},
		{"deadline", good, `{url: "http://169.254.169.254"}`, `{url: "http://169.254.169.254", deadline: 1s}`, []string{
			"7:55: spec.metadata.deadline: 1s is too short for a slow service, or too long to notice a dead one (10s to 1h; 5m when left out)",
		}},
		{"discovery absent", good, "  discovery:\n    - static: [10.99.14.9, 10.99.14.11]\n", "", []string{
			"4:1: spec.discovery: is missing (5 servers must find each other: - static: [10.99.14.9, 10.99.14.11], private addresses of founding servers)",
		}},
		{"discovery addresses", good, "[10.99.14.9, 10.99.14.11]", "[10.99.14.9/31, 127.0.0.1, 10.99.14.11, 10.99.14.11, cp1]", []string{
			`12:16: spec.discovery[0].static[0]: "10.99.14.9/31" is a range, expected one address (leave the /31 off)`,
			"12:31: spec.discovery[0].static[1]: 127.0.0.1 is no address of a server (the private address of a founding server)",
			"12:55: spec.discovery[0].static[3]: 10.99.14.11 is listed twice (remove it here)",
			`12:68: spec.discovery[0].static[4]: "cp1" is not an IP address (such as 10.99.14.9 or fd00::9)`,
		}},
		{"discovery of one", good, "[10.99.14.9, 10.99.14.11]", "[10.99.14.9]", []string{
			"12:5: warning: spec.discovery: if 10.99.14.9 does not boot, the other servers never find each other (list private addresses of more founding servers)",
		}},
		{"agent without sha256", good, "  kubernetes:", "  agent: {urls: [\"https://a.example/b_ARCH\"]}\n  kubernetes:", []string{
			"13:3: spec.agent.sha256: is missing (such as sha256: {amd64: …}; `sha256sum` of the file prints it. Without one a mirror could run anything as root on every server)",
		}},
		{"agent", good, "  kubernetes:", "  agent:\n    urls: [\"https://u:p@a.example/ARCH\", \"https://a.example/$(id)\", \"https://a.example/b\", a.example/b]\n    sha256: {amd64: abc, arm64: 0000000000000000000000000000000000000000000000000000000000000000, mips: 0000000000000000000000000000000000000000000000000000000000000000}\n  kubernetes:", []string{
			"14:12: spec.agent.urls[0]: has a user or a password in it, and user-data is no place for one (serve it without a password: the sha256 protects it)",
			`14:42: spec.agent.urls[1]: "https://a.example/$(id)" is not a URL (such as https://mirror.example.net/bootstrap_linux_ARCH; write %24 for special characters)`,
			"14:69: spec.agent.urls[2]: one file cannot have the sha256 of 3 architectures (write ARCH where amd64 or arm64 stands in the file's name)",
			`14:92: spec.agent.urls[3]: "a.example/b" is not a URL (such as https://mirror.example.net/bootstrap_linux_ARCH; write %24 for special characters)`,
			"15:21: spec.agent.sha256.amd64: \"abc\" is not a sha256: 64 lower-case hex digits (`sha256sum bootstrap_linux_amd64` prints it)",
			"15:33: spec.agent.sha256.arm64: 000000000000000000000000000000000000000000000000000000000000… is a number to YAML, expected text (write it in quotes)",
			"15:105: spec.agent.sha256.mips: 000000000000000000000000000000000000000000000000000000000000… is a number to YAML, expected text (write it in quotes)",
		}},
		{"version without v", good, "v1.36.3", "1.36.3", []string{
			`14:14: spec.kubernetes.version: "1.36.3" lacks the v that Kubernetes releases begin with (write v1.36.3)`,
		}},
		{"version of a minor", good, "v1.36.3", "v1.36", []string{
			`14:14: spec.kubernetes.version: "v1.36" is not a release (a full release such as v1.36.3; accepted: v1.34.10+, v1.35.8+, v1.36.1+, v1.37.0+)`,
		}},
		{"version too old", good, "v1.36.3", "v1.35.2", []string{
			"14:14: spec.kubernetes.version: v1.35.2 is too old: its kubeadm init waits for the endpoint, which answers only after init (take v1.35.8 or a later patch)",
		}},
		{"version too new", good, "v1.36.3", "v1.38.0", []string{
			"14:14: spec.kubernetes.version: v1.38.0 is not a version that this muster was built for (accepted: v1.34.10+, v1.35.8+, v1.36.1+, v1.37.0+)",
		}},
		{"pod range too small", good, "172.16.0.0/12", "172.16.0.0/23", []string{
			"16:18: spec.kubernetes.podSubnets[0]: 172.16.0.0/23 has room for 2 nodes, but 5 servers are expected (every node takes a /24: use a /21 or wider)",
		}},
		{"pod range smaller than a node's", good, "172.16.0.0/12", "172.16.0.0/25", []string{
			"16:18: spec.kubernetes.podSubnets[0]: 172.16.0.0/25 has room for no node, but 5 servers are expected (every node takes a /24: use a /21 or wider)",
		}},
		{"families of pods and Services", good, "[172.16.0.0/12]", "[172.16.0.0/12, \"fd00::/40\"]\n    dnsDomain: Cluster_Local", []string{
			`17:16: spec.kubernetes.dnsDomain: "Cluster_Local" is not a domain name (such as cluster.local)`,
			"18:21: spec.kubernetes.serviceSubnets: Services have IPv4, but pods have IPv4, then IPv6 (give both lists the same address families in the same order)",
		}},
		{"IPv6 pod range of one node", good, "podSubnets: [172.16.0.0/12]\n    serviceSubnets: [192.168.0.0/16]", "podSubnets: [172.16.0.0/12, \"fd01::/120\"]\n    serviceSubnets: [192.168.0.0/16, \"fd98::/64\"]", []string{
			"16:33: spec.kubernetes.podSubnets[1]: fd01::/120 has room for 1 node, but 5 servers are expected (every node takes a /120: use a /117 or wider)",
			"17:38: spec.kubernetes.serviceSubnets[1]: fd98::/64 is too wide: kube-apiserver takes at most 2^20 Service addresses (use a /108 or narrower)",
		}},
		{"host bits", good, "172.16.0.0/12", "172.16.5.0/12", []string{
			"16:18: spec.kubernetes.podSubnets[0]: 172.16.5.0/12 has bits set beyond its length (write 172.16.0.0/12)",
		}},
		{"two ranges of one family", good, "[172.16.0.0/12]", "[172.16.0.0/13, 172.24.0.0/13]", []string{
			"16:33: spec.kubernetes.podSubnets[1]: a second range of the family of 172.16.0.0/13; Kubernetes takes one IPv4 and one IPv6 range (keep one, wide enough)",
		}},
		{"a bare address", good, "[172.16.0.0/12]", "[172.16.0.0]", []string{
			`16:18: spec.kubernetes.podSubnets[0]: "172.16.0.0" is not an address with a length (add the length: 172.16.0.0/32 is this one address)`,
		}},
		{"service range too narrow", good, "192.168.0.0/16", "192.168.0.0/29", []string{
			"17:22: spec.kubernetes.serviceSubnets[0]: 192.168.0.0/29 is too narrow: the DNS Service takes the tenth address (use a /28 or wider)",
		}},
		{"service range too wide", good, "192.168.0.0/16", "100.64.0.0/10", []string{
			"17:22: spec.kubernetes.serviceSubnets[0]: 100.64.0.0/10 is too wide: kube-apiserver takes at most 2^20 Service addresses (use a /12 or narrower)",
		}},
		{"pods overlap services", good, "192.168.0.0/16", "172.20.0.0/16", []string{
			"17:22: spec.kubernetes.serviceSubnets[0]: service range 172.20.0.0/16 overlaps pod range 172.16.0.0/12, in line 16 (set kubernetes.serviceSubnets to a range that shares no address with others, such as [192.168.0.0/16])",
		}},
		{"pods overlap discovery", good, "172.16.0.0/12", "10.96.0.0/11", []string{
			"12:16: spec.discovery[0].static[0]: discovery address 10.99.14.9 overlaps pod range 10.96.0.0/11, in line 16 (set kubernetes.podSubnets to a range that shares no address with others, such as [172.16.0.0/12])",
			"12:28: spec.discovery[0].static[1]: discovery address 10.99.14.11 overlaps pod range 10.96.0.0/11, in line 16 (set kubernetes.podSubnets to a range that shares no address with others, such as [172.16.0.0/12])",
		}},
		{"default services overlap discovery", good, "    - static: [10.99.14.9, 10.99.14.11]\n  kubernetes:\n    version: v1.36.3\n    endpoint: 147.75.194.92:6443\n    podSubnets: [172.16.0.0/12]\n    serviceSubnets: [192.168.0.0/16]\n", "    - static: [192.168.1.5, 192.168.1.6]\n  kubernetes:\n    version: v1.36.3\n    endpoint: 147.75.194.92:6443\n", []string{
			"12:16: spec.discovery[0].static[0]: discovery address 192.168.1.5 overlaps service range 192.168.0.0/16, which is the default (set kubernetes.serviceSubnets to a range that shares no address with others, such as [10.96.0.0/16])",
			"12:29: spec.discovery[0].static[1]: discovery address 192.168.1.6 overlaps service range 192.168.0.0/16, which is the default (set kubernetes.serviceSubnets to a range that shares no address with others, such as [10.96.0.0/16])",
		}},
		{"services overlap the EIP", good, "192.168.0.0/16", "147.75.192.0/20", []string{
			"20:19: spec.network.elasticIPs[0].address: Elastic IP 147.75.194.92 overlaps service range 147.75.192.0/20, in line 17 (set kubernetes.serviceSubnets to a range that shares no address with others, such as [192.168.0.0/16])",
		}},
		{"endpoint that nothing announces", good, "endpoint: 147.75.194.92:6443", "endpoint: 147.75.194.29:6443", []string{
			"15:15: spec.kubernetes.endpoint: nothing announces 147.75.194.29: it is not in network.elasticIPs (Elastic IPs of this file: 147.75.194.92; if something else leads to the control planes, write {address: 147.75.194.29:6443, external: true})",
		}},
		{"endpoint without an EIP", good, "    elasticIPs:\n      - {address: 147.75.194.92/32, on: control-planes}", "    elasticIPs: []", []string{
			"15:15: spec.kubernetes.endpoint: nothing announces 147.75.194.92: it is not in network.elasticIPs (add {address: 147.75.194.92/32, on: control-planes} to network.elasticIPs; if something else leads to the control planes, write {address: 147.75.194.92:6443, external: true})",
		}},
		{"endpoint with the speaker off", good, "  network:", "  network:\n    bgp: {controlPlane: none}", []string{
			"19:25: spec.network.bgp.controlPlane: nothing announces the endpoint 147.75.194.92 (write builtin or kube-vip, or make the endpoint {address: 147.75.194.92:6443, external: true})",
		}},
		{"speaker without an EIP", staticFile, "  kubernetes:", "  network: {bgp: {controlPlane: builtin}}\n  kubernetes:", []string{
			"16:33: spec.network.bgp.controlPlane: there is nothing to announce (list the addresses in network.elasticIPs, or write none)",
		}},
		{"endpoint port", good, "92:6443", "92:8443", []string{
			"15:15: spec.kubernetes.endpoint: port 8443: the API servers listen on 6443, and nothing translates on the way to an Elastic IP (write 147.75.194.92:6443)",
		}},
		{"endpoint as a URL", good, "endpoint: 147.75.194.92:6443", "endpoint: https://147.75.194.92:6443", []string{
			`15:15: spec.kubernetes.endpoint: "https://147.75.194.92:6443" is not host:port (leave the scheme off; such as 147.75.194.92:6443, [2604:1380::1]:6443 or {address: api.example.net:6443, external: true})`,
		}},
		{"endpoint without port", good, "endpoint: 147.75.194.92:6443", "endpoint: 147.75.194.92", []string{
			`15:15: spec.kubernetes.endpoint: "147.75.194.92" is not host:port (write 147.75.194.92:6443)`,
		}},
		{"endpoint absent", good, "    endpoint: 147.75.194.92:6443\n", "", []string{
			"13:3: spec.kubernetes.endpoint: is missing (3 control planes need one address: an Elastic IP of network.elasticIPs as endpoint: IP:6443, or {address: host:port, external: true})",
		}},
		{"endpoint name", good, "endpoint: 147.75.194.92:6443", "endpoint: api.example.net:6443", []string{
			"15:15: spec.kubernetes.endpoint: nothing announces api.example.net: it is not in network.elasticIPs (Elastic IPs of this file: 147.75.194.92; if something else leads to the control planes, write {address: api.example.net:6443, external: true})",
		}},
		{"EIP range", good, "92/32, on: control-planes", "0/24, on: workers", []string{
			"20:19: spec.network.elasticIPs[0].address: 147.75.194.0/24 is a range, expected one address (write 147.75.194.0/32 for each address that the control planes shall hold)",
			`20:40: spec.network.elasticIPs[0].on: "workers" is not allowed (allowed: control-planes)`,
		}},
		{"EIP without length", good, "92/32", "92", []string{
			`20:19: spec.network.elasticIPs[0].address: "147.75.194.92" is not an address with a length (add the length: 147.75.194.92/32 is this one address)`,
		}},
		{"example addresses", good, "    endpoint: 147.75.194.92:6443", "    endpoint: {address: '203.0.113.1:6443', external: true}", []string{
			"15:15: warning: spec.kubernetes.endpoint: 203.0.113.1 is an example address (203.0.113.0/24 is reserved for documentation) (put your own address)",
		}},
		{"ports", good, "  network:", "  ports: {gossip: 7946, agents: 31000, enrolment: 9763}\n  network:", []string{
			"18:10: spec.ports.directory: port 9763 is that of ports.enrolment too (give each its own port)",
			"18:19: spec.ports.gossip: port 7946 is taken by MetalLB's speakers (any port from 1024 that is free on every server; 9760 to 9763 when left out)",
			"18:33: spec.ports.agents: port 31000 is taken by NodePorts (any port from 1024 that is free on every server; 9760 to 9763 when left out)",
		}},
		{"port range", good, "  network:", "  ports: {gossip: 70000}\n  network:", []string{
			`18:19: spec.ports.gossip: "70000" is not a whole number from 0 to 65535 (write it in digits)`,
		}},
		{"passed on", good, "    version: v1.36.3", "    version: v1.36.3\n    kubelet: {maxPods: 200, kind: x, failCgroupV1: .nan}\n    ignorePreflightErrors: [SystemVerification]\n    skipPhases: [addon/coredns]", []string{
			"15:24: warning: spec.kubernetes.kubelet.maxPods: goes into KubeletConfiguration unchecked (a wrong key or value shows only when servers boot)",
			"15:35: spec.kubernetes.kubelet.kind: muster writes it itself (remove it)",
			`15:52: spec.kubernetes.kubelet.failCgroupV1: is ".nan", which cannot be passed on (use text, a number, true, false, a list or a mapping)`,
			`16:29: warning: spec.kubernetes.ignorePreflightErrors[0]: kubeadm goes on although its check "SystemVerification" fails (the check knows why the server will not work; mend that, if it can be mended)`,
			`17:18: warning: spec.kubernetes.skipPhases[0]: kubeadm init leaves "addon/coredns" out (lay down what it makes by other means)`,
		}},
		{"containerd and unsafe", good, "  network:", "  containerd: {extra: {io.containerd.cri.v1.runtime: {restrict_oom_score_adj: true}}}\n  unsafe: {stateFilesystem: yes}\n  network:", []string{
			"18:54: warning: spec.containerd.extra.io.containerd.cri.v1.runtime: goes into containerd's configuration unchecked (a wrong key or value shows only when servers boot)",
			`19:29: spec.unsafe.stateFilesystem: "yes" is not a truth value (allowed: true, false (without quotes))`,
		}},
		{"secret", good, "spec:", "secret: c2VjcmV0\nspec:", []string{
			"4:9: secret: does not belong into the cluster file, which people share (remove it here; it is a file of its own (`userdata init` writes NAME.secret) and `userdata render` adds it)",
		}},
		{"overlay", good, "  servers:", "  static:\n    - {match: {hostname: a}, tags: [x]}\n    - {match: {all: true}, bgpNeighbors: [{customerAS: 1, peerAS: 2, peerIPs: [10.99.1.1]}]}\n  servers:", nil},
		{"overlay, the same for all", good, "  servers:", "  static:\n    - {match: {all: true}, id: x, hostname: a, addresses: [{address: 10.0.0.1/31}]}\n  servers:", []string{
			"9:32: spec.static[0].id: cannot be the same for all servers (write it into an entry of that server's own)",
			"9:45: spec.static[0].hostname: cannot be the same for all servers (write it into an entry of that server's own)",
			"9:59: spec.static[0].addresses: cannot be the same for all servers (write it into an entry of that server's own)",
		}},
		{"ec2 tells no neighbours", good, "platform: packet", "platform: ec2", []string{
			"4:1: spec.static: is missing (platform ec2 tells no BGP neighbours: - {match: {all: true}, bgpNeighbors: [{customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], multihop: true}]}, or write network.bgp.controlPlane: none)",
		}},
		{"auto needs no url", good, "  platform: packet\n  metadata: {url: \"http://169.254.169.254\"}\n", "  platform: auto\n", nil},
		{"cloudinit reads a file", good, "platform: packet", "platform: cloudinit", []string{
			"7:19: spec.metadata.url: is not read by platform cloudinit, which reads a file (remove it, or name the platform that answers there)",
		}},
		{"static, nothing said", staticFile, "      id: one\n      hostname: cp1\n", "", []string{
			"9:7: spec.static[0].hostname: is missing (such as hostname: cp1)",
			"9:7: spec.static[0].id: is missing (such as id: rack1-u7)",
		}},
		{"static, metadata", staticFile, "  platform: static", "  platform: static\n  metadata: {url: http://x}", []string{
			"7:13: spec.metadata: is not read by platform static (remove it, or write platform: packet)",
		}},
		{"static, too few", staticFile, "expect: 1, controlPlanes: 1", "expect: 2, controlPlanes: 1", []string{
			"4:1: spec.discovery: is missing (2 servers must find each other: - static: [10.99.14.9, 10.99.14.11], private addresses of founding servers)",
			"9:5: spec.static: describes 1 server, but 2 servers are expected (describe every server that gets this user-data)",
		}},
		{"static, none", staticFile, "  platform: static", "  platform: static\n  discovery: [{}]", []string{
			"7:15: spec.discovery[0].static: is missing (such as static: [10.99.14.9]; or subnet: private, dns: NAME, multicast: true, packetAPI: {…}, eip: true)",
		}},
		{"static, gateway", staticFile, "gateway: 10.99.14.8", "gateway: 10.99.14.7", []string{
			"13:45: spec.static[0].addresses[0].gateway: 10.99.14.7 is not in 10.99.14.8/31, so the server cannot reach it (the router's address in that subnet; is the length right?)",
		}},
		{"static, public only", staticFile, "gateway: 10.99.14.8", "public: true", []string{
			"13:9: spec.static[0].addresses: all are public, and muster listens on private addresses only (add the private address, or remove public: true from one)",
		}},
		{"static, match", staticFile, "{hostname: cp1}", "{hostname: cp1, mac: 52:54}", []string{
			"9:14: spec.static[0].match: has 2 criteria, expected exactly one (one of hostname: cp1, mac: 52:54:00:12:34:56, address: 10.99.14.9, all: true)",
			`9:35: spec.static[0].match.mac: "52:54" is not a MAC address (such as 52:54:00:12:34:56)`,
		}},
		{"static, neighbours", staticFile, "customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], md5: hunter2", "customerAS: 0, peerAS: -1, peerIPs: [169.254.255.1, fe80::1], md5: 12345", []string{
			"15:24: spec.static[0].bgpNeighbors[0].customerAS: AS 0 is reserved (RFC 7607) (such as 65000)",
			`15:35: spec.static[0].bgpNeighbors[0].peerAS: "-1" is not a whole number from 0 to 4294967295 (write it in digits)`,
			"15:64: spec.static[0].bgpNeighbors[0].peerIPs[1]: fe80::1 and 169.254.255.1 are of different families (make one entry of bgpNeighbors for each address family)",
			"15:79: spec.static[0].bgpNeighbors[0].md5: a secret is a number to YAML, expected text (write it in quotes)",
		}},
		{"static, duplicates", staticFile, "  kubernetes: {", "    - match: {mac: '52:54:00:12:34:56'}\n      id: one\n      hostname: cp1\n      addresses: [{address: 10.99.14.9/31}]\n  kubernetes: {", []string{
			`17:11: spec.static[1].id: "one" is that of static[0] too (every server has its own)`,
			`18:17: spec.static[1].hostname: "cp1" is that of static[0] too (every server has its own)`,
			`19:29: spec.static[1].addresses[0].address: "10.99.14.9" is that of static[0] too (every server has its own)`,
		}},
		{"static, pods in its subnet", staticFile, "10.99.14.9/31, gateway: 10.99.14.8", "172.16.3.4/24, gateway: 172.16.3.1", []string{
			"13:21: spec.static[0].addresses[0].address: the subnet of server cp1 172.16.3.0/24 overlaps pod range 172.16.0.0/12, which is the default (set kubernetes.podSubnets to a range that shares no address with others, such as [10.244.0.0/16])",
		}},
		{"static, empty addresses", staticFile, "      addresses:\n        - {address: 10.99.14.9/31, gateway: 10.99.14.8}\n", "      addresses: []\n", []string{
			"12:7: spec.static[0].addresses: is missing (such as addresses: [{address: 10.99.14.9/31, gateway: 10.99.14.8}])",
		}},
		{"EIP twice", good, "    elasticIPs:\n", "    elasticIPs:\n      - {address: 147.75.194.92/32, on: control-planes}\n", []string{
			"21:19: spec.network.elasticIPs[1].address: Elastic IP 147.75.194.92 overlaps Elastic IP 147.75.194.92, in line 20 (each needs its own address)",
		}},
		{"static, no neighbours", staticFile, "      bgpNeighbors:\n        - {customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], md5: hunter2}\n", "  network: {elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]}\n", []string{
			"9:5: spec.static: no server has a BGP neighbour to announce the Elastic IPs to (add bgpNeighbors to the servers that may become control planes, or write network.bgp.controlPlane: none)",
		}},
		{"no speaker of that name", good, "  network:", "  network:\n    bgp: {controlPlane: kubevip, services: metalb}", []string{
			`19:25: spec.network.bgp.controlPlane: "kubevip" is not allowed (did you mean kube-vip? allowed: builtin, kube-vip, none)`,
			`19:44: spec.network.bgp.services: "metalb" is not allowed (did you mean metallb? allowed: none, metallb, calico, cilium)`,
		}},
		{"kube-vip", good, "  network:", "  network:\n    bgp: {controlPlane: kube-vip}", nil},
		{"kube-vip without an EIP", staticFile, "  kubernetes:", "  network: {bgp: {controlPlane: kube-vip}}\n  kubernetes:", []string{
			"15:92: warning: spec.static[0].bgpNeighbors[0].md5: kube-vip has the password in the environment of its pod, where everybody sees it who may read pods in kube-system (the speaker that is built in shows it to nobody)",
			"16:33: spec.network.bgp.controlPlane: kube-vip announces the endpoint, which is no Elastic IP of this file (make kubernetes.endpoint an Elastic IP: endpoint: IP:6443; or write none)",
		}},
		{"kube-vip and an endpoint of others", good, "    endpoint: 147.75.194.92:6443\n    podSubnets: [172.16.0.0/12]\n    serviceSubnets: [192.168.0.0/16]\n  network:\n", "    endpoint: {address: 'api.example.net:6443', external: true}\n  network:\n    bgp: {controlPlane: kube-vip}\n", []string{
			"17:25: spec.network.bgp.controlPlane: kube-vip announces the endpoint, which is no Elastic IP of this file (make kubernetes.endpoint an Elastic IP: endpoint: IP:6443; or write none)",
		}},
		{"kube-vip and two EIPs", good, "    elasticIPs:\n", "    bgp: {controlPlane: kube-vip}\n    elasticIPs:\n      - {address: 147.75.194.93/32, on: control-planes}\n", []string{
			"22:9: spec.network.elasticIPs[1]: kube-vip announces one address, here are 2 (keep the endpoint's, or write network.bgp.controlPlane: builtin, which announces all of them)",
		}},
		{"kube-vip too old", good, "  network:", "  network:\n    bgp: {controlPlane: kube-vip, kubeVIP: {image: ghcr.io/kube-vip/kube-vip:v0.8.10}}", []string{
			"19:52: spec.network.bgp.kubeVIP.image: kube-vip v0.8.10 announces the endpoint also while the API server is dead (v1.2.0 or later)",
		}},
		{"kube-vip newer than known", good, "  network:", "  network:\n    bgp: {controlPlane: kube-vip, kubeVIP: {image: mirror.example.net:5000/kube-vip:v1.3.0}}", []string{
			"19:52: warning: spec.network.bgp.kubeVIP.image: kube-vip v1.3.0 is newer than what this muster was made for (its environment is written as v1.2 reads it)",
		}},
		{"kube-vip of no release", good, "  network:", "  network:\n    bgp: {controlPlane: kube-vip, kubeVIP: {image: ghcr.io/kube-vip/kube-vip:latest}}", []string{
			`19:52: spec.network.bgp.kubeVIP.image: "latest" is not a release of kube-vip, so that nobody knows what it reads (a tag such as v1.2.3; a digest may follow it)`,
		}},
		{"kube-vip without a tag", good, "  network:", "  network:\n    bgp: {controlPlane: kube-vip, kubeVIP: {image: ghcr.io/kube-vip/kube-vip}}", []string{
			`19:52: spec.network.bgp.kubeVIP.image: "ghcr.io/kube-vip/kube-vip" is not the name of an image with a registry and a tag (such as ghcr.io/kube-vip/kube-vip:v1.2.3)`,
		}},
		{"kube-vip with a digest", good, "  network:", "  network:\n    bgp: {controlPlane: kube-vip, kubeVIP: {image: 'ghcr.io/kube-vip/kube-vip:v1.2.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}}", nil},
		{"image of kube-vip without kube-vip", good, "  network:", "  network:\n    bgp: {kubeVIP: {image: ghcr.io/kube-vip/kube-vip:v1.2.3}}", []string{
			"19:20: spec.network.bgp.kubeVIP: is read with controlPlane: kube-vip only, this one is builtin (remove it, or write controlPlane: kube-vip)",
		}},
		{"kube-vip and a password that it cannot read", staticFile, "md5: hunter2}\n", "md5: 'hunter:2'}\n  network:\n    bgp: {controlPlane: kube-vip}\n    elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]\n", []string{
			"15:92: spec.static[0].bgpNeighbors[0].md5: the password has a colon or a comma in it, which kube-vip cannot read (choose another on both ends, or write network.bgp.controlPlane: builtin)",
			"17:25: spec.network.bgp.controlPlane: kube-vip announces the endpoint, which is no Elastic IP of this file (make kubernetes.endpoint an Elastic IP: endpoint: IP:6443; or write none)",
		}},
		{"kube-vip shows the password", staticFile, "  kubernetes: {version: v1.37.0}\n", "  network:\n    bgp: {controlPlane: kube-vip}\n    elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]\n  kubernetes: {version: v1.37.0, endpoint: '147.75.194.92:6443'}\n", []string{
			"15:92: warning: spec.static[0].bgpNeighbors[0].md5: kube-vip has the password in the environment of its pod, where everybody sees it who may read pods in kube-system (the speaker that is built in shows it to nobody)",
		}},
		{"two sessions with one router", staticFile, "md5: hunter2}\n", "md5: hunter2}\n        - {customerAS: 65001, peerAS: 65530, peerIPs: [169.254.255.2]}\n", []string{
			"16:56: spec.static[0].bgpNeighbors[1].peerIPs[0]: 169.254.255.2 is a neighbour already, by spec.static[0].bgpNeighbors[0].peerIPs[1] (remove one of them: a router takes one session from a server)",
		}},
		{"pools", good, "  network:", "  network:\n    bgp: {services: metallb}\n    loadBalancer:\n      pools:\n        - {name: public, addresses: [147.75.40.8/29, 2604:1380:1::/64]}\n        - {name: global, addresses: [147.75.40.16/32], manual: true}", nil},
		{"services without a pool", good, "  network:", "  network:\n    bgp: {services: calico}", []string{
			"18:3: spec.network.loadBalancer.pools: is missing (network.bgp.services: calico has nothing to announce: pools: [{name: public, addresses: [147.75.40.8/29]}])",
		}},
		{"pools without services", good, "  network:", "  network:\n    loadBalancer: {pools: [{name: public, addresses: [147.75.40.8/29]}]}", []string{
			"19:27: spec.network.loadBalancer.pools: nothing gives these addresses to Services or announces them (write network.bgp.services: metallb, calico or cilium, or remove the pools)",
		}},
		{"namespace without services", good, "  network:", "  network:\n    bgp: {namespace: metallb-system}", []string{
			"19:22: spec.network.bgp.namespace: is that of the speaker of Services, and there is none (remove it, or write services: metallb, calico or cilium)",
		}},
		{"services where every server is a control plane", staticFile, "  kubernetes:", "  network:\n    bgp: {services: metallb}\n    loadBalancer: {pools: [{name: a, addresses: [147.75.40.8/29]}]}\n  kubernetes:", []string{
			"17:21: warning: spec.network.bgp.services: no server announces Services until a worker joins: every one is a control plane, and kubeadm labels those node.kubernetes.io/exclude-from-external-load-balancers (expect more servers than control planes)",
		}},
		{"services where every server announces the EIP", strings.Replace(good, "expect: 5", "expect: 3", 1), "  network:", "  network:\n    bgp: {services: metallb}\n    loadBalancer: {pools: [{name: a, addresses: [147.75.40.8/29]}]}", []string{
			"19:21: warning: spec.network.bgp.services: no server announces Services until a worker joins: every one is a control plane, where builtin holds the sessions with the routers (expect more servers than control planes)",
		}},
		{"pools, wrong", good, "  network:", "  network:\n    bgp: {services: cilium, namespace: Kube_System}\n    loadBalancer:\n      pools:\n        - {name: Public, addresses: [147.75.40.9/29, 169.254.255.0/24, 11.0.0.0/8]}\n        - {name: a, addresses: []}\n        - {name: a, addresses: [fe80::/64]}", []string{
			`19:40: spec.network.bgp.namespace: "Kube_System" is not a DNS label (lower-case letters, digits and hyphens, at most 63, no hyphen at either end, such as k8s-bgp)`,
			`22:18: spec.network.loadBalancer.pools[0].name: "Public" is not a DNS label (lower-case letters, digits and hyphens, at most 63, no hyphen at either end, such as k8s-bgp)`,
			"22:38: spec.network.loadBalancer.pools[0].addresses[0]: 147.75.40.9/29 has bits set beyond its length (write 147.75.40.8/29)",
			"22:54: spec.network.loadBalancer.pools[0].addresses[1]: 169.254.255.0/24 cannot be announced (a range that the routers lead to the servers)",
			"22:72: spec.network.loadBalancer.pools[0].addresses[2]: 11.0.0.0/8 is too wide for the addresses of Services (use a /12 or narrower)",
			"23:21: spec.network.loadBalancer.pools[1].addresses: is missing (such as addresses: [147.75.40.8/29])",
			`24:18: spec.network.loadBalancer.pools[2].name: "a" is that of pools[1] too (every pool has its own)`,
			"24:33: spec.network.loadBalancer.pools[2].addresses[0]: fe80::/64 cannot be announced (a range that the routers lead to the servers)",
		}},
		{"pools overlap", good, "  network:", "  network:\n    bgp: {services: cilium}\n    loadBalancer:\n      pools:\n        - {name: a, addresses: [172.16.1.0/24, 192.168.0.0/24]}\n        - {name: b, addresses: [147.75.194.92/31, 10.99.14.8/29]}\n        - {name: c, addresses: [147.75.194.93/32]}", []string{
			"12:16: spec.discovery[0].static[0]: discovery address 10.99.14.9 overlaps pool range 10.99.14.8/29, in line 23 (each needs its own address)",
			"12:28: spec.discovery[0].static[1]: discovery address 10.99.14.11 overlaps pool range 10.99.14.8/29, in line 23 (each needs its own address)",
			"22:33: spec.network.loadBalancer.pools[0].addresses[0]: pool range 172.16.1.0/24 overlaps pod range 172.16.0.0/12, in line 16 (set kubernetes.podSubnets to a range that shares no address with others, such as [10.244.0.0/16])",
			"22:48: spec.network.loadBalancer.pools[0].addresses[1]: pool range 192.168.0.0/24 overlaps service range 192.168.0.0/16, in line 17 (set kubernetes.serviceSubnets to a range that shares no address with others, such as [10.96.0.0/16])",
			"23:33: spec.network.loadBalancer.pools[1].addresses[0]: pool range 147.75.194.92/31 overlaps Elastic IP 147.75.194.92, in line 26 (each needs its own address)",
			"24:33: spec.network.loadBalancer.pools[2].addresses[0]: pool range 147.75.194.93 overlaps pool range 147.75.194.92/31, in line 23 (each needs its own address)",
		}},
		{"pools and the subnets of servers", staticFile, "  kubernetes:", "  network:\n    bgp: {services: metallb}\n    loadBalancer: {pools: [{name: a, addresses: [10.99.14.8/32]}, {name: b, addresses: [10.99.14.9/32]}]}\n  kubernetes:", []string{
			"13:21: spec.static[0].addresses[0].address: the subnet of server cp1 10.99.14.8/31 overlaps pool range 10.99.14.9, in line 18 (each needs its own address)",
			"17:21: warning: spec.network.bgp.services: no server announces Services until a worker joins: every one is a control plane, and kubeadm labels those node.kubernetes.io/exclude-from-external-load-balancers (expect more servers than control planes)",
		}},
		{"pools without a neighbour of the family", staticFile, "  kubernetes:", "  network:\n    bgp: {services: metallb}\n    loadBalancer: {pools: [{name: a, addresses: [147.75.40.8/29, 2604:1380:1::/64]}]}\n  kubernetes:", []string{
			"17:21: warning: spec.network.bgp.services: no server announces Services until a worker joins: every one is a control plane, and kubeadm labels those node.kubernetes.io/exclude-from-external-load-balancers (expect more servers than control planes)",
			"18:66: spec.network.loadBalancer.pools[0].addresses[1]: no server has an IPv6 neighbour to announce 2604:1380:1::/64 to (add an entry with IPv6 peerIPs to bgpNeighbors of the servers that shall announce it)",
		}},
		{"services without any neighbour", staticFile, "      bgpNeighbors:\n        - {customerAS: 65000, peerAS: 65530, peerIPs: [169.254.255.1, 169.254.255.2], md5: hunter2}\n", "  network:\n    bgp: {services: metallb}\n    loadBalancer: {pools: [{name: a, addresses: [147.75.40.8/29]}]}\n", []string{
			"9:5: spec.static: no server has a BGP neighbour to announce the pools to (add bgpNeighbors to the servers that shall announce Services, or write network.bgp.services: none)",
			"15:21: warning: spec.network.bgp.services: no server announces Services until a worker joins: every one is a control plane, and kubeadm labels those node.kubernetes.io/exclude-from-external-load-balancers (expect more servers than control planes)",
		}},
		{"EIP without a neighbour of the family", staticFile, "  kubernetes:", "  network: {elasticIPs: [{address: '2604:1380:1::92/128', on: control-planes}]}\n  kubernetes:", []string{
			"16:36: spec.network.elasticIPs[0].address: no server has an IPv6 neighbour to announce 2604:1380:1::92/128 to (add an entry with IPv6 peerIPs to bgpNeighbors of the servers that shall announce it)",
		}},
		{"firewall", good, "  network:", "  network:\n    firewall: {mode: on, trusted: [198.18.0.0/15], apiServerFrom: [185.1.2.0/24, '2a02::/16'], allow: [{port: 30443, from: [0.0.0.0/0, '::/0']}, {port: 30000, through: 32767, from: [185.1.2.3/32]}, {port: 9760, from: [185.1.2.3/32]}, {port: 2379, through: 2380, from: [185.1.2.3/32]}]}", nil},
		{"firewall off", good, "  network:", "  network:\n    firewall: {mode: off}", nil},
		{"firewall off, and what only an active one reads", good, "  network:", "  network:\n    firewall: {mode: off, trusted: [198.18.0.0/15], apiServerFrom: [185.1.2.0/24], allow: [{port: 30443, from: [0.0.0.0/0]}]}", []string{
			"19:36: spec.network.firewall.trusted: is read while the firewall is on or auto only, this one is off (remove it, or write mode: on)",
			"19:68: spec.network.firewall.apiServerFrom: is read while the firewall is on or auto only, this one is off (remove it, or write mode: on)",
			"19:91: spec.network.firewall.allow: is read while the firewall is on or auto only, this one is off (remove it, or write mode: on)",
		}},
		{"firewall neither on nor off", good, "  network:", "  network:\n    firewall: {mode: true}", []string{
			"19:22: spec.network.firewall.mode: true is a truth value to YAML, expected text (write it in quotes)",
		}},
		{"firewall that trusts everybody", good, "  network:", "  network:\n    firewall: {trusted: [0.0.0.0/0]}", []string{
			"19:26: spec.network.firewall.trusted[0]: 0.0.0.0/0 is everybody: the firewall would guard nothing (write mode: off, or name the ranges of your servers)",
		}},
		{"firewall with host bits", good, "  network:", "  network:\n    firewall: {apiServerFrom: [185.1.2.3/24]}", []string{
			"19:32: spec.network.firewall.apiServerFrom[0]: 185.1.2.3/24 has bits set beyond its length (write 185.1.2.0/24, or 185.1.2.3/32 for the one address)",
		}},
		{"firewall and the API server without an endpoint", staticFile, "  kubernetes:", "  network: {firewall: {apiServerFrom: [185.1.2.0/24]}}\n  kubernetes:", []string{
			"16:39: spec.network.firewall.apiServerFrom: there is no endpoint that it could be about (remove it, or open port 6443 with network.firewall.allow)",
		}},
		{"firewall opens what is not guarded", good, "  network:", "  network:\n    firewall: {allow: [{port: 22, from: [185.1.2.0/24]}, {port: 32000, through: 32768, from: [185.1.2.0/24]}]}", []string{
			"19:31: spec.network.firewall.allow[0].port: port 22 is not guarded: muster leaves every other port as it is (6443, 10250, 2379 to 2381, those of spec.ports, or 30000 to 32767)",
			"19:65: spec.network.firewall.allow[1].port: port 32768 is not guarded: muster leaves every other port as it is (6443, 10250, 2379 to 2381, those of spec.ports, or 30000 to 32767)",
		}},
		{"firewall opens backwards, to nobody", good, "  network:", "  network:\n    firewall: {allow: [{port: 30443, through: 30400, from: [185.1.2.0/24]}, {port: 30443}]}", []string{
			"19:47: spec.network.firewall.allow[0].through: 30400 is below the first port 30443 (the last port of the range, which includes it)",
			"19:77: spec.network.firewall.allow[1].from: is missing (such as from: [0.0.0.0/0])",
		}},
		{"empty file", good, good, "", []string{
			"1:1: the file is empty (`userdata init NAME` writes a cluster file to start from)",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			changed := strings.Replace(row.file, row.old, row.new, 1)
			if changed == row.file {
				t.Fatalf("%q is not in the file", row.old)
			}
			_, problems := Parse("c.yaml", []byte(changed))
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}
