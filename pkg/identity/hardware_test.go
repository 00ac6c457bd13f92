package identity

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/device"
)

// link adds a link to a file system in memory: name, type, addr_assign_type,
// address, then further files as NAME=CONTENT.
func link(root fstest.MapFS, name, kind, assigned, mac string, more ...string) {
	files := map[string]string{"type": kind, "addr_assign_type": assigned, "address": mac, "uevent": "INTERFACE=" + name + "\nIFINDEX=3"}
	for _, m := range more {
		file, content, _ := strings.Cut(m, "=")
		files[file] = content
	}
	for file, content := range files {
		root["sys/class/net/"+name+"/"+file] = &fstest.MapFile{Data: []byte(content + "\n")}
	}
}

func TestReadHardware(t *testing.T) {
	root := fstest.MapFS{"sys/class/dmi/id/product_uuid": {Data: []byte("4c4c4544-0050-3510-8052-b4c04f564433\n")}}
	link(root, "lo", "772", "0", "00:00:00:00:00:00")
	link(root, "eth0", "1", "0", "40:a6:b7:74:9f:10", "device/vendor=0x8086")
	link(root, "bond0", "1", "3", "40:a6:b7:74:9f:11", "uevent=DEVTYPE=bond")
	link(root, "eth1", "1", "2", "40:a6:b7:74:9f:11", "device/vendor=0x8086", "bonding_slave/perm_hwaddr=40:a6:b7:74:9f:11")
	link(root, "eth2", "1", "2", "40:a6:b7:74:9f:11", "device/vendor=0x8086", "bonding_slave/perm_hwaddr=40:a6:b7:74:9f:12")
	link(root, "eth3", "1", "0", "40:a6:b7:74:9f:13", "device/vendor=0x8086", "brport/state=3")
	link(root, "eth0v0", "1", "3", "06:00:00:00:00:01", "device/vendor=0x8086", "device/physfn/vendor=0x8086")
	link(root, "eth0.7", "1", "0", "40:a6:b7:74:9f:10", "uevent=DEVTYPE=vlan")
	link(root, "usb0", "1", "0", "b0:3a:f2:b6:05:9f", "device/uevent=DEVTYPE=usb_interface\nDRIVER=rndis_host\nPRODUCT=b1f/3ee/1")
	link(root, "eth4", "1", "0", "40:a6:b7:74:9f:14", "device/uevent=DRIVER=r8152")
	link(root, "ib0", "32", "0", "80:00:02:08:fe:80:00:00")
	link(root, "cali1", "1", "3", "ee:ee:ee:ee:ee:ee")
	link(root, "veth1", "1", "1", "1e:00:00:00:00:01")
	link(root, "veth2", "1", "3", "1e:00:00:00:00:02", "brport/state=3")
	link(root, "cni0", "1", "3", "1e:00:00:00:00:03", "uevent=DEVTYPE=bridge")
	link(root, "host0", "1", "3", "02:10:00:00:00:01")
	got, err := ReadHardware(root)
	if err != nil {
		t.Fatal(err)
	}
	want := device.Hardware{UUID: "4c4c4544-0050-3510-8052-b4c04f564433", MACs: []string{
		"40:a6:b7:74:9f:10", "40:a6:b7:74:9f:11", "40:a6:b7:74:9f:12", "40:a6:b7:74:9f:13", "40:a6:b7:74:9f:14",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// A container has no port; what its host gave it on purpose is its card.
	container := fstest.MapFS{}
	for name, file := range root {
		if strings.Contains(name, "/veth") || strings.Contains(name, "/host0/") || strings.Contains(name, "/cni0/") {
			container[name] = file
		}
	}
	if got, err := ReadHardware(container); err != nil || !slices.Equal(got.MACs, []string{"02:10:00:00:00:01"}) {
		t.Errorf("a container: %v, %v", got.MACs, err)
	}

	if _, err := ReadHardware(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "listing network links") {
		t.Errorf("no sysfs: %v", err)
	}
	delete(root, "sys/class/dmi/id/product_uuid")
	if got, err := ReadHardware(root); err != nil || got.UUID != "" {
		t.Errorf("without DMI: %q, %v", got.UUID, err)
	}
}

// The real sysfs of a network namespace with what a test server and a node with
// pods have.
func TestReadHardwareOfKernel(t *testing.T) {
	name := fmt.Sprintf("identity-hw-%d", os.Getpid()) // two runs at once do not meet
	if os.Getenv("IDENTITY_TEST_IN_NETNS") != "" {
		root, err := os.OpenRoot("/")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		h, err := ReadHardware(root.FS())
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(h.MACs); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	ip("netns", "add", name)
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v\n%s", err, out)
		}
	})
	in := func(args ...string) { t.Helper(); ip(append([]string{"-n", name}, args...)...) }
	in("link", "add", "host0", "address", "02:10:00:00:00:01", "type", "veth", "peer", "name", "tor0")
	in("link", "add", "cni0", "address", "02:10:00:00:00:02", "type", "bridge")
	in("link", "add", "pod1", "address", "02:10:00:00:00:03", "type", "veth", "peer", "name", "pod1p")
	in("link", "set", "pod1", "master", "cni0")
	in("link", "add", "vx0", "address", "02:10:00:00:00:04", "type", "vxlan", "id", "7", "dstport", "4789")
	cmd := exec.Command("ip", "netns", "exec", name, os.Args[0], "-test.run=^TestReadHardwareOfKernel$")
	cmd.Env = append(os.Environ(), "IDENTITY_TEST_IN_NETNS=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	if first != `["02:10:00:00:00:01"]` {
		t.Errorf("MACs = %s; want that of host0 alone", first)
	}
}
