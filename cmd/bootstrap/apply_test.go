package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/change"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// specFile is an operator's cluster file with an add-on beside it.
const specFile = `apiVersion: muster/v1alpha1
kind: Cluster
metadata: {name: lab}
spec:
  id: 5b0c6d1f9e2a47b88c3d4e5f60718293
  platform: packet
  metadata: {url: "http://10.0.0.254"}
  servers: {expect: 1, controlPlanes: 3}
  discovery: [{static: [10.0.0.1]}]
  agent: {urls: ["http://mirror.example.net/bootstrap"], sha256: {amd64: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}}
  kubernetes: {version: v1.37.0, endpoint: "203.0.113.10:6443"}
  network: {elasticIPs: [{address: 203.0.113.10/32, on: control-planes}]}
  addons: [{name: x, file: x.yaml}]
`

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}\n"

func laidDown(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "cluster.yaml")
	for path, content := range map[string]string{file: text, filepath.Join(dir, "x.yaml"): configMap} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// TestApply: what the command asks for, and what it makes of each answer.
func TestApply(t *testing.T) {
	grow := bootstrap.Revision{Was: 3, Is: 4, Effect: change.Apply, Next: []string{"Boot two more."},
		Changes: []change.Change{{Path: "spec.servers.controlPlanes", Old: "1", New: "3", Effect: change.Apply, Why: "more places"}}}
	refused := bootstrap.Revision{Was: 3, Is: 3, Effect: change.Anew, Refused: "1 of 1 changes cannot be made",
		Changes: []change.Change{{Path: "spec.servers.expect", Old: "1", New: "3", Effect: change.Anew, Why: "they voted"}}}
	const changes = "The cluster has revision 3 of the spec. What differs:\n" +
		"A running cluster takes it up, with `bootstrap apply`, which starts the agents again:\n  spec.servers.controlPlanes: 1 -> 3\n      more places\nBoot two more.\n"
	for _, test := range []struct {
		name   string
		args   []string
		answer bootstrap.Revision
		err    error
		code   int
		out    string
		stderr string
	}{
		{"a look", nil, grow, nil, 0, changes + "Nothing was done: add --revision 3 --yes to do it.\n", ""},
		{"done", []string{"--yes", "--revision", "3"}, grow, nil, 0, changes + "Revision 4 is written: bootstrap status shows who runs by it.\n", ""},
		{"nothing differs", []string{"--yes"}, bootstrap.Revision{Was: 3, Is: 3, Changes: []change.Change{}}, nil, 0, "Nothing differs from revision 3, which the cluster has.\n", ""},
		{"refused", []string{"--yes"}, refused, nil, exitPermission, "The cluster has revision 3 of the spec. What differs:\n" +
			"Needs a new cluster (userdata init: a new spec.id), or cannot be changed by the file:\n  spec.servers.expect: 1 -> 3\n      they voted\n", "1 of 1 changes cannot be made"},
		{"somebody else", []string{"--yes"}, bootstrap.Revision{}, fmt.Errorf("revision 4 by now: %w", agent.ErrRefused), exitPermission, "", "revision 4 by now"},
		{"no directory", nil, bootstrap.Revision{}, agent.ErrNotReady, exitUnavailable, "", "not ready"},
		{"wrong for the agent", nil, bootstrap.Revision{}, fmt.Errorf("%w: x", bootstrap.ErrInvalid), exitData, "", "the input is wrong: x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked applyAct
			mux := http.NewServeMux()
			handleAnswer(mux, actApply, maxApply, func(_ context.Context, yes bool, act applyAct) (revisionReply, error) {
				asked = act
				return revisionReply{Version: actVersion, Revision: test.answer, Done: yes && test.answer.Is != test.answer.Was}, test.err
			})
			args := append([]string{"apply", "-f", laidDown(t, specFile), "--socket", agentAt(t, mux.ServeHTTP)}, test.args...)
			code, out, stderr := bootstrapRun(t, args...)
			if code != test.code || out != test.out || !strings.Contains(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
				t.Errorf("code %d, expected %d\n%s%s", code, test.code, cmp.Diff(test.out, out), stderr)
			}
			if !strings.Contains(asked.Spec, "inline:") || !strings.Contains(asked.Spec, "mirror.example.net") || strings.Contains(asked.Spec, "secret") {
				t.Errorf("asked for:\n%s", asked.Spec)
			}
			if given := asked.Expected != nil && *asked.Expected == 3; given != (len(test.args) == 3) {
				t.Errorf("expected revision: %v", asked.Expected)
			}
		})
	}
}

