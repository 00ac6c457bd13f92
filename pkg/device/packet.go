package device

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// packetDocument is the part of the Packet / Equinix Metal metadata document
// that a server needs; everything else is ignored. Documents of ten years and
// several servers differ in which keys they leave out, so a key that may be
// missing is a pointer.
type packetDocument struct {
	ID       string          `json:"id"`
	Hostname string          `json:"hostname"`
	Tags     []string        `json:"tags"`
	Error    json.RawMessage `json:"error"`
	Metadata json.RawMessage `json:"metadata"` // only in documents that are not this format
	Network  struct {
		Interfaces []struct {
			MAC string `json:"mac"`
		} `json:"interfaces"`
		Addresses []packetAddress `json:"addresses"`
	} `json:"network"`
	BGPNeighbors []packetNeighbor `json:"bgp_neighbors"` // missing, null or [] until a session exists
}

type packetAddress struct {
	Address    string    `json:"address"`
	CIDR       *looseInt `json:"cidr"`
	Netmask    string    `json:"netmask"`
	Gateway    string    `json:"gateway"`
	Family     looseInt  `json:"address_family"`
	Public     bool      `json:"public"`
	Management *bool     `json:"management"` // false: an Elastic IP
	Enabled    *bool     `json:"enabled"`
}

type packetNeighbor struct {
	Family      looseInt `json:"address_family"`
	CustomerAS  uint32   `json:"customer_as"`
	CustomerIP  string   `json:"customer_ip"`
	MD5Enabled  *bool    `json:"md5_enabled"`
	MD5Password *string  `json:"md5_password"`
	Multihop    bool     `json:"multihop"`
	PeerAS      uint32   `json:"peer_as"`
	PeerIPs     []string `json:"peer_ips"`
}

// looseInt is a number that some servers write as a string.
type looseInt int

// UnmarshalJSON takes 31 and "31".
func (n *looseInt) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	v, err := strconv.Atoi(strings.Trim(string(b), `"`))
	if err != nil {
		return fmt.Errorf("%s is not a number", b)
	}
	*n = looseInt(v)
	return nil
}

// ParsePacket reads a Packet / Equinix Metal metadata document. Unknown keys are
// ignored; what a server cannot do without is an error that names all that is
// missing: id, hostname, and a private address. Missing bgp_neighbors are no
// error, because not every cluster needs them.
func ParsePacket(document []byte) (Device, error) {
	var doc packetDocument
	if err := decodeDocument(document, &doc); err != nil {
		return Device{}, err
	}
	d := Device{ID: doc.ID, Hostname: doc.Hostname}
	d.Tags = append(d.Tags, doc.Tags...)
	for _, link := range doc.Network.Interfaces {
		d.MACs = append(d.MACs, link.MAC)
	}
	d.MACs = cleanMACs(d.MACs)

	var problems []error
	for i, a := range doc.Network.Addresses {
		if err := d.addAddress(a); err != nil {
			problems = append(problems, fmt.Errorf("network.addresses[%d]: %w", i, err))
		}
	}
	for i, n := range doc.BGPNeighbors {
		if err := d.addNeighbor(n); err != nil {
			problems = append(problems, fmt.Errorf("bgp_neighbors[%d]: %w", i, err))
		}
	}
	slices.SortStableFunc(d.BGPNeighbors, func(a, b Neighbor) int { return cmp.Compare(a.Family, b.Family) })
	if missing := d.missing(); len(missing) > 0 {
		problem := fmt.Errorf("it has no %s", strings.Join(missing, ", no "))
		if d.ID == "" && len(doc.Metadata) > 0 {
			problem = fmt.Errorf("%w; it looks like the document of Tinkerbell's Tootles, which describes neither network nor BGP: use platform: static", problem)
		}
		problems = append(problems, problem)
	}
	if len(problems) > 0 {
		return Device{}, fmt.Errorf("metadata document of %d bytes is not usable: %w", len(document), errors.Join(problems...))
	}
	return d, nil
}

// decodeDocument tells apart the things that arrive in place of a document.
func decodeDocument(document []byte, doc *packetDocument) error {
	trimmed := bytes.TrimSpace(document)
	switch {
	case len(trimmed) == 0:
		return errors.New("metadata document is empty")
	case trimmed[0] == '<':
		return fmt.Errorf("metadata document is HTML or XML (%q), not JSON: spec.metadata.url points at something else, or a proxy answered", head(trimmed))
	case trimmed[0] != '{':
		return fmt.Errorf("metadata document is no JSON object, it begins with %q", head(trimmed))
	}
	if err := json.Unmarshal(trimmed, doc); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset >= int64(len(trimmed)) {
			return fmt.Errorf("metadata document is cut off after %d bytes: %w", len(document), io.ErrUnexpectedEOF)
		}
		return fmt.Errorf("metadata document is not understood: %w", err)
	}
	if len(doc.Error) > 0 && string(doc.Error) != "null" && doc.ID == "" {
		return fmt.Errorf("the metadata service answered with an error document: %s", head(doc.Error))
	}
	return nil
}

