package kubeadm

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/mustermetal/muster/pkg/plan"
)

// Cordon keeps new pods from a node.
func (k *Kubeadm) Cordon(ctx context.Context, node string) error {
	api, err := k.admin()
	if err != nil {
		return err
	}
	return api.cordon(ctx, node)
}

// Pods lists the pods on a node, in the order of the API server.
func (k *Kubeadm) Pods(ctx context.Context, node string) ([]plan.Pod, error) {
	api, err := k.admin()
	if err != nil {
		return nil, err
	}
	return api.pods(ctx, node)
}

// Evict asks a pod to end, as its disruption budget allows; one that is gone is none.
func (k *Kubeadm) Evict(ctx context.Context, p plan.Pod) error {
	api, err := k.admin()
	if err != nil {
		return err
	}
	return api.evict(ctx, p)
}

func (a *API) cordon(ctx context.Context, node string) error {
	err := a.call(ctx, http.MethodPatch, "/api/v1/nodes/"+url.PathEscape(node), []byte(`{"spec":{"unschedulable":true}}`), nil)
	if err != nil && !hasCode(err, http.StatusNotFound) {
		return fmt.Errorf("cordoning node %s: %w", node, err)
	}
	return nil
}

// podObject is a pod, as far as a drain must know it.
type podObject struct {
	Metadata struct {
		Namespace, Name   string
		Annotations       map[string]string
		DeletionTimestamp string
		OwnerReferences   []struct {
			Kind       string
			Controller bool
		}
	}
	Status struct{ Phase string }
}

func (o podObject) pod() plan.Pod {
	p := plan.Pod{
		Namespace: o.Metadata.Namespace, Name: o.Metadata.Name,
		Ended: o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed",
		Going: o.Metadata.DeletionTimestamp != "",
	}
	// The kubelet's mark on the API's copy of a static pod.
	_, p.Static = o.Metadata.Annotations["kubernetes.io/config.mirror"]
	for _, owner := range o.Metadata.OwnerReferences {
		if owner.Controller {
			p.Owner = owner.Kind
		}
	}
	return p
}

func (a *API) pods(ctx context.Context, node string) ([]plan.Pod, error) {
	var list struct{ Items []podObject }
	query := url.Values{"fieldSelector": {"spec.nodeName=" + node}}
	if err := a.call(ctx, http.MethodGet, "/api/v1/pods?"+query.Encode(), nil, &list); err != nil {
		return nil, fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	var out []plan.Pod
	for _, o := range list.Items {
		out = append(out, o.pod())
	}
	return out, nil
}

func (a *API) evict(ctx context.Context, p plan.Pod) error {
	// Kubernetes documentation, "API-initiated Eviction": policy/v1 since 1.22.
	body, err := json.Marshal(map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata": map[string]string{"namespace": p.Namespace, "name": p.Name},
	})
	if err != nil {
		return fmt.Errorf("evicting %s: %w", p, err)
	}
	path := "/api/v1/namespaces/" + url.PathEscape(p.Namespace) + "/pods/" + url.PathEscape(p.Name) + "/eviction"
	if err := a.call(ctx, http.MethodPost, path, body, nil); err != nil && !hasCode(err, http.StatusNotFound) {
		return err
	}
	return nil
}
