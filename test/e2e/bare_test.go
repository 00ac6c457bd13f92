package e2e

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/test/rig"
	"github.com/mustermetal/muster/test/rig/machine"
)

// A server with Debian, cloud-init and nothing of Kubernetes becomes a node of what
// the lock file pins, while one mirror is dead, one gives other files and one stands
// still; and it needs none of them after a reboot. When they are all gone another server
// comes, and has everything from the first.
func TestBareServer(t *testing.T) {
	image := testImage(t)
	layers := image.Lower
	c := begin(t, rig.Image{Lower: layers[len(layers)-1:]}) // Debian's; no store of images
	s := c.mirrors(layers)
	c.servers = []*rig.Server{s.server}
	c.bootAll()
	c.eventually(3*time.Minute, "status to name the three bad mirrors", func() error {
		list, err := readStatus(c.ctx, s.server)
		if err != nil {
			return err
		}
		said := strings.Join(list[0].Preparation.Artefacts.Faults, "\n")
		for _, want := range []string{s.dead + ": dial tcp ", s.corrupt + ": it is another file: its sha256 is ", s.slow + ": too slow: "} {
			if !strings.Contains(said, want) {
				return fmt.Errorf("status does not say %q of the mirrors:\n%s", want, said)
			}
		}
		return nil
	})
	c.awaitReady(6 * time.Minute)
	s.isNode(c)
	p := c.status(s.server).Preparation
	t.Logf("%d artefacts, %d MB; the good mirror was asked %d times; faults: %q", p.Artefacts.Done, p.Artefacts.Bytes/1e6, s.asked.Load(), p.Artefacts.Faults)
	if p.Step != "" || p.Artefacts.Done != s.artefacts || p.Artefacts.Bytes != p.Artefacts.Size {
		t.Errorf("preparation ended as %+v, expected all of %d artefacts", p, s.artefacts)
	}
	before := s.asked.Load()
	c.must(s.server.Reboot(c.ctx))
	c.awaitReady(4 * time.Minute)
	if n := s.asked.Load() - before; n != 0 {
		t.Errorf("after a reboot the mirror was asked %d times, expected none", n)
	}
	testLateWithoutMirrors(t, c, s)
}

// A server comes later, when no mirror is left: it has everything from the server that
// is there, archives of images among it.
func testLateWithoutMirrors(t *testing.T, c *formation, s *site) {
	for _, stop := range s.stop {
		stop()
	}
	late := addWorker(c, "w1")
	c.servers = append(c.servers, late)
	c.must(late.Boot(c.ctx))
	c.awaitReady(6 * time.Minute)
	p := c.status(late).Preparation
	if p.Artefacts.Done != s.artefacts || p.Artefacts.Bytes != p.Artefacts.Size || len(p.Artefacts.Faults) > 0 {
		t.Errorf("preparation of the late server ended as %+v, expected all of %d artefacts without a fault", p, s.artefacts)
	}
	journal, err := late.Exec(c.ctx, "journalctl", "--no-pager", "-o", "cat", "-u", "muster")
	c.must(err)
	from := fmt.Sprintf("from=\"server %s\"", s.server.Addr)
	if got := strings.Count(journal, from); got != s.artefacts {
		t.Errorf("%d artefacts came %s, expected %d; the journal says\n%s", got, from, s.artefacts, journal)
	}
	out, err := s.server.Exec(c.ctx, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "nodes", "--no-headers")
	if err != nil || strings.Count(out, " Ready ") != 2 {
		t.Errorf("the nodes are (%v)\n%s", err, out)
	}
	t.Logf("the late server had %d MB from the one that was there", p.Artefacts.Bytes/1e6)
}

// All mirrors give other files: nothing is installed, and status says why.
func TestBareServerCorruptMirrors(t *testing.T) {
	image := testImage(t)
	layers := image.Lower
	c := begin(t, rig.Image{Lower: layers[len(layers)-1:]})
	s := c.mirrors(layers)
	s.spoilt.Store(true)
	c.servers = []*rig.Server{s.server}
	c.bootAll()
	c.eventually(4*time.Minute, "status to say that nothing can be had", func() error {
		list, err := readStatus(c.ctx, s.server)
		if err != nil {
			return err
		}
		for _, want := range []string{"kubelet cannot be had: ", s.good + "/dl.k8s.io/release/v1.36.3/bin/linux/amd64/kubelet: it is another file: its sha256 is "} {
			if !strings.Contains(list[0].Problem, want) {
				return fmt.Errorf("the problem is %q, expected %q in it", list[0].Problem, want)
			}
		}
		return nil
	})
	if out, err := s.server.Exec(c.ctx, "sh", "-c", "ls /usr/local/bin /usr/local/sbin /opt/cni/bin /var/lib/muster/artifacts"); err != nil || strings.Contains(out, "kube") || strings.Contains(out, "containerd") || strings.Contains(out, "runc") {
		t.Errorf("something was installed (%v):\n%s", err, out)
	}
	// The mirror is repaired, and ten minutes later it would be asked again; a restart
	// of the agent does not wait for that.
	s.spoilt.Store(false)
	if _, err := s.server.Exec(c.ctx, "systemctl", "restart", "muster"); err != nil {
		t.Fatal(err)
	}
	c.awaitReady(6 * time.Minute)
	s.isNode(c)
}

