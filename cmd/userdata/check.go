package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/userdata"
)

var checkCommand = command{
	name: "check", args: "[-f FILE] [--lock FILE] [--join] [--limit SIZE] [-o text|json]",
	summary: "say what is wrong with a cluster file, and what it comes to",
	help: `Checks a cluster file and prints every problem as FILE:LINE:COL: PATH: MESSAGE (HINT)
on stderr, like a compiler, with the line and a mark under what is meant. A warning
does not stop the file from being used.
When nothing is wrong it prints what the file comes to: servers, quorum, size.

With --join it is the file of a cluster that has formed, which may have more control
planes than servers founded it.

Examples:
  userdata check -f clusters/k8s-bgp/cluster.yaml
  userdata check -f - -o json < cluster.yaml
  userdata check --limit nocloud         # user-data of any size: a disk carries it

Exit codes: 0 nothing is wrong, 1 a file cannot be read, 64 wrong command line, 65 the
cluster file or the lock file is wrong.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		file := fileFlag(set)
		lock := lockFlag(set)
		join := set.Bool("join", false, "the cluster has formed: check it for bootstrap apply and render --join")
		limit := limitFlag(set)
		output := set.String("o", "text", "the `format` of the result on stdout: text or json")
		return func(_ context.Context, s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			if *output != "text" && *output != "json" {
				return exitError{exitUsage, fmt.Errorf("-o %s: expected text or json", *output)}
			}
			platform, err := limited(*limit)
			if err != nil {
				return err
			}
			return check(s, *file, *lock, *join, platform, *output == "json")
		}
	},
}

func fileFlag(set *flag.FlagSet) *string {
	return set.String("f", "cluster.yaml", "the cluster `file`; - reads standard input")
}

// load reads a cluster file, with its lock file when there is one. Problems are
// for the caller to show. formed: it is for a cluster that has formed.
func load(s streams, file, lockFile string, formed bool) (cluster.Cluster, []cluster.Problem, error) {
	name, data, err := readCluster(s, file)
	if err != nil {
		return cluster.Cluster{}, nil, err
	}
	return parseBeside(file, lockFile, name, data, formed)
}

// parseBeside parses a cluster file with what lies beside it.
func parseBeside(file, lockFile, name string, data []byte, formed bool) (cluster.Cluster, []cluster.Problem, error) {
	lock, found, problems, err := loadLock(file, lockFile)
	if err != nil {
		return cluster.Cluster{}, nil, err
	}
	beside := besides(file)
	beside.Formed = formed
	if found && cluster.Err(problems) == nil {
		beside.Lock = &lock
	}
	c, more := cluster.ParseBeside(name, data, beside)
	return c, append(problems, more...), nil
}

// besides reads what a cluster file names from where it is; that of standard input is here.
func besides(file string) cluster.Beside {
	return cluster.Beside{Read: func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(filepath.Dir(file), path)) }}
}

// readCluster reads a cluster file, and says what it is called.
func readCluster(s streams, file string) (string, []byte, error) {
	name := file
	var data []byte
	var err error
	if file == "-" {
		name = "<stdin>"
		data, err = io.ReadAll(s.in)
	} else {
		data, err = os.ReadFile(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = exitError{exitData, fmt.Errorf("%s does not exist; name the cluster file with -f, or write one with userdata init NAME", file)}
	}
	return name, data, err
}

// show prints problems with their lines and says how many of them are errors.
func show(w io.Writer, problems []cluster.Problem) (errs int) {
	for _, p := range problems {
		fmt.Fprintf(w, "%s\n%s", p, p.Excerpt())
		if p.Severity == cluster.SeverityError {
			errs++
		}
	}
	return errs
}

// summary is what a good cluster file comes to.
type summary struct {
	Name          string   `json:"name"`
	Servers       int      `json:"servers"`
	ControlPlanes int      `json:"controlPlanes"`
	Electors      int      `json:"electors"`       // N: servers that vote
	Quorum        int      `json:"quorum"`         // q
	MayBeAbsent   int      `json:"mayBeAbsent"`    // N - q
	MayBeFaulty   int      `json:"mayBeFaulty"`    // 2q - N - 1: wiped and surplus servers
	Bytes         int      `json:"bytes"`          // of the user-data
	Limit         int      `json:"limit"`          // of the platform
	AgentURLs     int      `json:"agentURLs"`      // 0: baked into the image
	AgentPinned   []string `json:"agentPinned"`    // architectures with a sha256
	Locked        int      `json:"locked"`         // artefacts that servers install by the lock file; 0: all are in the image
	Kubernetes    string   `json:"kubernetes"`     // version
	Endpoint      string   `json:"endpoint"`       // empty: the first control plane's own address
	Announced     bool     `json:"announced"`      // by the control planes
	PodRanges     []string `json:"podRanges"`      //
	ServiceRanges []string `json:"serviceRange"`   //
	Join          string   `json:"join,omitempty"` // CA of the cluster that servers with this file join
}

// summarise renders the user-data with secrets of zeros, for its size.
func summarise(c cluster.Cluster, platform userdata.Platform) (summary, error) {
	secret, err := cluster.NewSecret(bytes.NewReader(make([]byte, 64)))
	if err != nil {
		return summary{}, err
	}
	c.Secret = secret
	if len(c.Spec.PacketAPIs()) > 0 {
		const likely = 32 // characters of a token
		c.APIToken = cluster.Secret(strings.Repeat("0", likely))
	}
	data, err := userdata.Render(c, userdata.Options{Platform: platform})
	if err != nil {
		return summary{}, err
	}
	e := election.FromSpec(c.Spec)
	s := summary{
		Name: c.Metadata.Name, Servers: c.Spec.Servers.Expect, ControlPlanes: c.Spec.Servers.ControlPlanes,
		Electors: e.N, Quorum: e.Q, MayBeAbsent: e.N - e.Q, MayBeFaulty: 2*e.Q - e.N - 1,
		Bytes: len(data), Limit: platform.Holds(), AgentURLs: len(c.Spec.Agent.URLs), AgentPinned: []string{}, Locked: len(c.Lock),
		Kubernetes: c.Spec.Kubernetes.Version, Endpoint: c.Spec.Kubernetes.Endpoint.Address,
		Announced: c.Spec.Network.BGP.HoldsControlPlanes(), Join: c.Spec.Join.CA,
	}
	for arch := range c.Spec.Agent.SHA256 {
		s.AgentPinned = append(s.AgentPinned, arch)
	}
	slices.Sort(s.AgentPinned)
	for _, p := range c.Spec.Kubernetes.PodSubnets {
		s.PodRanges = append(s.PodRanges, p.String())
	}
	for _, p := range c.Spec.Kubernetes.ServiceSubnets {
		s.ServiceRanges = append(s.ServiceRanges, p.String())
	}
	return s, nil
}

func check(s streams, file, lockFile string, formed bool, platform userdata.Platform, asJSON bool) error {
	c, problems, err := load(s, file, lockFile, formed)
	if err != nil {
		return err
	}
	var sum *summary
	if cluster.Err(problems) == nil {
		made, err := summarise(c, platform)
		var size *userdata.SizeError
		if errors.As(err, &size) {
			name := file
			if name == "-" {
				name = "<stdin>"
			}
			problems = append(problems, cluster.Problem{File: name, Line: 1, Col: 1, Message: size.Error(), Severity: cluster.SeverityError})
		} else if err != nil {
			return err
		} else {
			sum = &made
		}
	}
	errs := show(s.err, problems)
	if asJSON {
		if problems == nil {
			problems = []cluster.Problem{}
		}
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		if err := e.Encode(struct {
			Problems []cluster.Problem `json:"problems"`
			Summary  *summary          `json:"summary,omitempty"`
		}{problems, sum}); err != nil {
			return err
		}
	} else if sum != nil {
		if _, err := io.WriteString(s.out, sum.String()); err != nil {
			return err
		}
	}
	if errs > 0 {
		return errReported
	}
	return nil
}

// String is the summary for people.
func (s summary) String() string {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-*s "+format+"\n", append([]any{max(11, len(s.Name)), key}, args...)...)
	}
	line(s.Name, "%s: %s, %s", count(s.Servers, "server"), count(s.ControlPlanes, "control plane"), count(s.Servers-s.ControlPlanes, "worker"))
	line("quorum", "%d of %d must agree; %s may be absent when the cluster forms", s.Quorum, s.Electors, count(s.MayBeAbsent, "server"))
	if s.MayBeFaulty > 0 {
		line("", "and up to %s cannot make it form twice", count(s.MayBeFaulty, "wiped or surplus server"))
	} else {
		line("", "one wiped or surplus server could make it form twice")
	}
	if s.Join != "" {
		line("join", "servers with this file join the cluster with CA %s", s.Join)
	}
	line("kubernetes", "%s, pods %s, services %s", s.Kubernetes, strings.Join(s.PodRanges, " "), strings.Join(s.ServiceRanges, " "))
	switch {
	case s.Endpoint == "":
		line("endpoint", "the control plane's own private address")
	case s.Announced:
		line("endpoint", "%s, announced by the control planes", s.Endpoint)
	default:
		line("endpoint", "%s, which something else leads to the control planes", s.Endpoint)
	}
	switch {
	case s.AgentURLs > 0:
		line("agent", "from %s, pinned for %s", count(s.AgentURLs, "URL"), strings.Join(s.AgentPinned, " and "))
	case len(s.AgentPinned) > 0:
		line("agent", "baked into the image, pinned for %s", strings.Join(s.AgentPinned, " and "))
	default:
		line("agent", "baked into the image")
	}
	if s.Locked > 0 {
		line("lock", "%s that servers install where the image lacks them", count(s.Locked, "artefact"))
	}
	if s.Limit == userdata.Unlimited {
		line("user-data", "%d bytes", s.Bytes)
	} else {
		line("user-data", "%d of %d bytes", s.Bytes, s.Limit)
	}
	return b.String()
}

// count says a number with its noun.
func count(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun
	case 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
