package speakers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// schemas are those of testdata/crd by "apiVersion kind".
type schemas map[string]*jsonschema.Schema

// readSchemas makes JSON schemas of the projects' definitions. A structural schema
// of OpenAPI v3 is one already, but for fields that it does not name: the API
// server drops those, and here they are an error.
func readSchemas(t *testing.T) schemas {
	t.Helper()
	files, err := filepath.Glob("testdata/crd/*.yaml")
	if err != nil || len(files) != 11 {
		t.Fatalf("%d definitions, expected 11: %v", len(files), err)
	}
	all := schemas{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd map[string]any
		if err := yaml.Unmarshal(data, &crd); err != nil {
			t.Fatal(file, err)
		}
		spec := crd["spec"].(map[string]any)
		kind := spec["names"].(map[string]any)["kind"].(string)
		for _, v := range spec["versions"].([]any) {
			version := v.(map[string]any)
			if version["served"] != true || version["deprecated"] == true {
				continue
			}
			all[spec["group"].(string)+"/"+version["name"].(string)+" "+kind] =
				compile(t, kind, version["schema"].(map[string]any)["openAPIV3Schema"])
		}
	}
	return all
}

func compile(t *testing.T, name string, schema any) *jsonschema.Schema {
	t.Helper()
	closeObjects(schema)
	data, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// closeObjects forbids what a schema does not name.
func closeObjects(x any) {
	switch x := x.(type) {
	case map[string]any:
		if _, named := x["properties"].(map[string]any); named && x["x-kubernetes-preserve-unknown-fields"] != true {
			if _, said := x["additionalProperties"]; !said {
				x["additionalProperties"] = false
			}
		}
		for _, v := range x {
			closeObjects(v)
		}
	case []any:
		for _, v := range x {
			closeObjects(v)
		}
	}
}

// decode reads a YAML stream as JSON has it.
func decode(t *testing.T, stream []byte) []map[string]any {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(stream))
	var out []map[string]any
	for {
		var x map[string]any
		if err := d.Decode(&x); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, plain.(map[string]any))
	}
}

// core are the kinds of Kubernetes itself, which no definition is published of.
var core = map[string]bool{
	"v1 Secret": true, "v1 Pod": true, "rbac.authorization.k8s.io/v1 Role": true, "rbac.authorization.k8s.io/v1 RoleBinding": true,
}

// check holds each object of a stream to its schema and returns what is wrong.
func (s schemas) check(t *testing.T, stream []byte) error {
	t.Helper()
	var errs []error
	for _, x := range decode(t, stream) {
		name := x["apiVersion"].(string) + " " + x["kind"].(string)
		schema := s[name]
		if schema == nil && !core[name] {
			t.Errorf("there is no schema for %s", name)
		} else if schema != nil {
			errs = append(errs, schema.Validate(x))
		}
		// A rule of Calico's that is written in CEL, which no JSON schema carries.
		if spec, _ := x["spec"].(map[string]any); x["kind"] == "BGPPeer" && spec["node"] != nil && spec["nodeSelector"] != nil {
			errs = append(errs, errors.New("node and nodeSelector cannot both be set"))
		}
	}
	return errors.Join(errs...)
}

// TestSchemasRefuse: the check can fail. Each row breaks a rendered object.
func TestSchemasRefuse(t *testing.T) {
	all := readSchemas(t)
	for _, row := range []struct{ services, old, new string }{
		{"metallb", "ebgpMultiHop: true", "ebgpMultihop: true"},
		{"metallb", "myASN: 65000", `myASN: "65000"`},
		{"metallb", "  ipAddressPools:", "  ipAddressPool:"},
		{"metallb", "autoAssign: false", "autoAssign: Manual"},
		{"calico", "sourceAddress: None", "sourceAddress: Private"},
		{"calico", "nodeSelector: '!has", "node: a\n  nodeSelector: '!has"},
		{"calico", "matchOperator: In", "operator: In"},
		{"calico", "allowedUses", "allowedUse"},
		{"calico", "serviceLoadBalancerIPs", "serviceLoadBalancerIP"},
		{"cilium", "ebgpMultihop: 5", "ebgpMultihop: true"},
		{"cilium", "ebgpMultihop: 5", "ebgpMultiHop: 5"},
		{"cilium", "holdTimeSeconds: 9", "holdTimeSeconds: 2"},
		{"cilium", "peerAddress: 169.254.255.1", "peerAddress: tor1"},
		{"cilium", "advertisementType: Service", "advertisementType: Services"},
		{"cilium", "blocks:", "cidrs:"},
	} {
		stream := rendered(t, fixture{services: row.services, controlPlane: "builtin", servers: pair()}.documents(t))
		if err := all.check(t, stream); err != nil {
			t.Fatalf("%s, as rendered: %v", row.services, err)
		}
		broken := strings.Replace(string(stream), row.old, row.new, 1)
		if broken == string(stream) {
			t.Errorf("%s: %q is not in what was rendered", row.services, row.old)
		} else if all.check(t, []byte(broken)) == nil {
			t.Errorf("%s: %q for %q passes", row.services, row.new, row.old)
		}
	}
}
