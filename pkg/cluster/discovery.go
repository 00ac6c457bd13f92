package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Discovery is one way to find the first peers; exactly one field is set.
type Discovery struct {
	// Static lists private addresses of founding servers. One that boots is enough,
	// so name more than may be missing.
	Static []netip.Addr `yaml:"static,omitempty"`
	// Subnet asks every address of a range: private for the server's own private
	// networks, as the platform tells them and as they are on the link, or a range such
	// as 10.99.14.0/24. At most 4,096 addresses.
	Subnet string `yaml:"subnet,omitempty"`
	// DNS is a name whose A and AAAA records are servers. One that begins with an
	// underscore, such as _muster._udp.example.net, is asked for SRV records.
	DNS string `yaml:"dns,omitempty"`
	// Multicast asks by mDNS on the link of the private address. It reaches only
	// servers on the same layer 2.
	Multicast bool      `yaml:"multicast,omitempty"`
	PacketAPI PacketAPI `yaml:"packetAPI,omitempty"`
	// EIP asks the API server at kubernetes.endpoint for the private address in its
	// certificate: for servers that come to a cluster which has formed.
	EIP bool `yaml:"eip,omitempty"`
}

// PacketAPI lists the devices of a project by an API of the shape that Packet and
// Equinix Metal had. It needs a read-only token, which then lies in user-data.
type PacketAPI struct {
	// URL is the base of the API; the list is at URL/projects/PROJECT/devices.
	URL string `yaml:"url" required:"true" example:"https://api.example.net/metal/v1"`
	// Project is the id of the project.
	Project string `yaml:"project" required:"true" example:"93125c2a-8b78-4d4f-a3c4-7367d6b7cca8"`
	// Tag keeps devices that carry it.
	Tag string `yaml:"tag,omitempty"`
	// Metro keeps devices of that metro.
	Metro string `yaml:"metro,omitempty"`
}

// SubnetPrivate is the value of Discovery.Subnet for the server's own networks.
const SubnetPrivate = "private"

// SubnetMost is how many addresses discovery by subnet asks at most: at its rate
// that many take less than a minute.
const SubnetMost = 4096

// PacketAPIs are the lists of devices that discovery reads.
func (s Spec) PacketAPIs() []PacketAPI {
	var out []PacketAPI
	for _, d := range s.Discovery {
		if d.PacketAPI != (PacketAPI{}) {
			out = append(out, d.PacketAPI)
		}
	}
	return out
}

// ParseToken reads the file of a token: the one line that is neither empty nor a
// comment. Its errors never show the value.
func ParseToken(data []byte) (Secret, error) {
	line, err := onlyLine(data)
	if err != nil {
		return "", fmt.Errorf("the file of the token %w", err)
	}
	return Secret(line), checkToken(Secret(line))
}

// checkToken refuses what no HTTP header can carry.
func checkToken(token Secret) error {
	const most = 1024
	if n := len(token.Reveal()); n > most || strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the token has blanks or characters that no HTTP header carries; expected one word, as the API gave it")
	}
	return nil
}

// ways are the keys of Discovery that are set.
func (d Discovery) ways() []string {
	var out []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"static", len(d.Static) > 0}, {"subnet", d.Subnet != ""}, {"dns", d.DNS != ""}, {"multicast", d.Multicast},
		{"packetAPI", d.PacketAPI != (PacketAPI{})}, {"eip", d.EIP},
	} {
		if way.set {
			out = append(out, way.name)
		}
	}
	return out
}

func (v *validator) discovery() {
	const at = "spec.discovery"
	var all []string // static addresses
	var ways []string
	for i, d := range v.Spec.Discovery {
		p := index(at, i)
		set := d.ways()
		ways = append(ways, set...)
		switch {
		case len(set) > 1:
			v.errorf(p, "write each as an element of its own: - "+set[0]+": …", "says %s; an element is one way", strings.Join(set, " and "))
		case len(set) == 0 && v.fine(p+".packetAPI") && v.fine(p+".subnet") && v.fine(p+".dns"):
			v.missing(p+".static", "such as static: [10.99.14.9]; or subnet: private, dns: NAME, multicast: true, packetAPI: {…}, eip: true")
		}
		v.subnet(p+".subnet", d.Subnet)
		v.dnsName(p+".dns", d.DNS)
		v.packetAPI(p+".packetAPI", d.PacketAPI)
		if d.EIP && v.Spec.Kubernetes.Endpoint.Address == "" {
			v.errorf(p+".eip", "set kubernetes.endpoint, or name servers: - static: [10.99.14.9]", "asks at kubernetes.endpoint, and there is none")
		}
		for j, a := range d.Static {
			v.staticSeed(fmt.Sprintf("%s.static[%d]", p, j), a, all)
			all = append(all, a.String())
		}
	}
	v.enoughDiscovery(at, ways, all)
}

