// Package speakers writes the configuration of BGP speakers that are not muster's
// own: kube-vip for the control planes' Elastic IP; MetalLB, Calico or Cilium for
// the addresses of Services. What they need to know stands in the cluster file and
// in the metadata of the servers; nothing is asked for, and nothing is done here.
//
// It imports none of these projects: the types are its own, the part of each API
// that muster writes. Tests hold them to the projects' schemas. Floor 1.
package speakers

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Server is a node with what its platform says of it.
type Server struct {
	Node   string
	Device device.Device
}

// Document is one Kubernetes object.
type Document struct {
	Kind, Name string
	// Node is the one node that it is for, empty where it is for all.
	Node string
	// Secret says that it holds a password: it is not for terminals and chats.
	Secret bool

	object any
}

// String names the document; what is in it may be a secret.
func (d Document) String() string { return d.Kind + " " + d.Name }

// GoString hides the content from %#v.
func (d Document) GoString() string { return d.String() }

// Marshal writes documents as one YAML stream, the same bytes every time. It
// holds passwords when one of the documents does.
func Marshal(documents []Document) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, d := range documents {
		if err := e.Encode(d.object); err != nil {
			return nil, fmt.Errorf("writing %s %s: %w", d.Kind, d.Name, err)
		}
	}
	return b.Bytes(), nil
}

// Timers of the sessions, in seconds: those of the speaker that is built in. A
// server that falls silent is left by the routers after the hold time.
const (
	holdTime      = 9
	keepaliveTime = 3
)

// ttl is that of a session over several hops: more than lie between a server and
// its routers, and few enough that nobody far away can answer.
const ttl = 5

// object is what all objects look like whose content is a spec.
type object[S any] struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       S        `yaml:"spec"`
}

type metadata struct {
	Name      string            `yaml:"name"`
	Namespace string            `yaml:"namespace,omitempty"`
	Labels    map[string]string `yaml:"labels,omitempty"`
}

// labels are on every object, so that `kubectl get -l` finds them.
func labels() map[string]string { return map[string]string{managedBy: muster} }

const managedBy, muster = "app.kubernetes.io/managed-by", "muster"

// document makes an object.
func document[S any](apiVersion, kind string, m metadata, spec S) Document {
	if m.Labels == nil {
		m.Labels = labels()
	}
	return Document{Kind: kind, Name: m.Name, object: object[S]{apiVersion, kind, m, spec}}
}

// secretObject is a core/v1 Secret.
type secretObject struct {
	APIVersion string                    `yaml:"apiVersion"`
	Kind       string                    `yaml:"kind"`
	Metadata   metadata                  `yaml:"metadata"`
	Type       string                    `yaml:"type"`
	StringData map[string]cluster.Secret `yaml:"stringData"`
}

// passwordKey is the key of the password in a Secret: MetalLB and Cilium look for
// no other.
const passwordKey = "password"

// secret makes the Secret that a session's password is read from.
func secret(kind, namespace, name string, password cluster.Secret) Document {
	return Document{Kind: "Secret", Name: name, Secret: true, object: secretObject{
		APIVersion: "v1", Kind: "Secret", Metadata: metadata{Name: name, Namespace: namespace, Labels: labels()},
		Type: kind, StringData: map[string]cluster.Secret{passwordKey: password},
	}}
}

// Types of Secrets. MetalLB takes none but the first.
const (
	basicAuth = "kubernetes.io/basic-auth"
	opaque    = "Opaque"
)

// Labels of nodes that selectors ask for.
const (
	controlPlaneLabel = "node-role.kubernetes.io/control-plane"
	hostnameLabel     = "kubernetes.io/hostname"
)

// labelSelector is that of meta/v1.
type labelSelector struct {
	MatchLabels      map[string]string `yaml:"matchLabels,omitempty"`
	MatchExpressions []requirement     `yaml:"matchExpressions,omitempty"`
}

type requirement struct {
	Key      string   `yaml:"key"`
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values,omitempty"`
}

// nodes selects the nodes of a peering; nil selects all.
func (p peering) nodes() *labelSelector {
	var s labelSelector
	if p.node != "" {
		s.MatchLabels = map[string]string{hostnameLabel: p.node}
	}
	if p.workers {
		s.MatchExpressions = []requirement{{Key: controlPlaneLabel, Operator: "DoesNotExist"}}
	}
	if p.node == "" && !p.workers {
		return nil
	}
	return &s
}
