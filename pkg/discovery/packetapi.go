package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Bounds of the list: the API gives at most 100 devices a page, and nobody founds a
// cluster out of a project with more than 10,000.
const (
	devicesPerPage = 100
	mostPages      = 100
	mostPageBytes  = 8 << 20
)

// PacketAPI lists the devices of a project.
type PacketAPI struct {
	API    cluster.PacketAPI
	Token  cluster.Secret
	Self   netip.Addr
	Client *http.Client
}

// Name is the key and the project.
func (p PacketAPI) Name() string { return "packetAPI " + p.API.Project }

// Pace is slow, and one server asks for all: the API counts requests.
func (p PacketAPI) Pace() Pace {
	return Pace{Deadline: 30 * time.Second, Every: time.Minute, First: true}
}

// Find reads all pages. An address is found as soon as its page is read.
func (p PacketAPI) Find(ctx context.Context, found func(netip.Addr)) error {
	fits := 0
	for page, last := 1, 1; page <= last; page++ {
		if page > mostPages {
			return fmt.Errorf("the list of devices at %s has more than %d pages: narrow it with tag and metro", p.host(), mostPages)
		}
		body, err := p.page(ctx, page)
		if err != nil {
			return err
		}
		devices, pages, err := parseDevices(body)
		if err != nil {
			return fmt.Errorf("page %d of the list of devices at %s: %w", page, p.host(), err)
		}
		last = pages
		for _, d := range devices {
			if d.fits(p.API) {
				fits++
				for _, a := range ofFamily(p.Self, d.private) {
					found(a)
				}
			}
		}
	}
	if fits == 0 {
		return fmt.Errorf("the API at %s lists no device that fits: are project, tag and metro right, and may the token read the project?", p.host())
	}
	return nil
}

// host is what errors show of the URL.
func (p PacketAPI) host() string {
	if u, err := url.Parse(p.API.URL); err == nil {
		return u.Host
	}
	return "spec.discovery's packetAPI"
}

func (p PacketAPI) page(ctx context.Context, page int) ([]byte, error) {
	query := url.Values{"per_page": {strconv.Itoa(devicesPerPage)}, "page": {strconv.Itoa(page)}}
	if p.API.Tag != "" {
		query.Set("tag", p.API.Tag)
	}
	if p.API.Metro != "" {
		query.Set("metro", p.API.Metro)
	}
	at := strings.TrimRight(p.API.URL, "/") + "/projects/" + url.PathEscape(p.API.Project) + "/devices?" + query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("asking the API at %s: %w", p.host(), err)
	}
	request.Header.Set("X-Auth-Token", p.Token.Reveal())
	request.Header.Set("Accept", "application/json")
	client := *p.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		var told *url.Error // its URL is long and says nothing
		if errors.As(err, &told) {
			err = told.Err
		}
		return nil, fmt.Errorf("asking the API at %s: %w", p.host(), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, p.refused(response)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, mostPageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading from the API at %s: %w", p.host(), err)
	}
	if len(body) > mostPageBytes {
		return nil, fmt.Errorf("page %d of the API at %s is larger than %d bytes", page, p.host(), mostPageBytes)
	}
	return body, nil
}

// refused says what a status means here. What the body says may be anything.
func (p PacketAPI) refused(r *http.Response) error {
	hint := "it is asked again"
	switch {
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden:
		hint = "the token is wrong, or may not read the project: render the user-data again with another one"
	case r.StatusCode == http.StatusNotFound:
		hint = "is spec.discovery's packetAPI url the base of the API, and project the project's id?"
	case r.StatusCode == http.StatusTooManyRequests:
		hint = "too many requests; it is asked again in a minute"
	case r.StatusCode >= 300 && r.StatusCode < 400:
		hint = "a redirection, which is not followed, so that the token goes nowhere else: correct packetAPI url"
	}
	return fmt.Errorf("the API at %s answers %s; %s", p.host(), r.Status, hint)
}

// apiDevice is what discovery needs of one element of the list.
type apiDevice struct {
	tags    []string
	metro   string
	state   string
	private []netip.Addr
}

// fits says whether a device may be one of the cluster's servers. The API has
// filtered already; one that ignores what it does not know has not.
func (d apiDevice) fits(by cluster.PacketAPI) bool {
	gone := d.state == "deleted" || d.state == "deprovisioning" || d.state == "failed"
	return !gone && len(d.private) > 0 &&
		(by.Tag == "" || slices.Contains(d.tags, by.Tag)) &&
		(by.Metro == "" || d.metro == "" || strings.EqualFold(d.metro, by.Metro))
}

// parseDevices reads one page and returns how many there are.
func parseDevices(body []byte) ([]apiDevice, int, error) {
	var page struct {
		Devices *[]struct {
			State string   `json:"state"`
			Tags  []string `json:"tags"`
			Metro struct {
				Code string `json:"code"`
			} `json:"metro"`
			Addresses []struct {
				Address    string `json:"address"`
				Public     bool   `json:"public"`
				Management *bool  `json:"management"` // false: an Elastic IP
			} `json:"ip_addresses"`
		} `json:"devices"`
		Meta struct {
			Last int `json:"last_page"`
		} `json:"meta"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, 0, fmt.Errorf("is not the JSON that was expected: %w", err)
	}
	if page.Devices == nil {
		return nil, 0, errors.New("has no devices: is packetAPI url the base of the API?")
	}
	out := make([]apiDevice, 0, len(*page.Devices))
	for i, d := range *page.Devices {
		one := apiDevice{tags: d.Tags, metro: d.Metro.Code, state: d.State}
		for j, a := range d.Addresses {
			if a.Public || a.Management != nil && !*a.Management || a.Address == "" {
				continue
			}
			addr, err := netip.ParseAddr(a.Address)
			if err != nil {
				return nil, 0, fmt.Errorf("devices[%d].ip_addresses[%d].address %q is no IP address", i, j, a.Address)
			}
			one.private = append(one.private, addr.Unmap().WithZone(""))
		}
		out = append(out, one)
	}
	return out, max(page.Meta.Last, 1), nil
}