func (v *validator) staticSeed(p string, a netip.Addr, all []string) {
	if !isUnicast(a) {
		v.errorf(p, "the private address of a founding server", "%s is no address of a server", a)
	}
	if slices.Contains(all, a.String()) {
		v.errorf(p, "remove it here", "%s is listed twice", a)
	}
	v.example(p, a)
}

// enoughDiscovery says whether servers can find each other at all.
func (v *validator) enoughDiscovery(at string, ways, static []string) {
	n := v.Spec.Servers.Expect
	others := slices.ContainsFunc(ways, func(w string) bool { return w != "static" && w != "eip" })
	switch {
	case len(v.Spec.Discovery) == 0 && v.Spec.Join.CA != "":
		v.missing(at, "a server that joins must find the cluster: - static: [10.99.14.9, 10.99.14.11], private addresses of its servers")
	case len(v.Spec.Discovery) == 0 && n > 1:
		v.missing(at, fmt.Sprintf("%d servers must find each other: - static: [10.99.14.9, 10.99.14.11], private addresses of founding servers", n))
	case len(ways) > 0 && len(static) == 0 && !others && v.Spec.Join.CA == "" && n > 1:
		v.errorf(at, "add another way, such as - subnet: private", "eip finds a cluster that has formed; founding servers do not find each other by it")
	case len(static) == 1 && n > 2 && !others:
		v.warnf(at, "list private addresses of more founding servers", "if %s does not boot, the other servers never find each other", static[0])
	}
}

func (v *validator) subnet(p, subnet string) {
	if subnet == "" || subnet == SubnetPrivate {
		return
	}
	prefix, err := netip.ParsePrefix(subnet)
	switch {
	case err != nil:
		v.errorf(p, "private, or a range such as 10.99.14.0/24", "%q is no range of addresses", abbreviate(subnet))
	case prefix != prefix.Masked():
		v.errorf(p, "write "+prefix.Masked().String(), "%s has bits set to the right of its length", prefix)
	case prefix.Addr().BitLen()-prefix.Bits() > 12: // 1<<12 is SubnetMost
		v.errorf(p, fmt.Sprintf("at most %d addresses, a /%d; several ranges are several elements of discovery", SubnetMost, prefix.Addr().BitLen()-12), "%s has too many addresses to ask each", prefix)
	default:
		v.example(p, prefix.Addr())
	}
}

// dnsLabels are labels of a host name; SRV names begin theirs with an underscore.
var dnsLabels = regexp.MustCompile(`^(_?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$`)

func (v *validator) dnsName(p, name string) {
	if name == "" {
		return
	}
	if _, err := netip.ParseAddr(name); err == nil {
		v.errorf(p, "write - static: ["+name+"]", "%s is an address, expected a name", name)
	} else if len(name) > 253 || !dnsLabels.MatchString(name) {
		v.errorf(p, "such as k8s.example.net, or _muster._udp.example.net for SRV records", "%q is no DNS name", abbreviate(name))
	}
}

func (v *validator) packetAPI(p string, api PacketAPI) {
	if api == (PacketAPI{}) {
		return
	}
	u, err := url.Parse(api.URL)
	switch {
	case api.URL == "": // said to be missing
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.errorf(p+".url", "such as https://api.example.net/metal/v1", "%q is not an http or https URL of a host, without user, query and fragment", abbreviate(api.URL))
	case u.Scheme == "http":
		v.warnf(p+".url", "use https", "the token goes over the network in the clear")
	}
	if api.Project != "" && url.PathEscape(api.Project) != api.Project {
		v.errorf(p+".project", "the id, not the name", "%q is no id of a project", abbreviate(api.Project))
	}
	v.warnf(p, "make it read-only, and of this project alone", "the token lies in user-data, which whoever reaches the metadata service can read")
}
