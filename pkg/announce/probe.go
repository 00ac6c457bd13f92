package announce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const (
	probePeriod  = 500 * time.Millisecond
	probeTimeout = 700 * time.Millisecond
	// slowAnswer is when a probe that has no answer yet also asks without etcd.
	slowAnswer = 200 * time.Millisecond
)

// withoutEtcd excludes the etcd checks, and with them their whole groups
// (k8s.io/apiserver/pkg/server/healthz). It is asked for instead of reading the
// list of failed checks in the answer, because that answer comes too late: while
// etcd has no leader each of the two checks blocks for up to 2 s.
const withoutEtcd = "?exclude=etcd&exclude=etcd-readiness"

// Prober looks at one API server. It is used by one goroutine at a time.
type Prober struct {
	url, caFile string
	client      *http.Client
	loaded      os.FileInfo // of the CA file that client trusts
}

// NewProber returns a prober of url, an API server's /readyz. The certificate
// must be signed by the CA in the PEM file caFile, which is read when it is
// there and again when it changes: it is made long after the speaker starts.
func NewProber(url, caFile string) *Prober { return &Prober{url: url, caFile: caFile} }

// answer is what came back for one request.
type answer struct {
	status int
	err    error
}

// Probe asks once and takes at most 700 ms. The sentence says what was found
// when the verdict is not Ready.
func (p *Prober) Probe(ctx context.Context) (Verdict, string) {
	if err := p.load(); err != nil {
		return Failed, err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	whole := p.ask(ctx, p.url)
	slow := time.NewTimer(slowAnswer)
	defer slow.Stop()
	var a answer
	var rest <-chan answer
	select {
	case a = <-whole:
	case <-slow.C:
		rest = p.ask(ctx, p.url+withoutEtcd)
		a = <-whole
	}
	timedOut := errors.Is(a.err, context.DeadlineExceeded)
	switch {
	case a.status == http.StatusOK:
		return Ready, ""
	case a.err != nil && !timedOut:
		return Failed, fmt.Sprintf("the API server does not answer: %v", a.err)
	}
	if rest == nil {
		rest = p.ask(ctx, p.url+withoutEtcd)
	}
	if b := <-rest; b.status == http.StatusOK {
		return EtcdOnly, "the API server is ready but for etcd"
	}
	if timedOut {
		return Failed, fmt.Sprintf("the API server gives no answer to %s within %v", p.url, probeTimeout)
	}
	return Failed, fmt.Sprintf("the API server answers %s with status %d, expected 200", p.url, a.status)
}

// ask sends one request; its one answer comes at the latest when ctx ends.
func (p *Prober) ask(ctx context.Context, url string) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			out <- answer{err: err}
			return
		}
		resp, err := p.client.Do(req)
		if err != nil {
			out <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		// Read to the end so that the connection is used again.
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		out <- answer{status: resp.StatusCode, err: err}
	}()
	return out
}

// load reads the CA file when it is new or changed.
func (p *Prober) load() error {
	info, err := os.Stat(p.caFile)
	if err != nil {
		return fmt.Errorf("the cluster CA is not there yet: %w", err)
	}
	if p.loaded != nil && os.SameFile(p.loaded, info) && info.ModTime().Equal(p.loaded.ModTime()) && info.Size() == p.loaded.Size() {
		return nil
	}
	pem, err := os.ReadFile(p.caFile)
	if err != nil {
		return fmt.Errorf("read the cluster CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("read the cluster CA: %s holds no certificate in PEM form", p.caFile)
	}
	p.Close()
	p.client = &http.Client{Transport: &http.Transport{
		// No proxy: the API server is on this server.
		DialContext:         (&net.Dialer{Timeout: probeTimeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 2,
	}}
	p.loaded = info
	return nil
}

// Close ends the connections that are kept for the next probe.
func (p *Prober) Close() {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
}

// Watch probes every 500 ms until ctx ends and reports whether the gate is open,
// with the last sentence, each time one of the two changes.
func (p *Prober) Watch(ctx context.Context, report func(open bool, why string)) {
	defer p.Close()
	tick := time.NewTicker(probePeriod)
	defer tick.Stop()
	var gate Gate
	first, wasOpen, last := true, false, ""
	for {
		verdict, why := p.Probe(ctx)
		if ctx.Err() != nil {
			return
		}
		open := gate.Next(verdict, time.Now())
		if first || open != wasOpen || why != last {
			report(open, why)
		}
		first, wasOpen, last = false, open, why
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
