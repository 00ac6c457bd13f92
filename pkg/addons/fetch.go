package addons

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Limits of a download.
const (
	fetchTimeout = time.Minute
	fetchMax     = 16 << 20 // bytes; the largest manifests in use have about 1 MB
)

// Fetch gets the manifests of an add-on: from the cluster file, from the image, or
// from a URL, and then only with the right sha256.
func Fetch(ctx context.Context, a cluster.Addon) ([]byte, error) {
	switch {
	case a.Inline != "":
		return []byte(a.Inline), nil
	case a.File != "":
		data, err := os.ReadFile(a.File)
		if err != nil {
			return nil, fmt.Errorf("the manifests are to be in the image of this control plane: %w", err)
		}
		return data, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", a.URL, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, fetchMax+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", a.URL, err)
	}
	if len(data) > fetchMax {
		return nil, fmt.Errorf("%s answers more than %d bytes", a.URL, fetchMax)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.SHA256 {
		return nil, fmt.Errorf("%s answers %d bytes with the sha256 %x, expected %s: another version, or an error page", a.URL, len(data), sum, a.SHA256)
	}
	return data, nil
}
