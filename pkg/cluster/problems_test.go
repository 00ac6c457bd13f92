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

func check(t *testing.T, file, old, new string, want []string) {
	t.Helper()
	changed := strings.Replace(file, old, new, 1)
	if changed == file {
		t.Fatalf("%q is not in the file", old)
	}
	_, problems := Parse("c.yaml", []byte(changed))
	if diff := cmp.Diff(want, render(problems)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
