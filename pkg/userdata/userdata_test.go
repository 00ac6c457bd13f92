package userdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

var update = flag.Bool("update", false, "write golden files anew")

const clusterFile = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: k8s-bgp}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://169.254.169.254"}
  servers: {expect: 5, controlPlanes: 3, eligible: {tag: muster-role}}
  discovery: [{static: [10.99.14.9, 10.99.14.11]}]
  agent:
    urls: ["https://mirror-a.example.net/bootstrap_linux_ARCH", "http://10.99.0.1/bootstrap_linux_ARCH?x=1&y=2"]
    sha256:
      amd64: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
      arm64: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
  kubernetes:
    version: v1.36.3
    endpoint: 147.75.194.92:6443
  network:
    elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]
`

// load parses a cluster file and adds a secret.
func load(t testing.TB, file string) cluster.Cluster {
	t.Helper()
	c, problems := cluster.Parse("cluster.yaml", []byte(file))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	secret, err := cluster.NewSecret(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	c.Secret = secret
	return c
}

func mustRender(t testing.TB, c cluster.Cluster, f Format) []byte {
	t.Helper()
	data, err := Render(c, Options{Format: f})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestGolden renders with units of its own: what is in the real ones is not this
// package's business. mime is compressed; its tests unpack it.
func TestGolden(t *testing.T) {
	const unit = "[Unit]\nDescription=a unit\n"
	for _, format := range []Format{CloudConfig, Script, Ignition} {
		p := format.Prefix()
		contents, err := newContents(load(t, clusterFile), p, map[string]string{
			fetchName: ownText()[p][fetchName], "muster-fetch.service": unit, "muster.service": unit})
		if err != nil {
			t.Fatal(err)
		}
		data, err := contents.Render(Options{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if format == Ignition {
			data = readable(t, data)
		}
		golden := filepath.Join("testdata", string(format)+".golden")
		if *update {
			if err := os.WriteFile(golden, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(data)); diff != "" {
			t.Errorf("%s (-want +got; read it, then go test ./pkg/userdata -update):\n%s", format, diff)
		}
	}
}

// readable is an Ignition document with its files unpacked: another release of Go may
// compress otherwise.
func readable(t *testing.T, data []byte) []byte {
	t.Helper()
	var doc ignitionConfig
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for i, f := range doc.Storage.Files {
		text, found, err := readIgnition(string(data), f.Path)
		if err != nil || !found {
			t.Fatalf("%s: %v, found: %t", f.Path, err, found)
		}
		doc.Storage.Files[i].Contents.Source = text
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// TestIgnitionLeavesUsrAlone: nobody can write below Flatcar's /usr, /usr/local
// included, and nothing of what is laid there names a program of ours there.
func TestIgnitionLeavesUsrAlone(t *testing.T) {
	c := load(t, clusterFile)
	var doc ignitionConfig
	if err := json.Unmarshal(mustRender(t, c, Ignition), &doc); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, f := range doc.Storage.Files {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{layout.ClusterFile, layout.FetchEnv, "/opt/libexec/muster-fetch"}, paths); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	contents, err := NewContents(c, Ignition.Prefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range contents.Files {
		if strings.HasPrefix(f.Path, "/usr/") || strings.Contains(f.Content, "/usr/local") {
			t.Errorf("%s lies or looks for something below /usr:\n%s", f.Path, f.Content)
		}
	}
	local, err := Render(c, Options{Format: Ignition, Prefix: layout.Local})
	if err != nil || !strings.Contains(string(local), `"path":"/usr/local/libexec/muster-fetch"`) {
		t.Errorf("with --prefix /usr/local: %v\n%s", err, local)
	}
	if _, err := Render(c, Options{Prefix: "/usr"}); err == nil || !strings.Contains(err.Error(), `there is no prefix "/usr"; there are [/usr/local /opt]`) {
		t.Errorf("another prefix: %v", err)
	}
}

func TestRender(t *testing.T) {
	c := load(t, clusterFile)
	hostile := load(t, strings.Replace(clusterFile, "v1.36.3", "v1.36.3\n    kubelet: {label: na\u00efve, note: 'image_url=x verbose_logging=1 image_repo=y image_tag=z image_uri=q cpr_url=r'}", 1))
	for _, format := range Formats {
		data := mustRender(t, c, format)
		// The budget is the limit of every platform; the aim leaves room for the fields
		// and units to come.
		const aim = 8 << 10
		if len(data) > aim {
			t.Errorf("%s: %d bytes, aim %d", format, len(data), aim)
		}
		t.Logf("%s: %d bytes", format, len(data))
		for _, data := range [][]byte{data, mustRender(t, hostile, format)} {
			if i := bytes.IndexFunc(data, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' && r != '\t' }); i >= 0 {
				t.Errorf("%s: byte %d is not printable ASCII", format, i)
			}
			for _, word := range installerWords {
				if bytes.Contains(data, []byte(word)) {
					t.Errorf("%s has %s in it, which an installer acts upon", format, word)
				}
			}
		}
	}
}

// TestDeterministic renders at many times, in virtual time.
func TestDeterministic(t *testing.T) {
	c := load(t, clusterFile)
	for _, format := range Formats {
		first := mustRender(t, c, format)
		synctest.Test(t, func(t *testing.T) {
			for range 100 {
				time.Sleep(100 * 24 * time.Hour)
				if again := mustRender(t, load(t, clusterFile), format); !bytes.Equal(again, first) {
					t.Fatalf("%s at %s differs from now's", format, time.Now())
				}
			}
		})
	}
}

// TestRenderLaysDown reads the user-data as cloud-init does.
func TestRenderLaysDown(t *testing.T) {
	c := load(t, clusterFile)
	var doc struct {
		ManageEtcHosts string      `yaml:"manage_etc_hosts"`
		Files          []writeFile `yaml:"write_files"`
		Runcmd         [][]string
	}
	data := mustRender(t, c, CloudConfig)
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	modes := map[string]string{}
	contents := map[string]string{}
	for _, f := range doc.Files {
		modes[f.Path], contents[f.Path] = f.Permissions, f.Content
	}
	want := map[string]string{
		"/etc/muster/cluster.yaml": "0600", "/etc/muster/fetch.env": "0644", "/usr/local/libexec/muster-fetch": "0755",
		"/etc/systemd/system/muster-fetch.service": "0644", "/etc/systemd/system/muster.service": "0644",
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("files and permissions (-want +got):\n%s", diff)
	}
	wantRun := [][]string{
		{"systemctl", "daemon-reload"},
		{"systemctl", "enable", "muster-fetch.service", "muster.service"},
		{"systemctl", "start", "--no-block", "muster.service"},
	}
	if diff := cmp.Diff(wantRun, doc.Runcmd); diff != "" {
		t.Errorf("runcmd (-want +got):\n%s", diff)
	}
	for path, content := range contents {
		if path != "/etc/muster/cluster.yaml" && strings.Contains(content, c.Secret.Reveal()) {
			t.Errorf("%s holds the secret", path)
		}
	}
	script := filepath.Join(t.TempDir(), "muster-fetch")
	if err := os.WriteFile(script, []byte(contents["/usr/local/libexec/muster-fetch"]), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
		t.Errorf("the script without comments: %v\n%s", err, out)
	}
}

// TestBareUnits holds that dropping comments changes no setting of a unit.
func TestBareUnits(t *testing.T) {
	for _, name := range []string{"muster-fetch.service", "muster.service"} {
		text := ownText()[layout.Local][name]
		for line := range strings.Lines(text) {
			if strings.HasSuffix(line, "\\\n") {
				t.Errorf("%s: a continued line may hide a comment from systemd: %s", name, line)
			}
		}
		for _, want := range []string{"[Unit]\n", "[Service]\n", "[Install]\n", "ExecStart="} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lost %q", name, want)
			}
		}
	}
}

func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("testdata", "cloud-config-schema-26.2.json"))
	if err != nil {
		t.Fatal(err)
	}
	validate := func(data []byte) error {
		var doc any
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		return schema.Validate(doc)
	}
	data := mustRender(t, load(t, clusterFile), CloudConfig)
	if err := validate(data); err != nil {
		t.Error(err)
	}
	if err := validate(bytes.Replace(data, []byte("'0600'"), []byte("0600"), 1)); err == nil {
		t.Error("the schema accepts permissions that are a number, so it proves nothing")
	}
}

func TestParse(t *testing.T) {
	for name, c := range map[string]cluster.Cluster{
		"literal":   load(t, clusterFile),
		"not ASCII": load(t, strings.Replace(clusterFile, "v1.36.3", "v1.36.3\n    kubelet: {label: naïve}", 1)),
		"baked":     load(t, clusterFile[:strings.Index(clusterFile, "  agent:")]+clusterFile[strings.Index(clusterFile, "  kubernetes:"):]),
	} {
		for _, format := range Formats {
			t.Run(name+" "+string(format), func(t *testing.T) {
				got, err := Parse(mustRender(t, c, format))
				if err != nil {
					t.Fatal(err)
				}
				a, _ := cluster.Marshal(c)
				b, _ := cluster.Marshal(got)
				if diff := cmp.Diff(string(a), string(b)); diff != "" {
					t.Errorf("read back (-want +got):\n%s", diff)
				}
			})
		}
	}
	for data, want := range map[string]string{
		"#!/bin/bash\n":       "begins neither with #cloud-config",
		"#!/bin/sh\nreboot\n": "writes no /etc/muster/cluster.yaml",
		"#!/bin/sh\nput 0600 /etc/muster/cluster.yaml cat <<'END_OF_FILE'\nkind: Cluster\n":        "cut off",
		"#!/bin/sh\nput 0600 /etc/muster/cluster.yaml tac <<'END_OF_FILE'\nEND_OF_FILE\n":          `made by "tac"`,
		"#!/bin/sh\nput 0600 /etc/muster/cluster.yaml base64 -d <<'END_OF_FILE'\n*\nEND_OF_FILE\n": "illegal base64",
		"{":  "unexpected end of JSON",
		"{}": "writes no /etc/muster/cluster.yaml",
		`{"storage": {"files": [{"path": "/etc/muster/cluster.yaml", "contents": {"source": "https://example.net/x"}}]}}`:                    "comes from",
		`{"storage": {"files": [{"path": "/etc/muster/cluster.yaml", "contents": {"compression": "gzip", "source": "data:;base64,AAAA"}}]}}`: "reading user-data",
		"MIME-Version: 1.0\nContent-Type: text/plain\n\n":                                                                                    "expected multipart/mixed",
		"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nhello\n--x--\n":                                              "no part of it is a cloud-config",
		"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\n#cloud-config\n{}\n--x--\n":                                  "writes no /etc/muster/cluster.yaml",
		"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: application/gzip\n\nplain\n--x--\n":              "reading multi-part",
		"#cloud-config\nruncmd: []\n": "writes no /etc/muster/cluster.yaml",
		"#cloud-config\n\t":           "reading user-data",
		"#cloud-config\nwrite_files: [{path: /etc/muster/cluster.yaml, encoding: b64, content: '*'}]":  "illegal base64",
		"#cloud-config\nwrite_files: [{path: /etc/muster/cluster.yaml, encoding: gz, content: x}]":     `encoding "gz"`,
		"#cloud-config\nwrite_files: [{path: /etc/muster/cluster.yaml, content: 'apiVersion: other'}]": "user-data:/etc/muster/cluster.yaml:1:13: apiVersion",
	} {
		if _, err := Parse([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %q in it", data, err, want)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	c := load(t, clusterFile)
	var size *SizeError
	if _, err := Render(c, Options{Platform: AtMost(4000)}); !errors.As(err, &size) {
		t.Fatalf("no *SizeError: %v", err)
	}
	want := "more than the 4000 that the limit given takes; its biggest parts in bytes: "
	if got := size.Error(); !strings.Contains(got, want) || size.Size <= 4000 || len(size.Parts) != 5 {
		t.Errorf("%s; %+v", got, size.Parts)
	}
	if _, err := Render(c, Options{Format: "butane"}); err == nil || !strings.Contains(err.Error(), `no format "butane"; there are cloud-config, script, mime, ignition`) {
		t.Errorf("rendered as butane: %v", err)
	}
	c.Secret = ""
	if _, err := Render(c, Options{}); err == nil || !strings.Contains(err.Error(), "no secret") {
		t.Errorf("rendered without a secret: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, format := range Formats {
		f.Add(mustRender(f, load(f, clusterFile), format))
	}
	f.Add([]byte(cloudConfigHeader + "write_files:\n- path: /etc/muster/cluster.yaml\n  content: x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		if c.Secret == "" {
			t.Errorf("accepted without a secret")
		}
		readsBack(t, c, CloudConfig)
	})
}

func TestIsPlain(t *testing.T) {
	for text, want := range map[string]bool{
		"a\nb\n": true, "a\n\nb\n": true, "a": false, "": false, " a\n": false, "a\n\n": false, "é\n": false, "a\r\n": false, "\n": false,
		"END_OF_FILE\n": false, "a\nEND_OF_FILE\nb\n": false, "END_OF_FILES\n": true, "url: http://x/?image_url=y\n": false,
	} {
		if got := isPlain(text); got != want {
			t.Errorf("isPlain(%q) = %v", text, got)
		}
		var yaml, shell strings.Builder
		yaml.WriteString("write_files:\n")
		f := File{"/x", 0o644, text}
		f.writeYAML(&yaml)
		f.writeShell(&shell)
		for name, read := range map[string]func() (string, bool, error){
			"yaml":  func() (string, bool, error) { return readCloudConfig(yaml.String(), "/x") },
			"shell": func() (string, bool, error) { return readScript(shell.String(), "/x") },
		} {
			if content, found, err := read(); content != text || !found || err != nil {
				t.Errorf("%s: %q reads back as %q, %v %v", name, text, content, found, err)
			}
		}
	}
}
