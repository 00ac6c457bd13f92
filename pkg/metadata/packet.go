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

	"github.com/mustermetal/muster/pkg/device"
)

const (
	attemptTimeout = 5 * time.Second // of one request with its answer; services answer in milliseconds
	maxDocument    = 1 << 20         // real documents have 2 to 8 KB
)

// Packet is the Packet / Equinix Metal metadata service and those that speak its
// format. It knows a server by the source address of the request.
type Packet struct {
	BaseURL string       // the document is at BaseURL/metadata
	HTTP    *http.Client // nil is a client without proxy and without kept connections
}

// Device asks once, within 5 s. Redirects are not followed: a document from
// somewhere else describes somebody else, or is a login page.
func (p Packet) Device(ctx context.Context) (device.Device, error) {
	address := strings.TrimSuffix(p.BaseURL, "/") + "/metadata"
	document, err := p.get(ctx, address)
	if err != nil {
		return device.Device{}, fmt.Errorf("metadata: GET %s: %w", address, err)
	}
	d, err := device.ParsePacket(document)
	if err != nil {
		return device.Device{}, fmt.Errorf("metadata: GET %s: %w", address, err)
	}
	return d, nil
}

func (p Packet) get(ctx context.Context, address string) ([]byte, error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(attempt, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("spec.metadata.url: %w", err)
	}
	// The original service refused anything more particular with 406.
	request.Header.Set("Accept", "*/*")
	response, err := p.client().Do(request)
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

func (p Packet) client() *http.Client {
	client := http.Client{Transport: &http.Transport{
		// No Proxy, whatever the environment says: the service must see our address.
		DialContext:       (&net.Dialer{}).DialContext,
		DisableKeepAlives: true,
	}}
	if p.HTTP != nil {
		client = *p.HTTP
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
		return fmt.Errorf("the metadata service does not know this server yet: it answers 404%s", said)
	case code >= 300 && code < 400:
		return fmt.Errorf("the metadata service answers %d and points to %q, which is not followed; set spec.metadata.url to where the document is", code, r.Header.Get("Location"))
	case code >= 500:
		return fmt.Errorf("the metadata service is in trouble: it answers %s%s", r.Status, said)
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
		return fmt.Errorf("the metadata service did not answer within %s: %w", attemptTimeout, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the metadata service is not there yet: %w", err)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Errorf("there is no route to the metadata service yet; see ip route: %w", err)
	case errors.As(err, &name):
		return fmt.Errorf("the name of the metadata service is not resolved yet; see /etc/resolv.conf: %w", err)
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return fmt.Errorf("the certificate of the metadata service is not valid at the time of this server's clock, which may be wrong: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the metadata service hung up: %w", err)
	}
	return err
}
