package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// client speaks to an API server or to etcd's gateway.
type client struct {
	base, token string
	http        http.Client
}

func newClient(base string, ca []byte, cert *tls.Certificate, token string) (*client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the CA holds no certificate")
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return &client{base: base, token: token, http: http.Client{
		Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true},
	}}, nil
}

// open is a client with the rights of a kubeconfig; token is of a user that has no
// credentials in it.
func (k kubeconfig) open(token string) (*client, error) {
	ca, err := base64.StdEncoding.DecodeString(k.Clusters[0].Cluster.CAData)
	if err != nil {
		return nil, err
	}
	user := k.Users[0].User
	if user.Token != "" {
		token = user.Token
	}
	var cert *tls.Certificate
	if user.CertData != "" {
		certPEM, err := base64.StdEncoding.DecodeString(user.CertData)
		if err != nil {
			return nil, err
		}
		keyPEM, err := base64.StdEncoding.DecodeString(user.KeyData)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, err
		}
		cert = &pair
	}
	return newClient(k.Clusters[0].Cluster.Server, ca, cert, token)
}

// call sends one request. What is not 2xx is a failure.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return failure{answer.StatusCode, fmt.Sprintf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(b))}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// until tries every 200 ms, as Kubernetes' own programs poll, until it succeeds or
// ctx ends.
func until(ctx context.Context, what string, try func() error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
