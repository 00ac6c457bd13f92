package kubeadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/speakers"
)

// SetStaticPod gives the kubelet of this server a pod to run, or, without content,
// takes it away. What stands there already is not written again: the kubelet would
// start the pod anew.
func (k *Kubeadm) SetStaticPod(manifest string, content []byte) error {
	old, err := os.ReadFile(k.path(manifest))
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("reading the static pod: %w", err)
	case content == nil && err == nil:
		if err := os.Remove(k.path(manifest)); err != nil {
			return fmt.Errorf("removing the static pod: %w", err)
		}
		return nil
	case content == nil || err == nil && bytes.Equal(old, content):
		return nil
	}
	return k.put(manifest, content, 0o600) // its environment may hold passwords
}

// kubeVIPDeadline is above the half minute that the kubelet gives a pod to end.
const kubeVIPDeadline = 40 * time.Second

// EndKubeVIP takes kube-vip's pod away and returns when it has ended, which
// withdraws its route. The kubelet must run on meanwhile: it is the kubelet that
// ends the pod, and containers outlive it.
func (k *Kubeadm) EndKubeVIP(ctx context.Context) error {
	_, err := os.Stat(k.path(layout.KubeVIP))
	if errors.Is(err, fs.ErrNotExist) && k.Cluster.Spec.Network.BGP.ControlPlane != cluster.SpeakerKubeVIP {
		return nil
	}
	if err := k.SetStaticPod(layout.KubeVIP, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kubeVIPDeadline)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", k.kubeVIPAddress())
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err == nil {
			_ = conn.Close() // it was opened to see whether somebody answers
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kube-vip still answers at %s, %s after its pod was taken away, and may announce the Elastic IP: reboot this server", k.kubeVIPAddress(), kubeVIPDeadline)
		case <-tick.C:
		}
	}
}

func (k *Kubeadm) kubeVIPAddress() string {
	if k.kubeVIP != "" {
		return k.kubeVIP
	}
	return speakers.KubeVIPMetrics
}
