package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// deployed is a workload whose pods have these tolerations.
func deployed(kind, name, tolerations string) string {
	return "apiVersion: apps/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: kube-system}\n" +
		"spec: {template: {spec: {tolerations: " + tolerations + "}}}\n"
}

// TestCloudProblems: what keeps a cluster with an external cloud provider from
// ever starting a pod. The lines of spec.kubernetes begin with 18.
func TestCloudProblems(t *testing.T) {
	const (
		all  = `[{operator: Exists}]`
		none = `[{key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}]`
	)
	taint := func(rest string) string {
		return "[{key: node.cloudprovider.kubernetes.io/uninitialized, " + rest + "}]"
	}
	files := map[string]string{
		"map.yaml":    configMap,
		"ccm.yaml":    configMap + "---\n" + deployed("Deployment", "ccm", taint(`value: "true", effect: NoSchedule`)),
		"exists.yaml": deployed("DaemonSet", "ccm", taint("operator: Exists")),
		"list.yaml":   "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(deployed("Deployment", "ccm", all)), "\n", "\n  ") + "\n",
		"kept.yaml":   deployed("Deployment", "ccm", none) + "---\n" + deployed("Deployment", "ccm", taint(`value: "false"`)) + "---\n" + deployed("Deployment", "ccm", taint(`operator: Exists, effect: NoExecute`)),
		"cni.yaml":    deployed("DaemonSet", "cni", all) + "---\n" + deployed("Deployment", "controllers", none),
		"metal.yaml":  deployed("Deployment", "ccm", all) + "# image: quay.io/equinix-oss/cloud-provider-equinix-metal:v3.8.1\n",
	}
	read := func(path string) ([]byte, error) { return []byte(files[path]), nil }
	for _, row := range []struct {
		name, kubernetes, addons string
		want                     []string
	}{
		{"an add-on", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: cni, file: cni.yaml, wait: [{rollout: daemonset/cni, namespace: kube-system}]}, {name: ccm, file: ccm.yaml, wait: [{rollout: deployment/ccm, namespace: kube-system}]}]", nil},
		{"tolerates by key", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: exists.yaml}]", nil},
		{"in a list", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: list.yaml}]", nil},
		{"an add-on that is read on servers", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: /usr/share/ccm.yaml}]", nil},
		{"by hand", "cloudProvider: external\n    cloudController: {manual: true}", "[]", nil},
		{"another provider", "cloudProvider: equinixmetal\n    cloudController: {manual: true}", "[]", []string{
			`18:20: spec.kubernetes.cloudProvider: "equinixmetal" is not allowed (allowed: external)`,
		}},
		{"nobody", "cloudProvider: external\n    cloudController: {}", "[{name: ccm, file: ccm.yaml}]", []string{
			"18:20: spec.kubernetes.cloudProvider: nothing says who runs a cloud controller manager, and without one every node keeps the taint node.cloudprovider.kubernetes.io/uninitialized: no pod starts there, CoreDNS among them (cloudController: {addon: NAME} names the element of addons that has the manager, {manual: true} says that you install it; or remove cloudProvider)",
		}},
		{"both", "cloudProvider: external\n    cloudController: {manual: true, addon: ccm}", "[{name: ccm, file: ccm.yaml}]", []string{
			"19:22: spec.kubernetes.cloudController: says addon and manual, which contradict each other (keep one of them)",
		}},
		{"a manager for nothing", "cloudController: {addon: ccm}", "[{name: ccm, file: ccm.yaml}]", []string{
			"18:22: spec.kubernetes.cloudController: is read with cloudProvider: external only (remove it, or write cloudProvider: external)",
		}},
		{"no such add-on", "cloudProvider: external\n    cloudController: {addon: ccn}", "[{name: ccm, file: ccm.yaml}]", []string{
			`19:30: spec.kubernetes.cloudController.addon: no element of addons is called "ccn" (did you mean ccm?)`,
		}},
		{"no add-ons", "cloudProvider: external\n    cloudController: {addon: ccm}", "[]", []string{
			`19:30: spec.kubernetes.cloudController.addon: no element of addons is called "ccm" (add it to addons, or write {manual: true})`,
		}},
		{"no pods", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: map.yaml}]", []string{
			`19:30: spec.kubernetes.cloudController.addon: add-on ccm has no Deployment, DaemonSet or StatefulSet whose pods tolerate node.cloudprovider.kubernetes.io/uninitialized, which is on every node until the manager runs (give its pods the toleration {key: node.cloudprovider.kubernetes.io/uninitialized, value: "true", effect: NoSchedule})`,
		}},
		{"kept out", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: kept.yaml}]", []string{
			`19:30: spec.kubernetes.cloudController.addon: add-on ccm has no Deployment, DaemonSet or StatefulSet whose pods tolerate node.cloudprovider.kubernetes.io/uninitialized, which is on every node until the manager runs (give its pods the toleration {key: node.cloudprovider.kubernetes.io/uninitialized, value: "true", effect: NoSchedule})`,
		}},
		{"a wait before it", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: cni, file: cni.yaml, wait: [{rollout: daemonset/cni, namespace: kube-system}, {condition: Available, of: deployment/controllers, namespace: kube-system}]}, {name: ccm, file: ccm.yaml}]", []string{
			"23:97: spec.addons[0].wait[1]: the wait never ends: these pods do not tolerate node.cloudprovider.kubernetes.io/uninitialized, which add-on ccm takes away, and that comes after the wait (put ccm before this add-on in the list, or wait for nothing that the taint keeps out)",
		}},
		{"a wait after it", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: ccm.yaml}, {name: cni, file: cni.yaml, wait: [{rollout: deployment/controllers, namespace: kube-system}]}]", nil},
		{"a service that is gone", "cloudProvider: external\n    cloudController: {addon: ccm}", "[{name: ccm, file: metal.yaml}]", []string{
			"19:30: warning: spec.kubernetes.cloudController.addon: this manager asks the API of Equinix Metal, which was shut down on 2026-06-30: it takes the taint off no node (its project is archived)",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := strings.Replace(good, "  network:", "    "+row.kubernetes+"\n  network:", 1) + "  addons: " + row.addons + "\n"
			c, problems := ParseBeside("c.yaml", []byte(file), Beside{Read: read})
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if Err(problems) != nil {
				return
			}
			// A server has the add-ons in its own file and must not judge otherwise.
			c.Secret = Secret(strings.Repeat("A", 43) + "=")
			data, err := Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, problems = ParseServer("cluster.yaml", data); Err(problems) != nil {
				t.Errorf("on a server: %v\n%s", problems, data)
			}
		})
	}
}
