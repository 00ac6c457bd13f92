package kubeadm

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

// A static pod is written once: the kubelet would start it anew.
func TestSetStaticPod(t *testing.T) {
	root, writes := t.TempDir(), 0
	k := &Kubeadm{Root: root, Write: func(path string, data []byte, perm fs.FileMode) error {
		writes++
		return os.WriteFile(path, data, perm)
	}}
	file := filepath.Join(root, layout.KubeVIP)
	if err := k.SetStaticPod(layout.KubeVIP, nil); err != nil {
		t.Fatal("nothing to remove:", err)
	}
	if err := k.SetStaticPod(layout.KubeVIP, []byte("a")); err == nil {
		t.Fatal("no error although the directory is missing")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	writes = 0
	for i, step := range []struct {
		content string
		writes  int
	}{{"a", 1}, {"a", 1}, {"b", 2}, {"", 2}, {"b", 3}} {
		var content []byte
		if step.content != "" {
			content = []byte(step.content)
		}
		if err := k.SetStaticPod(layout.KubeVIP, content); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if string(got) != step.content || (err == nil) != (content != nil) || writes != step.writes {
			t.Errorf("step %d: %q after %d writes (%v), expected %+v", i, got, writes, err, step)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the pod, which may hold passwords, is %v (%v)", info.Mode(), err)
	}
}

// after holds units back until something has ended.
type after struct {
	*host
	ended chan struct{}
}

func (a after) Stop(ctx context.Context, unit string) error {
	select {
	case <-a.ended:
	default:
		a.t.Errorf("%s was stopped before kube-vip had ended", unit)
	}
	return a.host.Stop(ctx, unit)
}

// A void server's kube-vip ends before the kubelet, which alone can end it. The
// listener is kube-vip; it goes when it is asked and its pod is no longer there.
func TestStandDownEndsKubeVIP(t *testing.T) {
	k, h := setUp(t)
	units := []string{layout.UnitKubeadmInit, layout.UnitKubeadmJoin, layout.UnitKubelet}
	if err := k.StandDown(t.Context()); err != nil || !slices.Equal(h.stopped, units) {
		t.Fatalf("without kube-vip: stopped %v (%v)", h.stopped, err)
	}
	h.leave(layout.KubeVIP, "a pod")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended, done := make(chan struct{}), make(chan struct{})
	k.kubeVIP, k.Units, h.stopped = l.Addr().String(), after{h, ended}, nil
	go func() {
		conn, err := l.Accept()
		if err == nil {
			if _, left := os.Stat(filepath.Join(h.root, layout.KubeVIP)); !errors.Is(left, fs.ErrNotExist) {
				t.Error("asked although the pod is still there")
			}
			err = conn.Close()
		}
		close(ended) // before it is refused: who sees that may stop the kubelet
		if err := errors.Join(err, l.Close()); err != nil {
			t.Error(err)
		}
		close(done)
	}()
	if err := k.StandDown(t.Context()); err != nil || !slices.Equal(h.stopped, units) {
		t.Errorf("stopped %v (%v)", h.stopped, err)
	}
	<-done
}

// Asked again, it does not take a kube-vip that still answers for one that ended:
// its pod is gone since the first time.
func TestStandDownAgain(t *testing.T) {
	k, h := setUp(t)
	k.Cluster.Spec.Network.BGP.ControlPlane = cluster.SpeakerKubeVIP
	h.leave(layout.KubeVIP, "a pod")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.kubeVIP = l.Addr().String()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := k.EndKubeVIP(ctx); err == nil || !strings.Contains(err.Error(), "reboot this server") {
			t.Errorf("kube-vip answers: %v", err)
		}
		cancel()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.EndKubeVIP(t.Context()); err != nil {
		t.Error(err)
	}
}
