package e2e

import (
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
)

// Texts are of kubeadm 1.36.3 (cmd/kubeadm/app, phases in the order of init.go and
// join.go) and of the agent's journal.

// initPoints are those of the first control plane.
var initPoints = []point{
	{"first state of the election", appears(layout.Elect + "/state.b")},
	{"CAs made beforehand", appears(layout.PKI + "/kubernetes/ca.key")},
	{"GO decided", says(layout.UnitAgent, "msg=decree phase=go")},
	{"directory half made", appears(layout.Directory + "/e0-g0.new")},
	{"directory made", appears(layout.Directory + "/e0-g0/formed.json")},
	{"role taken", journaled(bootstrap.StepControlPlane, durable.Done)},
	{"kubeadm init begun", journaled(kubeadm.StepInit, durable.Started)},
	{"init: first certificate", says(layout.UnitKubeadmInit, `Generating "apiserver" certificate`)},
	{"init: kubeconfigs", says(layout.UnitKubeadmInit, `[kubeconfig] Writing "super-admin.conf"`)},
	{"init: etcd's manifest", says(layout.UnitKubeadmInit, "[etcd] Creating static Pod manifest")},
	{"init: last manifest", says(layout.UnitKubeadmInit, `[control-plane] Creating static Pod manifest for "kube-scheduler"`)},
	{"init: kubelet started", says(layout.UnitKubeadmInit, "[kubelet-start] Starting the kubelet")},
	{"init: etcd's log begun", appears(layout.EtcdData + "/member/wal")},
	{"init: upload-config", says(layout.UnitKubeadmInit, "[upload-config] Storing")},
	{"init: mark-control-plane", says(layout.UnitKubeadmInit, "[mark-control-plane] Marking")},
	{"init: bootstrap-token", says(layout.UnitKubeadmInit, "[bootstrap-token] Creating")},
	{"init: kubelet-finalize", says(layout.UnitKubeadmInit, "[kubelet-finalize] Updating")},
	{"init: add-ons", says(layout.UnitKubeadmInit, "[addons] Applied essential addon: CoreDNS")},
	{"init: kubeadm has ended", says(layout.UnitKubeadmInit, "initialized successfully")},
	{"init journaled, not sealed", journaled(kubeadm.StepInit, durable.Done)},
	{"sealed", says(layout.UnitAgent, "msg=decree phase=sealed")},
}

// joinPoints are those of the second control plane: with one other, etcd has no
// quorum from its promotion on until it is back.
var joinPoints = []point{
	{"enrolled", appears(layout.PKI + "/agent.crt")},
	{"role taken", journaled(bootstrap.StepControlPlane, durable.Done)},
	{"CAs received", appears(layout.PKI + "/kubernetes/ca.key")},
	{"directory half joined", appears(layout.Directory + "/e0-g0/info.yaml")},
	{"kubeadm join begun", journaled(kubeadm.StepJoin, durable.Started)},
	{"join: preflight done", says(layout.UnitKubeadmJoin, "[certs] Using certificateDir")},
	{"join: last manifest but etcd's", says(layout.UnitKubeadmJoin, `[control-plane] Creating static Pod manifest for "kube-scheduler"`)},
	{"join: check-etcd", says(layout.UnitKubeadmJoin, "[check-etcd] Checking")},
	{"join: kubelet started", says(layout.UnitKubeadmJoin, "[kubelet-start] Starting the kubelet")},
	{"join: learner added", says(layout.UnitKubeadmJoin, "[etcd] Announced new etcd member")},
	{"join: learner has data", appears(layout.EtcdData + "/member/wal")},
	{"join: promoted", says(layout.UnitKubeadmJoin, "[etcd] Waiting for the new etcd member")},
	{"join: waiting for the kubelet's certificate", says(layout.UnitKubeadmJoin, "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap")},
	{"join: the kubelet has its certificate", appears(layout.KubeletData + "/pki/kubelet-client-current.pem")},
	{"join: its token removed", goes(layout.Kubernetes + "/bootstrap-kubelet.conf")},
	{"join: mark-control-plane", says(layout.UnitKubeadmJoin, "[mark-control-plane] Marking")},
	{"join: kubeadm has ended", says(layout.UnitKubeadmJoin, "This node has joined the cluster")},
	{"join journaled", journaled(kubeadm.StepJoin, durable.Done)},
}

// workerPoints are those of a worker.
var workerPoints = []point{
	{"role taken", journaled(bootstrap.StepWorker, durable.Done)},
	{"kubeadm join begun", journaled(kubeadm.StepJoin, durable.Started)},
	{"join: the CA's file", appears(layout.KubernetesPKI + "/ca.crt")},
	{"join: kubelet started", says(layout.UnitKubeadmJoin, "[kubelet-start] Starting the kubelet")},
	{"join: kubelet.conf, no certificate", appears(layout.KubeletConf)},
	{"join: the kubelet has its certificate", appears(layout.KubeletData + "/pki/kubelet-client-current.pem")},
	{"join: its token removed", goes(layout.Kubernetes + "/bootstrap-kubelet.conf")},
	{"join journaled, not ready", journaled(kubeadm.StepJoin, durable.Done)},
}

// handful is one formation with power losses, a pair on each control plane.
var handful = round{
	first:  pick(initPoints, "init: first certificate", "init journaled, not sealed"),
	second: pick(joinPoints, "join: its token removed"),
	worker: pick(workerPoints, "join: the CA's file"),
}

// pick takes points by their names.
func pick(from []point, names ...string) []point {
	var out []point
	for _, name := range names {
		for _, p := range from {
			if p.name == name {
				out = append(out, p)
			}
		}
	}
	if len(out) != len(names) {
		panic("test/e2e: a point of the handful has another name now")
	}
	return out
}
