package kubeadm

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/plan"
)

// kubeconfig is the part of clientcmd.k8s.io/v1 Config that kubeadm writes.
type kubeconfig struct {
	APIVersion     string         `yaml:"apiVersion"`
	Kind           string         `yaml:"kind"`
	Clusters       []namedCluster `yaml:"clusters"`
	Users          []namedUser    `yaml:"users"`
	Contexts       []namedContext `yaml:"contexts"`
	CurrentContext string         `yaml:"current-context"`
}

type namedCluster struct {
	Name    string `yaml:"name"`
	Cluster struct {
		Server string `yaml:"server"`
		CAData string `yaml:"certificate-authority-data,omitempty"`
		CAFile string `yaml:"certificate-authority,omitempty"`
	} `yaml:"cluster"`
}

type namedUser struct {
	Name string `yaml:"name"`
	User struct {
		CertData string `yaml:"client-certificate-data,omitempty"`
		CertFile string `yaml:"client-certificate,omitempty"`
		KeyData  string `yaml:"client-key-data,omitempty"`
		KeyFile  string `yaml:"client-key,omitempty"`
	} `yaml:"user"`
}

type namedContext struct {
	Name    string `yaml:"name"`
	Context struct {
		Cluster string `yaml:"cluster"`
		User    string `yaml:"user"`
	} `yaml:"context"`
}

// access is what a kubeconfig's current context comes to.
type access struct {
	server *url.URL
	roots  *x509.CertPool
	client *tls.Certificate // nil when the user has no certificate
}

// Discovery is a kubeconfig for kubeadm join: a server and the CA that vouches
// for it. Its user has no credentials, but is there: a context without one is
// refused by client-go ("user was not specified for context"). kubeadm brings the
// bootstrap token in by itself (tlsBootstrapToken), and the kubelet.conf of a
// worker keeps the server of this file.
func Discovery(server string, caPEM []byte) ([]byte, error) {
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("making the discovery file: the server is %q, expected https://host:port", server)
	}
	if _, err := plan.CAHash(caPEM); err != nil {
		return nil, fmt.Errorf("making the discovery file: the cluster CA: %w", err)
	}
	c := kubeconfig{APIVersion: "v1", Kind: "Config", CurrentContext: "muster"}
	c.Clusters = make([]namedCluster, 1)
	c.Clusters[0].Name = "muster"
	c.Clusters[0].Cluster.Server = server
	c.Clusters[0].Cluster.CAData = base64.StdEncoding.EncodeToString(caPEM)
	c.Users = []namedUser{{Name: "muster"}}
	c.Contexts = make([]namedContext, 1)
	c.Contexts[0].Name = "muster"
	c.Contexts[0].Context.Cluster = "muster"
	c.Contexts[0].Context.User = "muster"
	return documents(c)
}

// parseKubeconfig reads a kubeconfig; read reads the files that it names.
func parseKubeconfig(data []byte, read func(string) ([]byte, error)) (access, error) {
	var c kubeconfig
	if err := yaml.Unmarshal(data, &c); err != nil {
		return access{}, fmt.Errorf("not a kubeconfig: %w", err)
	}
	clusterName, userName := c.current()
	var a access
	for _, n := range c.Clusters {
		if n.Name != clusterName {
			continue
		}
		u, err := url.Parse(n.Cluster.Server)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return access{}, fmt.Errorf("cluster %q: the server is %q, expected https://host:port", n.Name, n.Cluster.Server)
		}
		ca, err := either(n.Cluster.CAData, n.Cluster.CAFile, read)
		if err != nil {
			return access{}, fmt.Errorf("cluster %q: its CA: %w", n.Name, err)
		}
		a.server, a.roots = u, x509.NewCertPool()
		if !a.roots.AppendCertsFromPEM(ca) {
			return access{}, fmt.Errorf("cluster %q: its CA holds no certificate", n.Name)
		}
	}
	if a.server == nil {
		return access{}, fmt.Errorf("the current context %q names no cluster of the file", c.CurrentContext)
	}
	for _, n := range c.Users {
		if n.Name != userName || n.User.CertData == "" && n.User.CertFile == "" {
			continue
		}
		cert, err := either(n.User.CertData, n.User.CertFile, read)
		if err != nil {
			return access{}, fmt.Errorf("user %q: its certificate: %w", n.Name, err)
		}
		key, err := either(n.User.KeyData, n.User.KeyFile, read)
		if err != nil {
			return access{}, fmt.Errorf("user %q: its key: %w", n.Name, err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return access{}, fmt.Errorf("user %q: certificate and key: %w", n.Name, err)
		}
		a.client = &pair
	}
	return a, nil
}

func (c kubeconfig) current() (clusterName, userName string) {
	for _, n := range c.Contexts {
		if n.Name == c.CurrentContext {
			return n.Context.Cluster, n.Context.User
		}
	}
	return "", ""
}

// either is data as base64, or the content of a file.
func either(data, file string, read func(string) ([]byte, error)) ([]byte, error) {
	switch {
	case data != "":
		raw, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, errors.New("it is no base64")
		}
		return raw, nil
	case file != "":
		return read(file)
	}
	return nil, errors.New("it is missing")
}
