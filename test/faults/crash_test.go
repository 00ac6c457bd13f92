package faults

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
)

// crashPoint is a moment on a server's way into the cluster, by what its disk has
// then. In a short run only the named ones.
type crashPoint struct {
	name  string
	on    string // the server, or the first control plane that comes there
	there func(*Server) bool
	short bool
}

// crashPoints are in the order of the boot. Those inside of kubeadm are few: the
// stand-in is not the real one, which test/e2e's table is about.
var crashPoints = []crashPoint{
	{"first state of the election", "cp1", has(layout.Elect + "/state.b"), false},
	{"CAs made beforehand", "cp1", has(layout.PKI + "/kubernetes/ca.key"), false},
	{"directory half made", "cp", has(layout.Directory + "/e0-g0.new"), false},
	{"directory made", "cp", has(layout.Directory + "/e0-g0/formed.json"), false},
	{"role taken", "cp", journaled(bootstrap.StepControlPlane, durable.Done), false},
	{"kubeadm init begun", "cp", journaled(kubeadm.StepInit, durable.Started), false},
	{"init: first certificate", "cp", has(layout.KubernetesPKI + "/apiserver.crt"), false},
	{"init: last manifest", "cp", has(layout.Manifests + "/kube-scheduler.yaml"), false},
	{"init: kubelet configured", "cp", has(layout.KubeletData + "/config.yaml"), false},
	{"init: etcd has data", "cp", has(layout.EtcdData + "/member"), false},
	{"init journaled, not sealed", "cp", journaled(kubeadm.StepInit, durable.Done), true},
	{"join: enrolled", "w1", has(layout.PKI + "/agent.crt"), false},
	{"join: kubeadm begun", "cp", journaled(kubeadm.StepJoin, durable.Started), true},
	{"join: etcd has data", "cp", both(journaled(kubeadm.StepJoin, durable.Started), has(layout.EtcdData+"/member")), false},
	{"join: first certificate", "cp", both(journaled(kubeadm.StepJoin, durable.Started), has(layout.KubernetesPKI+"/apiserver.crt")), false},
	{"join: kubelet.conf", "cp", both(journaled(kubeadm.StepJoin, durable.Started), has(layout.KubeletConf)), false},
	{"join journaled", "cp", journaled(kubeadm.StepJoin, durable.Done), false},
	{"worker: role taken", "w1", journaled(bootstrap.StepWorker, durable.Done), false},
	{"worker: kubeadm begun", "w1", journaled(kubeadm.StepJoin, durable.Started), false},
	{"worker: the CA's file", "w1", has(layout.KubernetesPKI + "/ca.crt"), true},
	{"worker: kubelet.conf", "w1", has(layout.KubeletConf), false},
	{"worker: journaled", "w1", journaled(kubeadm.StepJoin, durable.Done), false},
}

// TestCrashPoints takes the power from a server at a point: each ends in one cluster,
// by itself.
func TestCrashPoints(t *testing.T) {
	for _, p := range crashPoints {
		t.Run(p.name, func(t *testing.T) {
			if !p.short {
				variation(t)
			}
			if end, ok := t.Deadline(); ok && time.Until(end) < time.Minute {
				t.Skip("-timeout is too near for another one")
			}
			r := begin(t, 4, 3, "cp1", "cp2", "cp3", "w1")
			r.on()
			victim := r.reaches(p)
			r.must(victim.PowerLoss(r.ctx))
			r.must(victim.On(r.ctx))
			began := time.Now()
			r.formed()
			t.Logf("%s lost its power; all formed %.1f s after it was on again", victim.Name, time.Since(began).Seconds())
		})
	}
}

// reaches looks at the disks from outside, as often as it can.
func (r *trial) reaches(p crashPoint) *Server {
	r.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); r.pause(time.Millisecond) {
		for _, s := range r.those() {
			if strings.HasPrefix(s.Name, p.on) && p.there(s) {
				return s
			}
		}
	}
	r.Fatalf("%s: no %s came there within %v", p.name, p.on, patience)
	return nil
}

// disk is where this host sees a file of a server's state disk.
func (s *Server) disk(path string) string {
	for _, d := range stateDirs {
		if rest, ok := strings.CutPrefix(path, d.path+"/"); ok {
			return s.path("state", d.name, rest)
		}
	}
	return filepath.Join(s.path("root"), path)
}

func has(path string) func(*Server) bool {
	return func(s *Server) bool { _, err := os.Lstat(s.disk(path)); return err == nil }
}

func journaled(step string, event durable.Event) func(*Server) bool {
	return func(s *Server) bool {
		entries, err := durable.ReadJournal(s.disk(layout.Journal))
		return err == nil && durable.Last(entries, step) == event
	}
}

func both(facts ...func(*Server) bool) func(*Server) bool {
	return func(s *Server) bool {
		return !slices.ContainsFunc(facts, func(fact func(*Server) bool) bool { return !fact(s) })
	}
}
