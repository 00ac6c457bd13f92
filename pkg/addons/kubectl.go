package addons

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Kubectl is the real Cluster: the kubectl of this server.
type Kubectl struct {
	Program    string
	Kubeconfig string // an administrator's
	Server     string // https://HOST:PORT of this server's API server; the kubeconfig names the endpoint
	CacheDir   string // for what the API server can do
}

// outputs asks kubectl for one line an object. Several objects it prints as one List.
const outputs = `{{define "object"}}{{.apiVersion}}{{"\t"}}{{.kind}}{{"\t"}}{{with .metadata.namespace}}{{.}}{{end}}{{"\t"}}{{.metadata.name}}{{"\n"}}{{end}}` +
	`{{if eq .kind "List"}}{{range .items}}{{template "object" .}}{{end}}{{else}}{{template "object" .}}{{end}}`

// Time limits of kubectl: of one call to the API server, and of one run.
const (
	requestTimeout = "20s"
	runTimeout     = 2 * time.Minute
)

// Apply implements Cluster.
func (k Kubectl) Apply(ctx context.Context, manifests []byte) ([]Object, error) {
	out, err := k.run(ctx, manifests, "apply", "--server-side", "--force-conflicts", "--field-manager=muster", "-f", "-", "-o", "go-template", "--template", outputs)
	if err != nil {
		return nil, err
	}
	var objects []Object
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("kubectl apply says %q, expected apiVersion, kind, namespace and name", line)
		}
		objects = append(objects, Object{APIVersion: f[0], Kind: f[1], Namespace: f[2], Name: f[3]})
	}
	return objects, nil
}

// Await implements Cluster.
func (k Kubectl) Await(ctx context.Context, w cluster.AddonWait) error {
	var args []string
	switch {
	case w.Rollout != "":
		args = []string{"rollout", "status", w.Rollout}
	case w.CRD != "":
		args = []string{"wait", "--for=condition=Established", "crd/" + w.CRD}
	default:
		args = []string{"wait", "--for=condition=" + w.Condition, w.Of}
	}
	if w.Namespace != "" {
		args = append(args, "--namespace="+w.Namespace)
	}
	if deadline, ok := ctx.Deadline(); ok {
		// Its own limit is a little shorter, so that it can still say what it saw.
		args = append(args, "--timeout="+max(time.Second, time.Until(deadline)-time.Second).String())
	}
	_, err := k.run(ctx, nil, args...)
	return err
}

// Delete implements Cluster. What follows from the deletion goes on by itself.
func (k Kubectl) Delete(ctx context.Context, objects []Object) error {
	for _, o := range objects {
		stub, err := json.Marshal(map[string]any{"apiVersion": o.APIVersion, "kind": o.Kind, "metadata": map[string]string{"name": o.Name, "namespace": o.Namespace}})
		if err != nil {
			return err
		}
		_, err = k.run(ctx, stub, "delete", "--ignore-not-found", "--wait=false", "-f", "-")
		if err != nil && strings.Contains(err.Error(), "no matches for kind") {
			err = nil // its CRD is gone, and with it what it described
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	return nil
}

// run runs kubectl against this server's own API server: while the endpoint is
// held by nobody, add-ons are what may be missing.
func (k Kubectl) run(ctx context.Context, stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	base := []string{"--kubeconfig=" + k.Kubeconfig, "--server=" + k.Server, "--cache-dir=" + k.CacheDir}
	if args[0] != "rollout" && args[0] != "wait" { // these watch for as long as they may
		base = append(base, "--request-timeout="+requestTimeout)
	}
	cmd := exec.CommandContext(ctx, k.Program, append(base, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil && said.Len() == 0 {
		err = ctx.Err()
	}
	var exit *exec.ExitError
	if text := lastWords(said.String() + out.String()); errors.As(err, &exit) && text != "" {
		err = errors.New(text)
	}
	return "", fmt.Errorf("kubectl %s: %w", args[0], err)
}

// lastWords are the last lines that kubectl printed, on one line: the first ones of
// an apply say what went well.
func lastWords(text string) string {
	const most = 3
	lines := strings.FieldsFunc(strings.TrimSpace(text), func(r rune) bool { return r == '\n' })
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return strings.Join(lines, "; ")
}
