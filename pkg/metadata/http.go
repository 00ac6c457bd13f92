package metadata

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/mustermetal/muster/pkg/shape"
)

const (
	attemptTimeout = 5 * time.Second // of one request with its answer; services answer in milliseconds
	maxDocument    = 1 << 20         // real documents have 2 to 8 KB
	// linkLocal is where metadata services answer by convention.
	linkLocal = "http://169.254.169.254"
)

// errAbsent is in the error of a document that the service does not have.
var errAbsent = errors.New("not there")

// ErrNoAnswer is in the error of a service that does not answer, or not yet: asking
// again makes sense, asking for something else does not.
var ErrNoAnswer = errors.New("no answer")

// service is a metadata service over HTTP: which documents it has, and what it
// wants to be told.
type service struct {
	base   string
	header map[string]string
	// token, where there is one, is got first and put into a header of each request.
	token *token
	files []file
	http  *http.Client // nil is a client without proxy and without kept connections
}

// file is a document of a shape and where the service has it. One that is optional
// may be absent.
type file struct {
	name, path string
	optional   bool
}

// token is how a service hands out what opens it: PUT path with a header that says
// how long it shall last.
type token struct {
	path, ttlHeader, header string
	// optional: a service that has no tokens is asked without.
	optional bool
}

// fetch gets all documents, each within 5 s.
func (s service) fetch(ctx context.Context) (found, error) {
	f := found{docs: shape.Documents{}}
	header, err := s.open(ctx)
	if err != nil {
		return f, err
	}
	for _, file := range s.files {
		document, err := s.get(ctx, file.path, header)
		if file.optional && errors.Is(err, errAbsent) {
			continue
		}
		if err != nil {
			return f, err
		}
		f.docs[file.name] = document
		f.from = append(f.from, s.url(file.path))
	}
	return f, nil
}

func (s service) url(path string) string { return strings.TrimSuffix(s.base, "/") + path }

// open returns the headers of further requests.
func (s service) open(ctx context.Context) (map[string]string, error) {
	if s.token == nil {
		return s.header, nil
	}
	const minutes = "300" // seconds; it is used at once
	t, err := s.request(ctx, http.MethodPut, s.token.path, map[string]string{s.token.ttlHeader: minutes})
	if err != nil {
		if s.token.optional && !errors.Is(err, ErrNoAnswer) && ctx.Err() == nil {
			return s.header, nil
		}
		return nil, err
	}
	return map[string]string{s.token.header: strings.TrimSpace(string(t))}, nil
}

func (s service) get(ctx context.Context, path string, header map[string]string) ([]byte, error) {
	return s.request(ctx, http.MethodGet, path, header)
}

func (s service) request(ctx context.Context, method, path string, header map[string]string) ([]byte, error) {
	body, err := s.exchange(ctx, method, s.url(path), header)
	if err != nil {
		return nil, fmt.Errorf("metadata: %s %s: %w", method, s.url(path), err)
	}
	return body, nil
}

// exchange makes one request. Redirects are not followed: a document from somewhere
// else describes somebody else, or is a login page.
func (s service) exchange(ctx context.Context, method, address string, header map[string]string) ([]byte, error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(attempt, method, address, nil)
	if err != nil {
		return nil, fmt.Errorf("spec.metadata.url: %w", err)
	}
	// Packet's service refused anything more particular with 406.
	request.Header.Set("Accept", "*/*")
	for key, value := range header {
		request.Header.Set(key, value)
	}
	response, err := s.client().Do(request)
	if err != nil {
		return nil, explain(ctx, attempt, err)
	}
	defer response.Body.Close()
	document, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if statusErr := status(response, document); statusErr != nil {
		return nil, statusErr
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("the answer is cut off after %d bytes: %w", len(document), err)
	case err != nil:
		return nil, explain(ctx, attempt, err)
	case len(document) > maxDocument:
		return nil, fmt.Errorf("the answer is larger than %d bytes, so it is no metadata document; is spec.metadata.url right?", maxDocument)
	}
	return document, nil
}

func (s service) client() *http.Client {
	client := http.Client{Transport: &http.Transport{
		// No Proxy, whatever the environment says: the service must see our address.
		DialContext:       (&net.Dialer{}).DialContext,
		DisableKeepAlives: true,
	}}
	if s.http != nil {
		client = *s.http
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// status turns the status line into a sentence; body is what came with it.
func status(r *http.Response, body []byte) error {
	said := ""
	if text := strings.Join(strings.Fields(string(body)), " "); text != "" {
		said = fmt.Sprintf(" and says %.120q", text)
	}
	switch code := r.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusNotFound:
		return marked{fmt.Errorf("the metadata service does not know this server yet: it answers 404%s", said), errAbsent}
	case code >= 300 && code < 400:
		return fmt.Errorf("the metadata service answers %d and points to %q, which is not followed; set spec.metadata.url to where the document is", code, r.Header.Get("Location"))
	case code >= 500:
		return marked{fmt.Errorf("the metadata service is in trouble: it answers %s%s", r.Status, said), ErrNoAnswer}
	default:
		return fmt.Errorf("the metadata service answers %s%s; expected 200", r.Status, said)
	}
}

// explain says in a sentence what kind of failure err is.
func explain(ctx, attempt context.Context, err error) error {
	var request *url.Error // names the URL, which the caller does too
	if errors.As(err, &request) {
		err = request.Err
	}
	var timeout interface{ Timeout() bool }
	var certificate x509.CertificateInvalidError
	var name *net.DNSError
	switch {
	case ctx.Err() != nil:
		return err // the caller gave up, the service did not fail
	case errors.Is(attempt.Err(), context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return marked{fmt.Errorf("the metadata service did not answer within %s: %w", attemptTimeout, err), ErrNoAnswer}
	case errors.Is(err, syscall.ECONNREFUSED):
		return marked{fmt.Errorf("the metadata service is not there yet: %w", err), ErrNoAnswer}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return marked{fmt.Errorf("there is no route to the metadata service yet; see ip route: %w", err), ErrNoAnswer}
	case errors.As(err, &name):
		return marked{fmt.Errorf("the name of the metadata service is not resolved yet; see /etc/resolv.conf: %w", err), ErrNoAnswer}
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return fmt.Errorf("the certificate of the metadata service is not valid at the time of this server's clock, which may be wrong: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return marked{fmt.Errorf("the metadata service hung up: %w", err), ErrNoAnswer}
	}
	return err
}

// marked is an error that is also another one, which its text does not repeat.
type marked struct {
	error
	is error
}

func (m marked) Unwrap() []error { return []error{m.error, m.is} }
