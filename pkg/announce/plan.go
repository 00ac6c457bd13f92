package announce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"

	"github.com/mustermetal/muster/pkg/plan"
)

// Errors that tell apart what a restart of the unit can help.
var (
	// ErrNoPlan: the agent has not written the plan yet; trying again helps.
	ErrNoPlan = errors.New("the speaker's plan is not there yet")
	// ErrPlan: the plan cannot work; only another plan helps.
	ErrPlan = errors.New("the speaker's plan is wrong")
)

// maxPassword is TCP_MD5SIG_MAXKEYLEN (uapi/linux/tcp.h).
const maxPassword = 80

// ReadPlan reads and checks the plan file. Errors are ErrNoPlan or ErrPlan; no
// error holds a password.
func ReadPlan(file string) (plan.Announcement, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return plan.Announcement{}, fmt.Errorf("%w: %s; the agent writes it on a control plane", ErrNoPlan, file)
	}
	if err != nil {
		return plan.Announcement{}, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	p, err := parsePlan(b)
	if err != nil {
		return plan.Announcement{}, fmt.Errorf("%w: %s: %w", ErrPlan, file, err)
	}
	return p, nil
}

// MarshalPlan returns the content of the plan file for p, or ErrPlan when a
// speaker would refuse it. It holds passwords: write it 0600.
func MarshalPlan(p plan.Announcement) ([]byte, error) {
	if err := check(p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return append(b, '\n'), nil
}

func parsePlan(b []byte) (plan.Announcement, error) {
	var p plan.Announcement
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return p, errors.New("more than one JSON value")
	}
	return p, check(p)
}

func check(p plan.Announcement) error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(p.Version == plan.AnnouncementVersion, "version %d, expected %d", p.Version, plan.AnnouncementVersion)
	bad(p.RouterID.Is4() && !p.RouterID.IsUnspecified(), "routerID %q, expected an IPv4 address", p.RouterID)
	bad(p.AS != 0, "as 0, expected the number that the routers know this server by")
	bad(len(p.Peers) > 0, "no peers: the metadata has no bgp_neighbors for an address of this server")
	seen := map[netip.Addr]bool{}
	for _, peer := range p.Peers {
		bad(peer.Address.IsValid() && peer.Source.IsValid() && peer.Address.Is4() == peer.Source.Is4(),
			"peer %q with source %q, expected two addresses of one family", peer.Address, peer.Source)
		bad(peer.AS != 0, "peer %q has as 0, expected the router's number", peer.Address)
		bad(len(peer.Password) <= maxPassword, "the password for peer %q has %d bytes, TCP MD5 allows %d", peer.Address, len(peer.Password), maxPassword)
		bad(!seen[peer.Address], "peer %q stands there twice", peer.Address)
		seen[peer.Address] = true
	}
	for _, prefix := range p.Prefixes {
		bad(prefix.IsSingleIP(), "prefix %q, expected a /32 or /128", prefix)
	}
	u, err := url.Parse(p.HealthURL)
	bad(err == nil && u.Scheme == "https" && u.Host != "", "healthURL %q, expected https://ADDRESS:PORT/readyz", p.HealthURL)
	bad(p.HealthCA != "", "healthCA is empty, expected the path of the cluster CA")
	return errors.Join(errs...)
}