func (d *Device) missing() []string {
	var missing []string
	if d.ID == "" {
		missing = append(missing, "id")
	}
	if d.Hostname == "" {
		missing = append(missing, "hostname")
	}
	if !slices.ContainsFunc(d.Addresses, func(a Address) bool { return !a.Public }) {
		missing = append(missing, "private address (in network.addresses, enabled, management, not public)")
	}
	return missing
}

func (d *Device) addAddress(a packetAddress) error {
	if a.Enabled != nil && !*a.Enabled {
		return nil
	}
	prefix, err := a.prefix()
	if err != nil {
		return err
	}
	if a.Family != 0 && int(a.Family) != family(prefix.Addr()) {
		return fmt.Errorf("address %s is not of address_family %d", prefix.Addr(), a.Family)
	}
	// Documents without the management key date from before Elastic IPs.
	if a.Management != nil && !*a.Management {
		if elastic := prefix.Masked(); !slices.Contains(d.ElasticIPs, elastic) {
			d.ElasticIPs = append(d.ElasticIPs, elastic)
		}
		return nil
	}
	address := Address{Prefix: prefix, Public: a.Public}
	if a.Gateway != "" {
		gateway, err := netip.ParseAddr(a.Gateway)
		if err != nil {
			return fmt.Errorf("gateway of %s: %w", prefix, err)
		}
		address.Gateway = gateway.Unmap()
	}
	d.Addresses = append(d.Addresses, address)
	return nil
}

// prefix joins the address with its length, from cidr, else from the netmask.
func (a packetAddress) prefix() (netip.Prefix, error) {
	text, length, hasLength := strings.Cut(a.Address, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address %q: %w", a.Address, err)
	}
	addr = addr.Unmap().WithZone("")
	var bits int
	switch {
	case a.CIDR != nil:
		bits = int(*a.CIDR)
	case a.Netmask != "":
		if bits, err = maskBits(a.Netmask); err != nil {
			return netip.Prefix{}, fmt.Errorf("address %s: %w", addr, err)
		}
	case hasLength:
		if bits, err = strconv.Atoi(length); err != nil {
			return netip.Prefix{}, fmt.Errorf("address %q: its length is not a number", a.Address)
		}
	default:
		return netip.Prefix{}, fmt.Errorf("address %s has neither cidr nor netmask", addr)
	}
	if bits < 1 || bits > addr.BitLen() {
		return netip.Prefix{}, fmt.Errorf("address %s has length /%d; expected 1 to %d", addr, bits, addr.BitLen())
	}
	return netip.PrefixFrom(addr, bits), nil
}

// maskBits returns the length of a netmask in address form.
func maskBits(netmask string) (int, error) {
	mask, err := netip.ParseAddr(netmask)
	if err != nil {
		return 0, fmt.Errorf("netmask %q: %w", netmask, err)
	}
	bits := 0
	ended := false
	for _, b := range mask.AsSlice() {
		for i := 7; i >= 0; i-- {
			set := b>>i&1 == 1
			if set && ended {
				return 0, fmt.Errorf("netmask %s has a hole", netmask)
			}
			if set {
				bits++
			}
			ended = !set
		}
	}
	return bits, nil
}

func (d *Device) addNeighbor(n packetNeighbor) error {
	if len(n.PeerIPs) == 0 {
		return nil // a session that the platform has not placed on a router yet
	}
	neighbor := Neighbor{Family: int(n.Family), CustomerAS: n.CustomerAS, PeerAS: n.PeerAS, Multihop: n.Multihop}
	for _, s := range n.PeerIPs {
		// IPv6 peers are written out in full: fc00:0000:…:000e.
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("peer_ips: %w", err)
		}
		neighbor.PeerIPs = append(neighbor.PeerIPs, ip.Unmap())
	}
	slices.SortFunc(neighbor.PeerIPs, netip.Addr.Compare)
	neighbor.PeerIPs = slices.Compact(neighbor.PeerIPs)
	if neighbor.Family == 0 {
		neighbor.Family = family(neighbor.PeerIPs[0])
	}
	for _, ip := range neighbor.PeerIPs {
		if family(ip) != neighbor.Family {
			return fmt.Errorf("peer %s is not of address_family %d", ip, neighbor.Family)
		}
	}
	if n.CustomerIP != "" {
		ip, err := netip.ParseAddr(n.CustomerIP)
		if err != nil {
			return fmt.Errorf("customer_ip: %w", err)
		}
		neighbor.CustomerIP = ip.Unmap()
	}
	if neighbor.CustomerAS == 0 || neighbor.PeerAS == 0 {
		return fmt.Errorf("customer_as is %d and peer_as is %d; both are needed", neighbor.CustomerAS, neighbor.PeerAS)
	}
	if n.MD5Password != nil {
		neighbor.MD5 = *n.MD5Password
	}
	if n.MD5Enabled != nil && !*n.MD5Enabled {
		neighbor.MD5 = ""
	}
	if n.MD5Enabled != nil && *n.MD5Enabled && neighbor.MD5 == "" {
		return errors.New("md5_enabled is true, but md5_password is empty")
	}
	d.BGPNeighbors = append(d.BGPNeighbors, neighbor)
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// head returns the beginning of what came in place of a document, for a person.
func head(b []byte) string {
	const most = 120
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