// TestApplyJSON: what a program reads.
func TestApplyJSON(t *testing.T) {
	mux := http.NewServeMux()
	handleAnswer(mux, actApply, maxApply, func(context.Context, bool, applyAct) (revisionReply, error) {
		return revisionReply{Version: actVersion, Revision: bootstrap.Revision{Was: 3, Is: 3, Changes: []change.Change{}}}, nil
	})
	code, out, stderr := bootstrapRun(t, "apply", "-f", laidDown(t, specFile), "-o", "json", "--socket", agentAt(t, mux.ServeHTTP))
	const want = "{\n  \"version\": 1,\n  \"was\": 3,\n  \"is\": 3,\n  \"changes\": [],\n  \"effect\": \"\",\n  \"done\": false\n}\n"
	if code != 0 || out != want || stderr != "" {
		t.Errorf("code %d, %s\n%s", code, stderr, cmp.Diff(want, out))
	}
}

// TestRevisions: what a server keeps, and what it does not run by.
func TestRevisions(t *testing.T) {
	own, problems := cluster.ParseSpec("own", []byte(strings.Replace(specFile, "controlPlanes: 3", "controlPlanes: 1", 1)),
		cluster.Beside{Read: func(string) ([]byte, error) { return []byte(configMap), nil }})
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	secret, err := cluster.NewSecret(strings.NewReader(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	own.Secret = secret
	text, err := readShared(laidDown(t, specFile))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "spec.json")
	r := openRevisions(own, path)
	if s, err := r.Running(); s.Revision != 0 || err != nil {
		t.Errorf("nothing was kept: %+v, %v", s, err)
	}
	grown := member.Spec{Revision: 1, ControlPlanes: 3, Text: text}
	for _, differs := range []bool{true, false} { // the second time nothing is new
		if got, err := r.Keep(grown); got != differs || err != nil {
			t.Errorf("differs: %v, %v; expected %v", got, err, differs)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	next := openRevisions(own, path)
	if s, err := next.Running(); s != grown || err != nil {
		t.Errorf("kept: %+v, %v", s, err)
	}
	if c := next.now; c.Spec.Servers.ControlPlanes != 3 || c.Secret != secret || len(c.Spec.Agent.URLs) != 1 {
		t.Errorf("runs by %+v", cluster.Redacted(c))
	}
	other := own
	other.Spec.ID = strings.Repeat("0", 32)
	if s, err := openRevisions(other, path).Running(); s.Revision != 0 || err != nil {
		t.Errorf("of another cluster: %+v, %v", s, err)
	}
	for name, text := range map[string]string{
		"not JSON":        "{",
		"a later version": `{"version":2,"id":"","revision":1,"controlPlanes":1,"text":""}`,
		"not a spec":      strings.Replace(kept(t, own.Spec.ID, grown), "kind: Cluster", "kind: Other", 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := openRevisions(own, path)
		if s, err := r.Running(); err == nil || s.Revision != 0 || r.now.Spec.Servers.ControlPlanes != 1 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if err := next.Check(strings.Replace(text, own.Spec.ID, strings.Repeat("0", 32), 1)); err == nil || !strings.Contains(err.Error(), "spec.id") {
		t.Errorf("a spec of another cluster: %v", err)
	}
}

func kept(t *testing.T, id string, spec member.Spec) string {
	t.Helper()
	data, err := json.Marshal(keptSpec{Version: keptSpecVersion, ID: id, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
