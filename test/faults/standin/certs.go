package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/layout"
)

const year = 365 * 24 * time.Hour

// authority is a CA of /etc/kubernetes/pki with its key.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer
}

// readAuthority reads name.crt and name.key below the directory of keys.
func readAuthority(name string) (authority, error) {
	base := filepath.Join(layout.KubernetesPKI, name)
	certPEM, err := os.ReadFile(base + ".crt")
	if err != nil {
		return authority{}, err
	}
	keyPEM, err := os.ReadFile(base + ".key")
	if err != nil {
		return authority{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return authority{}, fmt.Errorf("%s: %w", base, err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return authority{}, fmt.Errorf("%s.key cannot sign", base)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	return authority{cert: cert, pem: certPEM, key: signer}, err
}

// subject is whom a certificate is for.
type subject struct {
	name, group string
	ips         []net.IP
	names       []string
}

// issue makes a key and a certificate for it, both as PEM.
func (a authority) issue(s subject) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM, err = a.sign(s, key.Public())
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

func (a authority) sign(s subject, key crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.name},
		NotBefore: a.cert.NotBefore, NotAfter: time.Now().Add(year),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: s.ips, DNSNames: s.names,
	}
	if s.group != "" {
		template.Subject.Organization = []string{s.group}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// ensurePair writes name.crt and name.key below the directory of keys, unless they
// are there.
func (a authority) ensurePair(name string, s subject) error {
	base := filepath.Join(layout.KubernetesPKI, name)
	if _, err := os.Stat(base + ".crt"); err == nil {
		if _, err := tls.LoadX509KeyPair(base+".crt", base+".key"); err != nil {
			return fmt.Errorf("failure loading %s certificate: %w", name, err) // torn, say
		}
		return nil
	}
	cert, key, err := a.issue(s)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(base+".crt", cert, 0o644), os.WriteFile(base+".key", key, 0o600))
}

// kubeconfig is the part of a kubeconfig that is used here.
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
		CAData string `yaml:"certificate-authority-data"`
	} `yaml:"cluster"`
}

type namedUser struct {
	Name string `yaml:"name"`
	User struct {
		CertData string `yaml:"client-certificate-data,omitempty"`
		KeyData  string `yaml:"client-key-data,omitempty"`
		Token    string `yaml:"token,omitempty"`
	} `yaml:"user"`
}

type namedContext struct {
	Name    string `yaml:"name"`
	Context struct {
		Cluster string `yaml:"cluster"`
		User    string `yaml:"user"`
	} `yaml:"context"`
}

// newKubeconfig names server and CA; the caller adds credentials to the one user.
func newKubeconfig(server string, ca []byte) kubeconfig {
	k := kubeconfig{
		APIVersion: "v1", Kind: "Config", CurrentContext: "c",
		Clusters: []namedCluster{{Name: "c"}}, Users: []namedUser{{Name: "u"}}, Contexts: []namedContext{{Name: "c"}},
	}
	k.Clusters[0].Cluster.Server, k.Clusters[0].Cluster.CAData = server, base64.StdEncoding.EncodeToString(ca)
	k.Contexts[0].Context.Cluster, k.Contexts[0].Context.User = "c", "u"
	return k
}

func (k kubeconfig) write(path string) error {
	b, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

func readKubeconfig(path string) (kubeconfig, error) {
	var k kubeconfig
	b, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(b, &k)
	}
	if err == nil && (len(k.Clusters) == 0 || len(k.Users) == 0) {
		err = errors.New("no cluster or no user")
	}
	if err != nil {
		return k, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// ensureKubeconfig writes a kubeconfig with a certificate, unless it is there.
func (a authority) ensureKubeconfig(path, server string, s subject) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	cert, key, err := a.issue(s)
	if err != nil {
		return err
	}
	k := newKubeconfig(server, a.pem)
	k.Users[0].User.CertData, k.Users[0].User.KeyData = base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key)
	return k.write(path)
}
