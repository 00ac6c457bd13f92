package kubeadm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// API speaks to one API server, as far as the boot of a node needs. It does not
// import client-go: these few calls are not worth 15 MB.
type API struct {
	base *url.URL
	http *http.Client
}

// callTimeout bounds one call: more than an API server under load takes, less
// than a person waits. Watching health uses a shorter context.
const callTimeout = 10 * time.Second

// answerLimit bounds an answer: a list of 1,000 nodes is some 10 MB.
const answerLimit = 32 << 20

// NewAPI is an anonymous client of the API server at an address, whose
// certificate a CA of caPEM must have signed. It may ask for health only.
func NewAPI(at netip.AddrPort, caPEM []byte) (*API, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("making a client of the API server: the CA holds no certificate")
	}
	return newAPI(access{server: &url.URL{Scheme: "https", Host: at.String()}, roots: roots}), nil
}

// at is a client with the rights of a kubeconfig. A valid address replaces its
// server: on a control plane nothing of ours may go through the Elastic IP, which
// admin.conf names.
func (a access) at(address netip.AddrPort) *API {
	if address.IsValid() {
		a.server = &url.URL{Scheme: "https", Host: address.String()}
	}
	return newAPI(a)
}

func newAPI(a access) *API {
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.roots}
	if a.client != nil {
		c.Certificates = []tls.Certificate{*a.client}
	}
	return &API{base: a.server, http: &http.Client{
		Timeout: callTimeout,
		Transport: &http.Transport{
			TLSClientConfig: c,
			DialContext:     (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			// Every call dials anew: a kept connection would go on speaking to a
			// server that others no longer reach.
			DisableKeepAlives: true,
			Proxy:             nil, // the control plane is never behind one
		},
	}}
}

// StatusError is an answer other than the one hoped for.
type StatusError struct {
	Code    int // HTTP status
	Message string
}

// Error says what the API server answered.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the API server answered %d: %s", e.Code, e.Message)
}

// Readyz is nil when the API server is ready for requests. Only 200 counts: a
// starting server answers 403 and 500 for a while.
func (a *API) Readyz(ctx context.Context) error { return a.call(ctx, "GET", "/readyz", nil, nil) }

// Livez is nil when the API server is alive.
func (a *API) Livez(ctx context.Context) error { return a.call(ctx, "GET", "/livez", nil, nil) }

// Node is a server as Kubernetes sees it.
type Node struct {
	Name         string
	Ready        bool
	Reason       string // why it is not ready, as its kubelet says
	InternalIP   netip.Addr
	ControlPlane bool
	Cordoned     bool // takes no new pods, by somebody's order
}

type nodeObject struct {
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Unschedulable bool `json:"unschedulable"`
	} `json:"spec"`
	Status struct {
		Conditions []struct{ Type, Status, Message string } `json:"conditions"`
		Addresses  []struct{ Type, Address string }         `json:"addresses"`
	} `json:"status"`
}

func (o nodeObject) node() Node {
	n := Node{Name: o.Metadata.Name, Cordoned: o.Spec.Unschedulable, Reason: "its kubelet has not reported yet"}
	_, n.ControlPlane = o.Metadata.Labels["node-role.kubernetes.io/control-plane"]
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" {
			n.Ready, n.Reason = c.Status == "True", c.Message
		}
	}
	if n.Ready {
		n.Reason = ""
	}
	for _, x := range o.Status.Addresses {
		if addr, err := netip.ParseAddr(x.Address); err == nil && x.Type == "InternalIP" && !n.InternalIP.IsValid() {
			n.InternalIP = addr
		}
	}
	return n
}

// Nodes lists the nodes in the order of their names.
func (a *API) Nodes(ctx context.Context) ([]Node, error) {
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := a.call(ctx, "GET", "/api/v1/nodes", nil, &list); err != nil {
		return nil, fmt.Errorf("listing the nodes: %w", err)
	}
	nodes := make([]Node, 0, len(list.Items))
	for _, o := range list.Items {
		nodes = append(nodes, o.node())
	}
	return nodes, nil
}

// Node reads one node; a kubelet's rights suffice for its own. found is false
// when there is none of the name.
func (a *API) Node(ctx context.Context, name string) (n Node, found bool, err error) {
	var o nodeObject
	err = a.call(ctx, "GET", "/api/v1/nodes/"+url.PathEscape(name), nil, &o)
	if hasCode(err, http.StatusNotFound) {
		return Node{}, false, nil
	}
	if err != nil {
		return Node{}, false, fmt.Errorf("reading node %s: %w", name, err)
	}
	return o.node(), true, nil
}

// CreateBootstrapToken makes a token that lets its holder ask for a kubelet's
// certificate until ttl has passed. The API server removes it then.
func (a *API) CreateBootstrapToken(ctx context.Context, ttl time.Duration) (cluster.Secret, error) {
	token, err := NewToken(rand.Reader)
	if err != nil {
		return "", err
	}
	id, secret := token.Reveal()[:6], token.Reveal()[7:]
	// Fields: Kubernetes documentation, "Authenticating with Bootstrap Tokens".
	object := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
		"metadata": map[string]any{"name": "bootstrap-token-" + id, "namespace": "kube-system"},
		"stringData": map[string]string{
			"token-id": id, "token-secret": secret, "description": "muster: one join",
			"expiration":              time.Now().Add(ttl).UTC().Format(time.RFC3339),
			"usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true",
			"auth-extra-groups": tokenGroup,
		},
	}
	body, err := json.Marshal(object)
	if err != nil {
		return "", fmt.Errorf("making a bootstrap token: %w", err)
	}
	if err := a.call(ctx, "POST", "/api/v1/namespaces/kube-system/secrets", body, nil); err != nil {
		return "", fmt.Errorf("making a bootstrap token: %w", err)
	}
	return token, nil
}

// call sends one request and decodes a 2xx answer into out, when there is one.
func (a *API) call(ctx context.Context, method, path string, body []byte, out any) error {
	path, query, _ := strings.Cut(path, "?")
	at := a.base.JoinPath(path)
	at.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json, */*")
	switch {
	case method == http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	case body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the API server: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("reading the API server's answer to %s %s: %w", method, path, err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return &StatusError{Code: res.StatusCode, Message: sentence(data)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("reading the API server's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// sentence is the message of a Status object, or the beginning of the text.
func sentence(data []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &status) == nil && status.Message != "" {
		return status.Message
	}
	const enough = 300
	data = bytes.TrimSpace(data)
	if len(data) > enough {
		data = append(data[:enough:enough], "…"...)
	}
	return string(bytes.ToValidUTF8(data, []byte("?")))
}
