package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

const plainUserData = `#cloud-config
locale: C.UTF-8
manage_etc_hosts: localhost
write_files:
- path: /etc/from-user-data
  permissions: '0640'
  content: laid down
runcmd:
- [touch, /var/lib/ran]
`

// image is what test servers boot; real servers are made only when asked for.
func image(t *testing.T) Image {
	t.Helper()
	if os.Getenv("MUSTER_E2E") == "" {
		t.Skip("MUSTER_E2E is not set: make e2e runs tests with real servers")
	}
	if os.Geteuid() != 0 {
		t.Skip("real servers need root")
	}
	cache, err := images.DefaultCache(os.Getenv("MUSTER_CACHE"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := images.Ensure(t.Context(), images.Options{Cache: cache, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	return Image(i)
}

// traces lists what rigs leave on a machine.
func traces(t *testing.T, name, dir string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{machine.NetnsPath(name) + "-*", "/sys/fs/cgroup/*/" + machine.CgroupParent + "/" + name + "-*", "/run/systemd/nspawn/propagate/" + name + "-*", dir} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	for what, argv := range map[string][]string{
		"mount": {"cat", "/proc/self/mountinfo"}, "loop": {"losetup", "-l", "--noheadings"}, "process": {"ps", "-eo", "args"},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, dir) {
				found = append(found, what+": "+strings.TrimSpace(line))
			}
		}
	}
	return found
}

func TestServer(t *testing.T) {
	img := image(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	name, dir := fmt.Sprintf("rigtest%d", os.Getpid()), filepath.Join(t.TempDir(), "rig")
	before := sysctls(t)
	r, err := New(ctx, Options{Name: name, Dir: dir, Image: img})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Destroy(context.Background(), dir, nil); err != nil {
			t.Error(err)
		}
		if left := traces(t, name, dir); len(left) > 0 {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		if diff := cmp.Diff(before, sysctls(t)); diff != "" {
			t.Errorf("settings of the machine (-before +after):\n%s", diff)
		}
	})
	s, err := r.Add(ServerOptions{Name: "one", Tags: []string{"muster-role=control-plane"}, UserData: []byte(plainUserData)})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := s.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("systemd answers after %v", time.Since(start))
	if err := s.WaitRunning(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("running after %v", time.Since(start))

	// In order: each uses the server that the one before left on.
	t.Run("cloud-init", func(t *testing.T) { testCloudInit(ctx, t, s) })
	t.Run("files and journal", func(t *testing.T) { testFiles(ctx, t, s) })
	t.Run("network", func(t *testing.T) { testNetwork(ctx, t, r, s) })
	t.Run("metadata", func(t *testing.T) { testMetadata(ctx, t, s) })
	t.Run("reboot", func(t *testing.T) { testReboot(ctx, t, s) })
	t.Run("power loss", func(t *testing.T) { testPowerLoss(ctx, t, s) })
	t.Run("power off", func(t *testing.T) { testPowerOff(ctx, t, s) })
	t.Run("another driver", func(t *testing.T) { testAnotherDriver(ctx, t, dir) })
}

func sysctls(t *testing.T) map[string]int {
	t.Helper()
	values := map[string]int{}
	for path := range machine.Raised {
		n, err := machine.ReadInt(path)
		if err != nil {
			t.Fatal(err)
		}
		values[path] = n
	}
	return values
}

// inside runs a program that must succeed.
func inside(ctx context.Context, t *testing.T, s *Server, argv ...string) string {
	t.Helper()
	out, err := s.Exec(ctx, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func testCloudInit(ctx context.Context, t *testing.T, s *Server) {
	if got := inside(ctx, t, s, "cat", "/etc/from-user-data"); got != "laid down" {
		t.Errorf("write_files wrote %q", got)
	}
	inside(ctx, t, s, "test", "-e", "/var/lib/ran")
	if got := inside(ctx, t, s, "hostname"); got != "one" {
		t.Errorf("hostname is %q; want one", got)
	}
	if got := inside(ctx, t, s, "cloud-init", "status"); got != "status: done" {
		t.Errorf("cloud-init says %q", got)
	}
}

func testFiles(ctx context.Context, t *testing.T, s *Server) {
	want := []byte("a\x00b\n")
	if err := s.WriteFile(ctx, "/opt/new dir/file", want, 0o640); err != nil {
		t.Fatal(err)
	}
	got, err := s.ReadFile(ctx, "/opt/new dir/file")
	if err != nil || string(got) != string(want) {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
	if mode := inside(ctx, t, s, "stat", "-c", "%a", "/opt/new dir/file"); mode != "640" {
		t.Errorf("mode is %s; want 640", mode)
	}
	inside(ctx, t, s, "systemd-run", "--wait", "--unit=say", "echo", "seen in the journal")
	journal, err := s.Journal(ctx, "say.service")
	if err != nil || !strings.Contains(journal, "seen in the journal") {
		t.Errorf("journal of say.service: %q, %v", journal, err)
	}
	if _, err := s.Exec(ctx, "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a failing program gives %v; want its exit status and what it said", err)
	}
}

func testNetwork(ctx context.Context, t *testing.T, r *Rig, s *Server) {
	reach := func() error {
		_, err := s.Exec(ctx, "ping", "-c1", "-W1", MetadataAddr.String())
		return err
	}
	if err := reach(); err != nil {
		t.Fatal(err)
	}
	hops, err := r.ToR().NextHops(ctx, s.Pods)
	if err != nil || len(hops) != 1 || hops[0] != s.Addr {
		t.Errorf("pods of %s are routed to %v, %v; want %v", s.Name, hops, err, s.Addr)
	}
	if err := s.Unplug(ctx); err != nil {
		t.Fatal(err)
	}
	if reach() == nil {
		t.Error("an unplugged server reaches the ToR")
	}
	if err := s.Plug(ctx); err != nil {
		t.Fatal(err)
	}
	// The kernel tells of a carrier within a second or so, as real ports do.
	soon, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := machine.Poll(soon, "a plugged server reaches the ToR", func() bool { return reach() == nil }); err != nil {
		t.Error(err)
	}
	for i := range Routers {
		hops, err := r.ToR().RouterNextHops(ctx, i, netip.PrefixFrom(ElasticIP, 32))
		if err != nil || len(hops) > 0 {
			t.Errorf("router %d sends the EIP, which nobody announces, to %v, %v", i, hops, err)
		}
	}
}

func testMetadata(ctx context.Context, t *testing.T, s *Server) {
	get := func(path string) (string, error) {
		return s.Exec(ctx, "curl", "-sS", "--fail-with-body", "--max-time", "3", MetadataURL+path)
	}
	document, err := get("/metadata")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Hostname string
		Tags     []string
		BGP      []struct {
			CustomerIP string `json:"customer_ip"`
		} `json:"bgp_neighbors"`
	}
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		t.Fatal(err)
	}
	if d.Hostname != "one" || len(d.Tags) != 1 || len(d.BGP) != 1 || d.BGP[0].CustomerIP != s.Addr.String() {
		t.Errorf("the metadata is not this server's: %+v", d)
	}
	if userData, err := get("/userdata"); err != nil || userData != plainUserData {
		t.Errorf("user-data is %q, %v", userData, err)
	}
	faults := []struct {
		fault metadata.Fault
		says  string // in the body, or curl's exit status
		fails bool
	}{
		{metadata.Fault{Kind: metadata.Absent}, "404", true},
		{metadata.Fault{Kind: metadata.Broken}, "500", true},
		{metadata.Fault{Kind: metadata.Truncated}, "bytes remaining", true},
		{metadata.Fault{Kind: metadata.Slow, Delay: time.Minute}, "timed out", true},
		{metadata.Fault{Kind: metadata.NoBGP}, "", false},
		{metadata.Fault{}, "bgp_neighbors", false},
	}
	for _, f := range faults {
		if err := s.FailMetadata(f.fault); err != nil {
			t.Fatal(err)
		}
		out, err := get("/metadata")
		if (err != nil) != f.fails || !strings.Contains(out+fmt.Sprint(err), f.says) {
			t.Errorf("%+v: got %q, %v; want failure %v that says %q", f.fault, out, err, f.fails, f.says)
		}
		if f.fault.Kind == metadata.NoBGP && strings.Contains(out, "bgp_neighbors") {
			t.Errorf("%+v: the document has bgp_neighbors", f.fault)
		}
	}
}

func testReboot(ctx context.Context, t *testing.T, s *Server) {
	inside(ctx, t, s, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	before := inside(ctx, t, s, "cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id")
	if err := s.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitRunning(ctx); err != nil {
		t.Fatal(err)
	}
	after := inside(ctx, t, s, "cat", "/proc/sys/kernel/random/boot_id", "/etc/machine-id")
	if strings.Split(before, "\n")[1] != strings.Split(after, "\n")[1] {
		t.Errorf("boot and machine id were %q, are %q; want the same machine", before, after)
	}
	if lo := inside(ctx, t, s, "ip", "addr", "show", "lo"); strings.Contains(lo, "192.0.2.1") {
		t.Errorf("an address survived the reboot: %s", lo)
	}
	if boots := inside(ctx, t, s, "sh", "-c", "journalctl --list-boots --no-pager | grep -c '^ *-*[0-9]'"); boots != "2" {
		t.Errorf("the journal knows %s boots; want 2", boots)
	}
	inside(ctx, t, s, "ping", "-c1", "-W2", MetadataAddr.String())
}

// A program that fsyncs keeps its file, one that does not loses it: a build of the
// agent without fsync can be told from one with it.
func testPowerLoss(ctx context.Context, t *testing.T, s *Server) {
	const write = `import os,sys
for name, sync in (("kept", True), ("lost", False)):
    fd = os.open("/var/lib/muster/" + name, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x" * 100000)
    if sync:
        os.fsync(fd)
d = os.open("/var/lib/muster", os.O_RDONLY)
os.fsync(d)
fd = os.open("/var/lib/muster/kept", os.O_WRONLY | os.O_APPEND)
os.write(fd, b"y" * 1000)
`
	inside(ctx, t, s, "python3", "-c", write)
	if size := inside(ctx, t, s, "stat", "-c", "%s", "/var/lib/muster/kept", "/var/lib/muster/lost"); size != "101000\n100000" {
		t.Fatalf("before the power loss the files have sizes %q", size)
	}
	start := time.Now()
	if err := s.PowerLoss(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("power loss took %v", time.Since(start))
	if s.Running() {
		t.Fatal("the server runs without power")
	}
	if _, err := s.Exec(ctx, "true"); !errors.Is(err, errOff) {
		t.Errorf("a server without power says %v", err)
	}
	if err := s.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if size := inside(ctx, t, s, "stat", "-c", "%s", "/var/lib/muster/kept"); size != "100000" {
		t.Errorf("the fsynced file has %s bytes; want the 100000 before fsync and none after", size)
	}
	if size := inside(ctx, t, s, "stat", "-c", "%s", "/var/lib/muster/lost"); size != "0" {
		t.Errorf("the file without fsync has %s bytes; want none", size)
	}
}

func testPowerOff(ctx context.Context, t *testing.T, s *Server) {
	inside(ctx, t, s, "sh", "-c", "echo hello > /var/lib/etcd/written")
	if err := s.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if s.Running() {
		t.Fatal("the server runs after it was switched off")
	}
	if err := s.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if got := inside(ctx, t, s, "cat", "/var/lib/etcd/written"); got != "hello" {
		t.Errorf("after a clean shutdown the file holds %q", got)
	}
}

func testAnotherDriver(ctx context.Context, t *testing.T, dir string) {
	r, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Server("one")
	if err != nil {
		t.Fatal(err)
	}
	if got := inside(ctx, t, s, "hostname"); got != "one" {
		t.Errorf("hostname is %q; want one", got)
	}
	if _, err := r.Server("two"); err == nil {
		t.Error("there is a server that nobody added")
	}
	if _, err := New(ctx, Options{Name: "other", Dir: dir}); err == nil {
		t.Error("a second rig in the same directory was made")
	}
	if _, err := Open(t.TempDir(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory gives %v", err)
	}
}