// isNode asks Kubernetes on the server itself: this rig's image has no kubectl.
func (s *site) isNode(c *formation) {
	c.t.Helper()
	c.eventually(time.Minute, "Kubernetes to have the node as it was pinned", func() error {
		out, err := s.server.Exec(c.ctx, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "nodes", "--no-headers", "-o", "wide")
		if err != nil {
			return err
		}
		for _, want := range []string{s.server.Name, " Ready ", "v1.36.3", "containerd://2.4.2"} {
			if !strings.Contains(strings.ReplaceAll(out, "containerd://v", "containerd://"), want) {
				return fmt.Errorf("%q has no %q", out, want)
			}
		}
		return nil
	})
}

// site is where one bare server gets everything.
type site struct {
	server                    *rig.Server
	dead, corrupt, slow, good string // base URLs
	asked                     atomic.Int64
	spoilt                    atomic.Bool // the good mirror gives other files too
	artefacts                 int
	stop                      []func() // of the mirrors
}

// mirrors serves what the image holds in the ToR's namespace, pins it with userdata
// lock, and adds a server whose user-data has the pins.
func (c *formation) mirrors(layers []string) *site {
	c.t.Helper()
	s := &site{}
	dir := c.t.TempDir()
	s.dead = c.base(8081)
	files := http.FileServer(http.Dir(dir))
	s.good = s.serve(c, 8084, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if s.spoilt.Load() {
			w = inverted{w}
		}
		files.ServeHTTP(w, r)
	}))
	s.corrupt = s.serve(c, 8082, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { files.ServeHTTP(inverted{w}, r) }))
	s.slow = s.serve(c, 8083, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000000")
		_, _ = w.Write([]byte("x"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))

	names := c.lay(dir, layers)
	s.artefacts = 7 + len(names)
	var images []string
	for _, n := range names {
		images = append(images, fmt.Sprintf(`{name: %s, urls: ["%s/%s.tar"]}`, n, s.good, n))
	}
	agent, err := os.ReadFile(binary(c.t, "bootstrap"))
	c.must(err)
	sum := sha256.Sum256(agent)
	c.must(os.WriteFile(filepath.Join(c.rig.Files(), "bootstrap"), agent, 0o755))
	spec := rig.Cluster{Servers: 1, ControlPlanes: 1, AgentSHA256: hex.EncodeToString(sum[:]), Artifacts: fmt.Sprintf(
		`{mirrors: ["%s"], architectures: [amd64], versions: {containerd: v2.4.2}, images: [%s]}`,
		strings.Join([]string{s.dead, s.corrupt, s.slow, s.good}, `", "`), strings.Join(images, ", "))}
	c.lock(dir, s.good, agent, spec)
	servers, err := c.rig.AddCluster(c.ctx, binary(c.t, "userdata"), spec)
	c.must(err)
	s.server = servers[0]
	return s
}

// lock runs userdata lock --from on a copy of the mirror by hosts.
func (c *formation) lock(dir, good string, agent []byte, spec rig.Cluster) {
	c.t.Helper()
	from := c.t.TempDir()
	c.must(os.Symlink(dir, filepath.Join(from, strings.TrimPrefix(good, "http://"))))
	c.put(filepath.Join(from, rig.MetadataAddr.String(), "files", "bootstrap"), agent, "%s\n")
	file, err := rig.ClusterFile(spec)
	c.must(err)
	path := filepath.Join(from, "cluster.yaml")
	c.must(os.WriteFile(path, file, 0o644))
	out, err := machine.Output(c.ctx, binary(c.t, "userdata"), "lock", "-f", path, "--lock", c.rig.LockFile(), "--from", from)
	c.must(err)
	c.t.Log(strings.TrimSpace(out))
}

