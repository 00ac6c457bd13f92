package kubeadm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Where Kubernetes keeps what it knows of the directory (docs/formats.md). A
// kubelet may write to its own Node, so nothing of this stands there: in
// kube-system only administrators write.
const (
	leasePath   = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	mirrorPath  = "/api/v1/namespaces/kube-system/configmaps"
	directoryID = "muster-directory" // name of the Lease and of the ConfigMap

	annotationCA         = "muster.dev/ca-hash"
	annotationEpoch      = "muster.dev/epoch"
	annotationGeneration = "muster.dev/generation"
	annotationBeat       = "muster.dev/beat"
)

// leaseObject is coordination.k8s.io/v1 Lease, as far as it is used: no times,
// since clocks of different servers are never compared.
type leaseObject struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   objectMeta `json:"metadata"`
	Spec       struct {
		HolderIdentity string `json:"holderIdentity"`
	} `json:"spec"`
}

type objectMeta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// Lease reads the Lease of the directory; found is false when there is none.
func (a *API) Lease(ctx context.Context) (l plan.Lease, found bool, err error) {
	var o leaseObject
	err = a.call(ctx, "GET", leasePath+"/"+directoryID, nil, &o)
	if hasCode(err, http.StatusNotFound) {
		return plan.Lease{}, false, nil
	}
	if err == nil {
		l, err = o.lease()
	}
	if err != nil {
		return plan.Lease{}, false, fmt.Errorf("reading the Lease kube-system/%s: %w", directoryID, err)
	}
	return l, true, nil
}

func (o leaseObject) lease() (plan.Lease, error) {
	l := plan.Lease{CAHash: o.Metadata.Annotations[annotationCA], Holder: o.Spec.HolderIdentity, Version: o.Metadata.ResourceVersion}
	for key, value := range map[string]*uint64{annotationEpoch: &l.Epoch, annotationGeneration: &l.Generation, annotationBeat: &l.Beat} {
		n, err := strconv.ParseUint(o.Metadata.Annotations[key], 10, 62)
		if err != nil {
			return l, fmt.Errorf("its annotation %s is %q, expected a whole number; delete the Lease, and the control planes write it anew", key, o.Metadata.Annotations[key])
		}
		*value = n
	}
	return l, nil
}

// WriteLease creates the Lease, if it has no version, or replaces it, if it still
// has that version. written is false when another was faster.
func (a *API) WriteLease(ctx context.Context, l plan.Lease) (written bool, err error) {
	o := leaseObject{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}
	o.Spec.HolderIdentity = l.Holder
	o.Metadata = objectMeta{Name: directoryID, Namespace: "kube-system", ResourceVersion: l.Version, Annotations: map[string]string{
		annotationCA:         l.CAHash,
		annotationEpoch:      strconv.FormatUint(l.Epoch, 10),
		annotationGeneration: strconv.FormatUint(l.Generation, 10),
		annotationBeat:       strconv.FormatUint(l.Beat, 10),
	}}
	body, err := json.Marshal(o)
	if err != nil {
		return false, fmt.Errorf("writing the Lease: %w", err)
	}
	method, path := "PUT", leasePath+"/"+directoryID
	if l.Version == "" {
		method, path = "POST", leasePath
	}
	err = a.call(ctx, method, path, body, nil)
	switch {
	case hasCode(err, http.StatusConflict), l.Version != "" && hasCode(err, http.StatusNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("writing the Lease kube-system/%s: %w", directoryID, err)
	}
	return true, nil
}

type configMap struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Metadata   objectMeta         `json:"metadata"`
	Data       map[string]*string `json:"data"`
}

// Mirrored returns the records of members that Kubernetes keeps.
func (a *API) Mirrored(ctx context.Context) ([]member.Record, error) {
	var m configMap
	err := a.call(ctx, "GET", mirrorPath+"/"+directoryID, nil, &m)
	if hasCode(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the ConfigMap kube-system/%s: %w", directoryID, err)
	}
	out := make([]member.Record, 0, len(m.Data))
	for inst, text := range m.Data {
		var r member.Record
		if text == nil {
			continue
		}
		if err := json.Unmarshal([]byte(*text), &r); err != nil || r.Inst != inst {
			return nil, fmt.Errorf("reading the ConfigMap kube-system/%s: the entry %s is no record of that instance; remove the entry, and it is written anew while the directory lives",
				directoryID, inst)
		}
		out = append(out, r)
	}
	return out, nil
}

// Mirror adds records to those that Kubernetes keeps, or changes them, and takes
// those of the instances gone away. It leaves all others.
func (a *API) Mirror(ctx context.Context, records []member.Record, gone ...string) error {
	m := configMap{APIVersion: "v1", Kind: "ConfigMap", Metadata: objectMeta{Name: directoryID, Namespace: "kube-system"}, Data: map[string]*string{}}
	for _, inst := range gone {
		m.Data[inst] = nil // RFC 7386: null removes
	}
	for _, r := range records {
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("writing the record of %s: %w", r.Name, err)
		}
		text := string(data)
		m.Data[r.Inst] = &text
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing the records of members: %w", err)
	}
	// A merge, so that two writers of different records do not hinder each other.
	// It is created once; whoever comes second merges.
	merge := func() error { return a.call(ctx, "PATCH", mirrorPath+"/"+directoryID, body, nil) }
	if err = merge(); hasCode(err, http.StatusNotFound) {
		if err = a.call(ctx, "POST", mirrorPath, body, nil); hasCode(err, http.StatusConflict) {
			err = merge()
		}
	}
	if err != nil {
		return fmt.Errorf("writing the ConfigMap kube-system/%s: %w", directoryID, err)
	}
	return nil
}

func hasCode(err error, code int) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == code
}

// Lease reads the Lease through the API server of this control plane.
func (k *Kubeadm) Lease(ctx context.Context) (plan.Lease, bool, error) {
	api, err := k.admin()
	if err != nil {
		return plan.Lease{}, false, err
	}
	return api.Lease(ctx)
}

// WriteLease writes the Lease through the API server of this control plane.
func (k *Kubeadm) WriteLease(ctx context.Context, l plan.Lease) (bool, error) {
	api, err := k.admin()
	if err != nil {
		return false, err
	}
	return api.WriteLease(ctx, l)
}

// Mirrored reads the records of members through the API server of this control
// plane.
func (k *Kubeadm) Mirrored(ctx context.Context) ([]member.Record, error) {
	api, err := k.admin()
	if err != nil {
		return nil, err
	}
	return api.Mirrored(ctx)
}

// Mirror writes records of members through the API server of this control plane.
func (k *Kubeadm) Mirror(ctx context.Context, records []member.Record, gone ...string) error {
	api, err := k.admin()
	if err != nil {
		return err
	}
	return api.Mirror(ctx, records, gone...)
}

// OpenAdmin is the API server of the control plane whose files lie below root,
// with an administrator's rights.
func OpenAdmin(root string) (*API, error) { return (&Kubeadm{Root: root}).admin() }

// ClusterNodes lists the nodes as the directory needs them.
func (a *API) ClusterNodes(ctx context.Context) ([]plan.ClusterNode, error) {
	nodes, err := a.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]plan.ClusterNode, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, plan.ClusterNode{Name: n.Name, Address: n.InternalIP, ControlPlane: n.ControlPlane})
	}
	return out, nil
}
