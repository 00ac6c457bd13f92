package test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	"gopkg.in/yaml.v3"
)

// lookAtUserData is at what each platform would get: the stand-ins keep what the
// programs in whose place they are would send.
func lookAtUserData(t *testing.T, dir string) {
	all := content(t, dir, "user-data")
	for name, want := range map[string]string{"sent/maas-4y3h7n": all, "sent/openstack-cp1": all, "sent/metal-w2": content(t, dir, "out/w2"), "sent/metal-cp1": content(t, dir, "out/cp1")} {
		if got := content(t, dir, name); got != want {
			t.Errorf("%s has %d bytes that are not the user-data, of %d", name, len(got), len(want))
		}
	}
	t.Run("NoCloud", func(t *testing.T) { testISO(t, dir) })
	t.Run("Tinkerbell", func(t *testing.T) { testHardware(t, dir, all) })
	t.Run("Terraform's language", func(t *testing.T) { testHCL(t, dir) })
	t.Run("Terraform", func(t *testing.T) { testTerraform(t, dir) })
}

func content(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func run(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CHECKPOINT_DISABLE=1") // Terraform asks nobody for news
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// testISO reads label and files as a kernel would.
func testISO(t *testing.T, dir string) {
	iso := content(t, dir, "cp1.iso")
	// The primary volume descriptor is in sector 16 of 2048 bytes (ECMA-119 8.4).
	const sector, id, idLength = 16 * 2048, 40, 32
	if label := strings.TrimSpace(iso[sector+id : sector+id+idLength]); iso[sector+1:sector+6] != "CD001" || label != "CIDATA" {
		t.Errorf("the disk is labelled %q, cloud-init looks for CIDATA", label)
	}
	run(t, dir, "xorriso", "-osirrox", "on", "-indev", "cp1.iso", "-extract", "/", "mounted")
	for _, name := range []string{"user-data", "meta-data"} {
		if got, want := content(t, dir, "mounted/"+name), content(t, dir, name); got != want {
			t.Errorf("%s on the disk has %d bytes that are not those of the file, %d", name, len(got), len(want))
		}
	}
}

// testHardware holds the example to Tinkerbell's definition.
func testHardware(t *testing.T, dir, want string) {
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	read := func(data string, into any) {
		t.Helper()
		if err := yaml.Unmarshal([]byte(data), into); err != nil {
			t.Fatal(err)
		}
	}
	var raw map[string]any
	read(content(t, "testdata/hardware", "tinkerbell.org_hardware.yaml"), &raw)
	asJSON, err := json.Marshal(raw)
	if err == nil {
		err = json.Unmarshal(asJSON, &crd)
	}
	if err != nil || len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != "v1alpha1" {
		t.Fatalf("the definition has not the one version v1alpha1: %v", err)
	}
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	spec := schema["properties"].(map[string]any)["spec"].(map[string]any)
	spec["additionalProperties"] = false // the API server drops what it does not know
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("hardware", schema); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile("hardware")
	if err != nil {
		t.Fatal(err)
	}
	example := content(t, dir, "cp1.hardware.yaml")
	var hardware, broken map[string]any
	read(example, &hardware)
	read(strings.Replace(example, "userData:", "userdata:", 1), &broken)
	if err := s.Validate(hardware); err != nil {
		t.Error(err)
	}
	if s.Validate(broken) == nil {
		t.Error("the schema takes userdata for userData, so it proves nothing")
	}
	if got := hardware["spec"].(map[string]any)["userData"]; got != want {
		t.Errorf("spec.userData is not the user-data:\n%v", got)
	}
}

// testHCL evaluates the example as Terraform does.
func testHCL(t *testing.T, dir string) {
	file := function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}}, Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			data, err := os.ReadFile(filepath.Join(dir, args[0].AsString()))
			return cty.StringVal(string(data)), err
		},
	})
	ctx := &hcl.EvalContext{
		Functions: map[string]function.Function{"file": file, "split": stdlib.SplitFunc, "trimspace": stdlib.TrimSpaceFunc, "jsondecode": stdlib.JSONDecodeFunc},
		Variables: map[string]cty.Value{"path": cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(".")})},
	}
	attributes := func(name, kind string, labels ...string) hcl.Attributes {
		t.Helper()
		f, problems := hclparse.NewParser().ParseHCLFile(filepath.Join(dir, name))
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		body, problems := f.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: kind, LabelNames: labels}}})
		if problems.HasErrors() || len(body.Blocks) != 1 {
			t.Fatal(name, problems)
		}
		all, problems := body.Blocks[0].Body.JustAttributes()
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		return all
	}
	value := func(a *hcl.Attribute) cty.Value {
		t.Helper()
		v, problems := a.Expr.Value(ctx)
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		return v
	}
	locals := attributes("servers.tf", "locals")
	ctx.Variables["local"] = cty.ObjectVal(map[string]cty.Value{"lines": value(locals["lines"])})
	ctx.Variables["local"] = cty.ObjectVal(map[string]cty.Value{"servers": value(locals["servers"])})
	device := attributes("devices.tf", "resource", "type", "name")
	count := 0
	for key, server := range value(device["for_each"]).AsValueMap() {
		count++
		ctx.Variables["each"] = cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(key), "value": server})
		if got := value(device["hostname"]).AsString(); got != key {
			t.Errorf("%s has hostname %q", key, got)
		}
		if got := value(device["user_data"]).AsString(); got != content(t, dir, "out/"+key) {
			t.Errorf("%s has another user_data than out/%s", key, key)
		}
	}
	if count != 5 {
		t.Errorf("%d devices, expected 5", count)
	}
}

// testTerraform lets the program itself read the lines. It needs no provider.
func testTerraform(t *testing.T, dir string) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("terraform is not installed")
	}
	module := t.TempDir()
	for name, text := range map[string]string{
		"servers.tf": content(t, dir, "servers.tf"), "servers.jsonl": content(t, dir, "servers.jsonl"),
		"output.tf": "output \"userdata\" {\n  value = { for name, s in local.servers : name => s.userData }\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, module, terraform, "init", "-no-color")
	run(t, module, terraform, "apply", "-no-color", "-auto-approve")
	cmd := exec.CommandContext(t.Context(), terraform, "output", "-json", "userdata")
	cmd.Dir = module
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 5 {
		t.Errorf("%d servers, expected 5", len(got))
	}
	for name, text := range got {
		if text != content(t, dir, "out/"+name) {
			t.Errorf("Terraform has another text for %s", name)
		}
	}
}