// lay makes a mirror of the programs of the image, each as its project publishes it,
// and returns the names of the archives of images.
func (c *formation) lay(dir string, layers []string) (names []string) {
	c.t.Helper()
	program := func(name string) []byte {
		for _, l := range layers {
			if data, err := os.ReadFile(filepath.Join(l, name)); err == nil {
				return data
			}
		}
		c.t.Fatalf("the image holds no %s", name)
		return nil
	}
	for _, n := range []string{"kubeadm", "kubelet", "kubectl"} {
		c.put(filepath.Join(dir, "dl.k8s.io/release/v1.36.3/bin/linux/amd64", n), program("usr/local/bin/"+n), "%s\n")
	}
	const github = "github.com/"
	runc := program("usr/sbin/runc")
	sum := sha256.Sum256(runc)
	at := filepath.Join(dir, github+"opencontainers/runc/releases/download/v1.4.3")
	c.put(filepath.Join(at, "runc.amd64"), runc, "")
	c.must(os.WriteFile(filepath.Join(at, "runc.sha256sum"), fmt.Appendf(nil, "%x *runc.amd64\n", sum), 0o644))
	pack := func(file, suffix string, prefix string, programs map[string]string) {
		name := filepath.Join(dir, github, file)
		c.must(os.MkdirAll(filepath.Dir(name), 0o755))
		f, err := os.Create(name)
		c.must(err)
		hash := sha256.New()
		z, _ := gzip.NewWriterLevel(io.MultiWriter(f, hash), gzip.BestSpeed)
		w := tar.NewWriter(z)
		for n, from := range programs {
			data := program(from)
			c.must(w.WriteHeader(&tar.Header{Name: prefix + n, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}))
			_, err = w.Write(data)
			c.must(err)
		}
		c.must(errors.Join(w.Close(), z.Close(), f.Close()))
		c.must(os.WriteFile(name+suffix, fmt.Appendf(nil, "%x  %s\n", hash.Sum(nil), path.Base(file)), 0o644))
	}
	pack("containerd/containerd/releases/download/v2.4.2/containerd-2.4.2-linux-amd64.tar.gz", ".sha256sum", "bin/", map[string]string{
		"containerd": "usr/local/bin/containerd", "containerd-shim-runc-v2": "usr/local/bin/containerd-shim-runc-v2", "ctr": "usr/local/bin/ctr"})
	pack("kubernetes-sigs/cri-tools/releases/download/v1.36.0/crictl-v1.36.0-linux-amd64.tar.gz", ".sha256", "", map[string]string{"crictl": "usr/local/bin/crictl"})
	plugins := map[string]string{}
	for _, n := range []string{"bridge", "loopback", "ptp", "host-local", "portmap"} {
		plugins[n] = "opt/cni/bin/" + n
	}
	pack("containernetworking/plugins/releases/download/v1.9.1/cni-plugins-linux-amd64-v1.9.1.tgz", ".sha256", "./", plugins)
	return c.archives(dir, layers)
}

// archives lays those that the image's store was filled from.
func (c *formation) archives(dir string, layers []string) (names []string) {
	c.t.Helper()
	cache := filepath.Dir(filepath.Dir(layers[len(layers)-1]))
	found, err := filepath.Glob(filepath.Join(cache, "oci-*", "*.tar"))
	c.must(err)
	newest := map[string]os.FileInfo{}
	from := map[string]string{}
	for _, f := range found {
		info, err := os.Stat(f)
		c.must(err)
		name, _, _ := strings.Cut(filepath.Base(f), "_")
		if was := newest[name]; was == nil || info.ModTime().After(was.ModTime()) {
			newest[name], from[name] = info, f
		}
	}
	if len(from) != 7 {
		c.t.Fatalf("the cache holds archives of %d images, expected 7: %v", len(from), found)
	}
	for name, f := range from {
		c.must(os.Symlink(f, filepath.Join(dir, name+".tar")))
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// put writes a file and its checksum beside it, in the shape of format.
func (c *formation) put(name string, data []byte, format string) {
	c.t.Helper()
	c.must(os.MkdirAll(filepath.Dir(name), 0o755))
	c.must(os.WriteFile(name, data, 0o644))
	if sum := sha256.Sum256(data); format != "" {
		c.must(os.WriteFile(name+".sha256", fmt.Appendf(nil, format, hex.EncodeToString(sum[:])), 0o644))
	}
}

// base is the URL of a port at the metadata service's address.
func (c *formation) base(port uint16) string {
	return "http://" + netip.AddrPortFrom(rig.MetadataAddr, port).String()
}

// serve answers in the ToR's namespace: a socket belongs to the namespace in which it
// was made, whoever reads it.
func (s *site) serve(c *formation, port uint16, h http.Handler) string {
	c.t.Helper()
	type result struct {
		net.Listener
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		ns, err := os.Open(machine.NetnsPath(c.rig.ToR().Netns()))
		if err == nil {
			err = errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close())
		}
		var l net.Listener
		if err == nil {
			l, err = (&net.ListenConfig{}).Listen(context.WithoutCancel(c.ctx), "tcp", netip.AddrPortFrom(rig.MetadataAddr, port).String())
		}
		made <- result{l, err}
	}()
	r := <-made
	c.must(r.err)
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(r.Listener) }() // ends with Close
	s.stop = append(s.stop, func() { _ = server.Close() })
	c.t.Cleanup(func() { _ = server.Close() })
	return c.base(port)
}

// inverted turns every bit of a body.
type inverted struct{ http.ResponseWriter }

func (i inverted) Write(b []byte) (int, error) {
	turned := make([]byte, len(b))
	for j := range b {
		turned[j] = ^b[j]
	}
	return i.ResponseWriter.Write(turned)
}
