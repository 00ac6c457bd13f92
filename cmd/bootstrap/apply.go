package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/change"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

const applyHelp = `bootstrap apply gives a cluster that runs a changed cluster file, on any control plane.
FILE is the operator's cluster file, without the secret; what it names beside itself, such
as add-ons, must be there, and its lock file pins the agent where it is there too. First it shows what differs from the newest revision of the
spec, and of each field whether the servers take it up as they run, whether only servers
have it that boot with new user-data, or whether a running cluster cannot take it; then
nothing is applied. With --yes it becomes the next revision. Every server keeps it and
starts its agent again where that changes something; bootstrap status says who runs by
which, and why one does not yet. Neither Kubernetes nor the routers notice, but of fewer
controlPlanes: then those that are more leave by themselves, one after the other, each
drained first, as with bootstrap leave.

Somebody else's apply in between is refused. --revision says with which revision you have
compared: look first, then apply with the number that was shown.

Without --yes it only says what would happen.

Usage: bootstrap apply -f FILE|- [--revision N] [--yes] [-o text|json]

Examples:
  bootstrap apply -f cluster.yaml               # what would change
  bootstrap apply -f cluster.yaml --revision 3 --yes
  ssh cp1 bootstrap apply -f - < cluster.yaml
  bootstrap apply -f cluster.yaml -o json | jq -e '.effect != "new-cluster"'

Exit codes: 0 done, or nothing differs, 1 failed (do it again), 64 wrong command line, 65
the file is wrong, 69 the agent or the directory does not answer, 77 refused, and a
sentence says why, or not root.
`

// actApply is an act on the socket.
const actApply = "apply"

// applyAct is what apply asks for (docs/formats.md).
type applyAct struct {
	Spec     string  `json:"spec"` // YAML: what servers share of the cluster file
	Expected *uint64 `json:"expected,omitempty"`
}

// revisionReply is the agent's answer, and what -o json prints.
type revisionReply struct {
	Version int `json:"version"`
	bootstrap.Revision
	Done bool `json:"done"` // it was written
}

// maxApply bounds a request, in bytes: JSON may write a spec with two bytes for one.
const maxApply = 2*cluster.SpecMax + maxAct

// handleApply serves the act.
func handleApply(mux *http.ServeMux, server *bootstrap.Server) {
	handleAnswer(mux, actApply, maxApply, func(ctx context.Context, yes bool, act applyAct) (revisionReply, error) {
		r, err := server.Apply(ctx, yes, act.Spec, act.Expected)
		return revisionReply{Version: actVersion, Revision: r, Done: yes && r.Is != r.Was}, err
	})
}

func applyCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("apply", applyHelp, stdout)
	file := flags.String("f", "", "the cluster `file`; - reads standard input")
	yes := flags.Bool("yes", false, "do it")
	revision := flags.Int64("revision", -1, "the `revision` with which you have compared; another one is refused")
	output := flags.String("o", "text", "the `format`: text or json")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	switch {
	case *file == "":
		return flags.wrong(errors.New("-f is missing: the cluster file, or - for standard input"))
	case *output != "text" && *output != "json":
		return flags.wrong(fmt.Errorf("-o %q: expected text or json", *output))
	}
	act := applyAct{}
	if *revision >= 0 {
		n := uint64(*revision)
		act.Expected = &n
	}
	var err error
	if act.Spec, err = readShared(*file); err != nil {
		return err
	}
	reply, err := askAnswer[applyAct, revisionReply](ctx, *socket, actApply, *yes, act)
	if err != nil {
		return err
	}
	if *output == "json" {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(reply)
	} else {
		_, err = io.WriteString(stdout, revisionText(reply))
	}
	if err == nil && reply.Refused != "" {
		err = exitError{exitPermission, errors.New(reply.Refused)}
	}
	return err
}

// readShared reads an operator's cluster file and leaves what servers share of it.
func readShared(file string) (string, error) {
	name, in := file, io.Reader(os.Stdin)
	if file == "-" {
		name, file = "<stdin>", "."
	} else {
		f, err := os.Open(file)
		if err != nil {
			return "", exitError{exitData, fmt.Errorf("reading the cluster file: %w", err)}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, cluster.SpecMax+1))
	if err != nil {
		return "", fmt.Errorf("reading the cluster file: %w", err)
	}
	if bytes.Contains(data, []byte(cluster.Hidden)) {
		return "", exitError{exitData, fmt.Errorf("%s has %s, which stands for a password where a cluster file was shown: put the password there", name, cluster.Hidden)}
	}
	beside, problems := besides(file)
	c, more := cluster.ParseSpec(name, data, beside)
	if err := cluster.Err(append(problems, more...)); err != nil {
		return "", exitError{exitData, err}
	}
	text, err := cluster.Marshal(cluster.Shared(c))
	if err != nil {
		return "", err
	}
	if len(text) > cluster.SpecMax || len(data) > cluster.SpecMax {
		return "", exitError{exitData, fmt.Errorf("%s has more than %d bytes with the files that it names: give add-ons a url and a sha256", name, cluster.SpecMax)}
	}
	return string(text), nil
}

// besides is what lies beside a cluster file: what it names, and its lock file, which
// pins the agent. That of standard input is here, without a lock file.
func besides(file string) (cluster.Beside, []cluster.Problem) {
	beside := cluster.Beside{Read: func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(filepath.Dir(file), path)) }}
	path := strings.TrimSuffix(strings.TrimSuffix(file, ".yaml"), ".yml") + ".lock.yaml"
	data, err := os.ReadFile(path)
	if err != nil {
		return beside, nil
	}
	lock, problems := cluster.ParseLock(path, data)
	if cluster.Err(problems) == nil {
		beside.Lock = &lock
	}
	return beside, problems
}

// revisionText tells a person what is applied, or would be.
func revisionText(r revisionReply) string {
	var b bytes.Buffer
	if r.Effect == "" {
		fmt.Fprintf(&b, "Nothing differs from revision %d, which the cluster has.\n", r.Was)
	} else {
		fmt.Fprintf(&b, "The cluster has revision %d of the spec. What differs:\n", r.Was)
		b.WriteString(change.Text(r.Changes))
	}
	for _, sentence := range r.Next {
		fmt.Fprintln(&b, sentence)
	}
	switch {
	case r.Is == r.Was:
	case r.Done:
		fmt.Fprintf(&b, "Revision %d is written: bootstrap status shows who runs by it.\n", r.Is)
	default:
		fmt.Fprintf(&b, "Nothing was done: add --revision %d --yes to do it.\n", r.Was)
	}
	return b.String()
}
