package faults

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/userdata"
)

// Plan is what differs between the clusters of the scenarios.
type Plan struct {
	ID            string
	Secret        cluster.Secret
	Expect        int               // N
	ControlPlanes int               // K
	Eligible      string            // spec.servers.eligible; NewPlan selects the names cp*
	Names         []string          // of all servers that the cluster file describes, in the order of their indexes
	Tags          map[string]string // a tag by name, of those that have one
	Discovery     string            // elements of spec.discovery; NewPlan lists the first three servers
	Token         cluster.Secret
	Webhook       string // of spec.report
	Join          string // the hash of the CA, in user-data of servers that join
	Metadata      string // the base URL of a metadata service; empty: the cluster file describes the servers
	Platform      string // with Metadata
	Agent         string // sha256 of the agent that is pinned, /opt/next on a server; empty: none
}

//go:embed cluster.yaml
var clusterTemplate string

var clusterFile = template.Must(template.New("cluster.yaml").Funcs(template.FuncMap{
	"address": func(i int) string { return addressOf(i + 1).String() },
}).Parse(clusterTemplate))

// NewPlan is a plan of a new cluster.
func NewPlan(expect, controlPlanes int, names ...string) (Plan, error) {
	p := Plan{Expect: expect, ControlPlanes: controlPlanes, Eligible: `{hostname: "cp*"}`, Names: names}
	var founders []string
	for i := range min(3, len(names)) {
		founders = append(founders, addressOf(i+1).String())
	}
	p.Discovery = "{static: [" + strings.Join(founders, ", ") + "]}"
	var err error
	if p.ID, err = cluster.NewID(rand.Reader); err != nil {
		return p, err
	}
	p.Secret, err = cluster.NewSecret(rand.Reader)
	return p, err
}

// Render makes user-data as an operator of this fabric would, with the relaxations
// that containers need. Each is a documented field.
func (p Plan) Render() ([]byte, error) {
	file, err := p.File()
	if err != nil {
		return nil, err
	}
	c, problems := cluster.Parse("cluster.yaml", file)
	if err := cluster.Err(problems); err != nil {
		return nil, err
	}
	c.Secret, c.APIToken = p.Secret, p.Token
	return userdata.Render(c, userdata.Options{})
}

// File is the operator's cluster file.
func (p Plan) File() ([]byte, error) {
	var b bytes.Buffer
	err := clusterFile.Execute(&b, map[string]any{
		"P": p, "Bits": subnet.Bits(), "Balancer": balancerIP, "Port": apiPort, "Version": images.KubernetesVersion,
	})
	if err != nil {
		return nil, fmt.Errorf("writing the cluster file: %w", err)
	}
	return b.Bytes(), nil
}
