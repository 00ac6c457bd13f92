package cluster

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// CloudExternal is the one value of Kubernetes.CloudProvider.
const CloudExternal = "external"

// CloudController says where the cloud controller manager comes from that
// cloudProvider: external needs. Exactly one field is set.
type CloudController struct {
	// Addon is the name of the element of addons that has it.
	Addon string `yaml:"addon,omitempty" example:"ccm"`
	// Manual says that you install it yourself once the API server answers.
	Manual bool `yaml:"manual,omitempty"`
}

// uninitialized is the taint (NoSchedule, value true) that a kubelet with
// --cloud-provider=external puts on its new node and only a cloud controller manager
// takes away. Source: k8s.io/cloud-provider/api, TaintExternalCloudProvider.
const uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// cloud checks that somebody takes the taint away, and that nothing that muster
// waits for before that is kept out by it. The add-ons' files are read by now.
func (v *validator) cloud() {
	const provider, controller = "spec.kubernetes.cloudProvider", "spec.kubernetes.cloudController"
	given := v.Spec.Kubernetes.CloudController
	switch {
	case v.Spec.Kubernetes.CloudProvider == "":
		if given != (CloudController{}) && v.fine(provider) {
			v.errorf(controller, "remove it, or write cloudProvider: external", "is read with cloudProvider: external only")
		}
	case given.Addon != "" && given.Manual:
		v.errorf(controller, "keep one of them", "says addon and manual, which contradict each other")
	case given.Manual:
	case given.Addon == "":
		if v.fine(controller, controller+".addon", controller+".manual") {
			v.errorf(provider, "cloudController: {addon: NAME} names the element of addons that has the manager, {manual: true} says that you install it; or remove cloudProvider",
				"nothing says who runs a cloud controller manager, and without one every node keeps the taint %s: no pod starts there, CoreDNS among them", uninitialized)
		}
	default:
		v.cloudAddon(controller+".addon", given.Addon)
	}
}

// cloudAddon checks the add-on that has the manager and those that come before it.
func (v *validator) cloudAddon(p, name string) {
	var names []string
	for _, a := range v.Spec.Addons {
		names = append(names, a.Name)
	}
	at := slices.Index(names, name)
	if at < 0 {
		hint := "add it to addons, or write {manual: true}"
		if near := nearest(name, names); near != "" {
			hint = "did you mean " + near + "?"
		}
		v.errorf(p, hint, "no element of addons is called %q", abbreviate(name))
		return
	}
	if own := v.Spec.Addons[at]; own.Inline != "" {
		if strings.Contains(own.Inline, "cloud-provider-equinix-metal") {
			v.warnf(p, "its project is archived", "this manager asks the API of Equinix Metal, which was shut down on 2026-06-30: it takes the taint off no node")
		}
		if !slices.ContainsFunc(workloads(own.Inline), workload.starts) {
			v.errorf(p, "give its pods the toleration {key: "+uninitialized+", value: \"true\", effect: NoSchedule}",
				"add-on %s has no Deployment, DaemonSet or StatefulSet whose pods tolerate %s, which is on every node until the manager runs", name, uninitialized)
		}
	}
	var kept []string // what the taint keeps out, as a wait names it
	for _, a := range v.Spec.Addons[:at+1] {
		for _, w := range workloads(a.Inline) {
			if !w.starts() {
				kept = append(kept, w.ref())
			}
		}
	}
	for i, a := range v.Spec.Addons[:at+1] {
		for j, w := range a.Wait {
			if !slices.Contains(kept, w.Namespace+" "+w.Rollout) && !slices.Contains(kept, w.Namespace+" "+w.Of) {
				continue
			}
			v.errorf(index(index("spec.addons", i)+".wait", j), "put "+name+" before this add-on in the list, or wait for nothing that the taint keeps out",
				"the wait never ends: these pods do not tolerate %s, which add-on %s takes away, and that comes after the wait", uninitialized, name)
		}
	}
}

// workload is the part of a Deployment, DaemonSet or StatefulSet that says on
// which nodes its pods start.
type workload struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Template struct {
			Spec struct {
				Tolerations []struct{ Key, Operator, Value, Effect string }
			}
		}
	}
}

// ref names it with its namespace, as a wait does.
func (w workload) ref() string {
	return w.Metadata.Namespace + " " + strings.ToLower(w.Kind) + "/" + w.Metadata.Name
}

// starts says that the taint does not keep the pods out.
func (w workload) starts() bool {
	for _, t := range w.Spec.Template.Spec.Tolerations {
		key := t.Key == uninitialized || t.Key == "" && t.Operator == "Exists"
		value := t.Operator == "Exists" || t.Value == "true"
		if key && value && (t.Effect == "" || t.Effect == "NoSchedule") {
			return true
		}
	}
	return false
}

// workloads are those of manifests that were found to be Kubernetes objects; what
// is spelt so that its pods cannot be read is left out.
func workloads(text string) []workload {
	var found []workload
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var doc yaml.Node
		if dec.Decode(&doc) != nil { // its end; what is no YAML was said already
			return found
		}
		var list struct{ Items []yaml.Node }
		objects := []yaml.Node{doc}
		if doc.Decode(&list) == nil && len(list.Items) > 0 {
			objects = list.Items
		}
		for _, o := range objects {
			var kind struct{ Kind string }
			var w workload
			if o.Decode(&kind) == nil && slices.Contains([]string{"Deployment", "DaemonSet", "StatefulSet"}, kind.Kind) && o.Decode(&w) == nil {
				found = append(found, w)
			}
		}
	}
}
