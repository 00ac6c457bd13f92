package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// planVersion is the version of the plan file's format.
const planVersion = 1

// Plan tells muster-directory.service how to start. The agent writes it to
// layout.DirectoryPlan before it starts the unit. It grants nothing: with
// Bootstrap set the service reads the election state, or the Lease, by itself. Neither
// Bootstrap nor Peers is enough where the server's own copy is complete.
type Plan struct {
	Version    int              `json:"version"`
	Epoch      uint64           `json:"epoch"`      // of the decree
	Generation uint64           `json:"generation"` // 0 for the first directory of an epoch
	CAHash     string           `json:"caHash"`     // sha256:…, from the decree
	Address    netip.AddrPort   `json:"address"`    // this server's private address, port 9763
	Bootstrap  bool             `json:"bootstrap"`  // this server holds GO, or the Lease of a generation above 0
	Peers      []netip.AddrPort `json:"peers"`      // the directories of the control planes; may include this one
}

// ParsePlan decodes a plan strictly: an unknown key, a second document, another
// version or a value that cannot be is an error. All problems of the values are
// reported at once.
func ParsePlan(data []byte) (Plan, error) {
	var p Plan
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Plan{}, fmt.Errorf("directory plan: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Plan{}, errors.New("directory plan: more than one JSON document")
	}
	if err := p.validate(); err != nil {
		return Plan{}, err
	}
	return p, nil
}

// Marshal encodes a plan, with the version set, after the checks of ParsePlan.
func (p Plan) Marshal() ([]byte, error) {
	p.Version = planVersion
	if p.Peers == nil {
		p.Peers = []netip.AddrPort{}
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("directory plan: %w", err)
	}
	return append(data, '\n'), nil
}

// Names says whether two plans are for the same directory.
func (p Plan) Names(q Plan) bool {
	return p.Epoch == q.Epoch && p.Generation == q.Generation && p.CAHash == q.CAHash && p.Address == q.Address
}

func (p Plan) validate() error {
	if p.Version != planVersion {
		return fmt.Errorf("directory plan: version %d, this bootstrap reads version %d; the agent and the directory must be the same binary", p.Version, planVersion)
	}
	var wrong []string
	if !validHash(p.CAHash) {
		wrong = append(wrong, fmt.Sprintf("caHash %q is not sha256: and 64 hex digits", p.CAHash))
	}
	if !usable(p.Address) {
		wrong = append(wrong, fmt.Sprintf("address %q is not an address of this server with a port", p.Address))
	}
	seen := map[netip.AddrPort]bool{}
	for _, peer := range p.Peers {
		switch {
		case !usable(peer):
			wrong = append(wrong, fmt.Sprintf("peer %q is not an address with a port", peer))
		case seen[peer]:
			wrong = append(wrong, fmt.Sprintf("peer %s is listed twice", peer))
		}
		seen[peer] = true
	}
	if len(wrong) > 0 {
		return fmt.Errorf("directory plan: %s", strings.Join(wrong, "; "))
	}
	return nil
}

func usable(a netip.AddrPort) bool {
	return a.IsValid() && a.Port() != 0 && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast()
}
