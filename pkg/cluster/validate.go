package cluster

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// validator checks what types cannot say. It sees the cluster with defaults, and
// keeps quiet about whatever the decoder refused.
type validator struct {
	report
	Cluster
	formed   bool // it is for a cluster that has formed
	unlocked bool // what servers install is not asked for
}

func (v *validator) validate(server bool) {
	v.name("metadata.name", v.Metadata.Name)
	if id := v.Spec.ID; id != "" && !isHex(id, 32) {
		v.errorf("spec.id", "`userdata init` writes a new one; `openssl rand -hex 16` prints one", "%q is not 32 lower-case hex digits", abbreviate(id))
	}
	v.secret(server)
	v.servers()
	v.eligible(server)
	v.electors()
	v.join()
	v.source()
	v.discovery()
	v.reports()
	v.agent()
	v.artifacts()
	v.kubernetes()
	v.passedOn()
	v.endpoint()
	v.network()
	v.kubeVIP()
	v.services()
	v.firewall()
	v.ranges()
	v.reachable()
	v.ports()
	v.static(server)
	if v.Spec.Unsafe.StateFilesystem {
		v.warnf("spec.unsafe.stateFilesystem", "for test servers only", "a power loss makes servers forget their votes, so that two clusters may come of it")
	}
}

func (v *validator) secret(server bool) {
	var given []string
	if len(v.Spec.SecretFrom.Exec) > 0 {
		given = append(given, "exec")
	}
	if v.Spec.SecretFrom.Env != "" {
		given = append(given, "env")
	}
	if v.Spec.SecretFrom.File != "" {
		given = append(given, "file")
	}
	if len(given) > 1 {
		v.errorf("spec.secretFrom", "keep one of them", "says %s, which may contradict each other", strings.Join(given, " and "))
	}
	_, present := v.values["secret"]
	switch {
	case !server && present:
		v.errorf("secret", "remove it here; it is a file of its own (`userdata init` writes NAME.secret) and `userdata render` adds it", "does not belong into the cluster file, which people share")
	case server && !present:
		v.missing("secret", "`userdata render` adds it; was this file copied by hand?")
	case server:
		if err := v.Secret.check(); err != nil {
			v.errorf("secret", "render the user-data again", "%v", err)
		}
	}
	_, second := v.values["acceptSecret"]
	switch err := v.AcceptSecret.check(); {
	case !second:
	case !server:
		v.errorf("acceptSecret", "remove it here; `bootstrap rotate` writes it on servers", "does not belong into the cluster file, which people share")
	case err != nil:
		v.errorf("acceptSecret", "remove it, and run bootstrap rotate accept again", "%v", err)
	case v.AcceptSecret == v.Secret:
		v.errorf("acceptSecret", "remove it", "is the secret itself")
	}
	_, token := v.values["apiToken"]
	switch wanted := len(v.Spec.PacketAPIs()) > 0; {
	case !server && token:
		v.errorf("apiToken", "remove it here; write it to a file of its own, and `userdata render --api-token FILE` adds it", "does not belong into the cluster file, which people share")
	case server && wanted && !token:
		v.missing("apiToken", "`userdata render --api-token FILE` adds it; discovery by packetAPI needs it")
	case server && token:
		if err := checkToken(v.APIToken); err != nil {
			v.errorf("apiToken", "render the user-data again", "%v", err)
		}
	}
}

func (v *validator) servers() {
	const expect, planes = "spec.servers.expect", "spec.servers.controlPlanes"
	n, k := v.Spec.Servers.Expect, v.Spec.Servers.ControlPlanes
	_, hasN := v.values[expect]
	_, hasK := v.values[planes]
	if hasN && (n < 1 || n > 1000) {
		v.errorf(expect, "1 to 1000: the servers that get this user-data, workers too", "%d servers cannot form a cluster", n)
	}
	switch {
	case !hasK:
	case k < 1:
		v.errorf(planes, "1, or 3 so that one may fail", "%d control planes cannot run a cluster", k)
	case hasN && n >= 1 && k > n && !v.formed && v.fine(expect):
		v.errorf(planes, fmt.Sprintf("expect counts control planes and workers: raise it to at least %d, or lower controlPlanes; a cluster that has formed takes it by `bootstrap apply` and `userdata render --join`", k), "%d control planes, but only %s expected", k, are(n, "server"))
	case k == 2:
		v.errorf(planes, "1, or 3 so that one may fail", "2 control planes stop when either fails: etcd needs a majority, so two are worse than one")
	case k > 7:
		v.errorf(planes, "1, 3, 5 or 7; more servers serve better as workers", "%d control planes: every write of etcd would wait for a majority of them", k)
	case k%2 == 0:
		v.warnf(planes, fmt.Sprintf("%d tolerate the same number of failures", k-1), "%d control planes: an even number gains nothing", k)
	}
	if after := v.Spec.Servers.Replace.After; after != 0 && (after < time.Minute || after > 24*time.Hour) {
		v.errorf("spec.servers.replace.after", "1m to 24h; 10m when left out", "%s is shorter than gossip needs to be sure that a server is gone, or too long for anybody to wait", after)
	}
	if v.Spec.Servers.Quorum == QuorumMajority {
		v.warnf("spec.servers.quorum", "safe tolerates one wiped or surplus server in three", "with majority one server that loses its disk while the cluster forms may lead to two clusters")
	}
}

func (v *validator) eligible(server bool) {
	const at = "spec.servers.eligible"
	e := v.Spec.Servers.Eligible
	var given []string
	for key, is := range map[string]bool{"tag": e.Tag != "", "hostname": e.Hostname != "", "list": len(e.List) > 0, "all": e.All, "none": e.None} {
		if is {
			given = append(given, key)
		}
	}
	slices.Sort(given)
	if len(given) > 1 {
		v.errorf(at, "keep one of them", "says %s, which may contradict each other", strings.Join(given, " and "))
	}
	if e.None && !server {
		v.errorf(at+".none", "remove it; `userdata render --role worker` writes it for servers that shall be workers", "no server may become a control plane, and no cluster would form")
	}
	if _, err := path.Match(e.Hostname, ""); err != nil {
		v.errorf(at+".hostname", "such as cp-* or node-[1-3]", "%q is not a pattern", e.Hostname)
	}
	v.distinct(at+".list", e.List)
	if k := v.Spec.Servers.ControlPlanes; len(e.List) > 0 && len(e.List) < k {
		v.errorf(at+".list", "name more servers, or lower controlPlanes", "names %d servers, but controlPlanes is %d", len(e.List), k)
	}
}

func (v *validator) electors() {
	const at = "spec.servers.electors"
	for i, id := range v.Spec.Servers.Electors {
		if !isHex(id, 32) {
			v.errorf(index(at, i), "`bootstrap status -o json` on a server shows its own as hw", "%q is not a hardware id, which is 32 lower-case hex digits", abbreviate(id))
		}
	}
	v.distinct(at, v.Spec.Servers.Electors)
	if n := v.Spec.Servers.Expect; n > 0 && len(v.Spec.Servers.Electors) > n && v.fine("spec.servers.expect") {
		v.errorf(at, "list founding servers only", "names %s, but only %s expected", count(len(v.Spec.Servers.Electors), "elector"), are(n, "server"))
	}
}

func (v *validator) join() {
	const at = "spec.join.ca"
	if ca := v.Spec.Join.CA; ca != "" && !IsCAHash(ca) {
		v.errorf(at, caHashHint, "%q is not the hash of a CA", abbreviate(ca))
	}
}

const caHashHint = "sha256: and 64 lower-case hex digits, as `bootstrap status -o json` on a server of the cluster shows it as caHash"

// IsCAHash says that s is the hash of a CA's public key as kubeadm writes it.
func IsCAHash(s string) bool {
	sum, ok := strings.CutPrefix(s, "sha256:")
	return ok && isHex(sum, 64)
}

func (v *validator) source() {
	const at = "spec.metadata"
	m := v.Spec.MetadataSource
	if v.Spec.Platform == PlatformStatic {
		if _, ok := v.values[at]; ok {
			v.errorf(at, "remove it, or write platform: packet", "is not read by platform static")
		}
		return
	}
	if m.URL != "" && v.Spec.Platform == PlatformCloudInit {
		v.errorf(at+".url", "remove it, or name the platform that answers there", "is not read by platform cloudinit, which reads a file")
	}
	if m.URL == "" && v.Spec.Platform == PlatformPacket {
		v.missing(at+".url", "the base URL of your metadata service, such as url: http://169.254.169.254; servers read URL/metadata")
	} else if u, err := url.Parse(m.URL); m.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		v.errorf(at+".url", "such as http://169.254.169.254", "%q is not an http or https URL of a host, without user, query and fragment", abbreviate(m.URL))
	} else if strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/metadata") {
		v.errorf(at+".url", "write "+strings.TrimSuffix(strings.TrimRight(m.URL, "/"), "/metadata"), "%q names the document; /metadata is appended to the base URL", m.URL)
	}
	if u, err := url.Parse(m.URL); err == nil {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			v.example(at+".url", a)
		}
	}
	if m.Deadline != 0 && (m.Deadline < 10*time.Second || m.Deadline > time.Hour) {
		v.errorf(at+".deadline", "10s to 1h; 5m when left out", "%s is too short for a slow service, or too long to notice a dead one", m.Deadline)
	}
}

// agentURL accepts what a shell may read from an unquoted word of an environment
// file: fetch.env is sourced.
var agentURL = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://[A-Za-z0-9._~:/?#\[\]@!&*+,;=%-]+$`)

func (v *validator) agent() {
	const at = "spec.agent"
	a := v.Spec.Agent
	for _, arch := range sortedKeys(a.SHA256) {
		p := at + ".sha256." + arch
		if arch != "amd64" && arch != "arm64" {
			v.errorf(p, "allowed: amd64, arm64", "%q is not an architecture that the agent is built for", arch)
		}
		if sum := a.SHA256[arch]; !isHex(sum, 64) {
			v.errorf(p, "`sha256sum bootstrap_linux_"+arch+"` prints it", "%q is not a sha256: 64 lower-case hex digits", abbreviate(sum))
		}
	}
	if len(a.URLs) > 0 && len(a.SHA256) == 0 && !v.unlocked {
		v.missing(at+".sha256", "such as sha256: {amd64: …}; `sha256sum` of the file prints it. Without one a mirror could run anything as root on every server")
	}
	for i, u := range a.URLs {
		p := index(at+".urls", i)
		parsed, err := url.Parse(u)
		switch {
		case err == nil && parsed.User != nil:
			v.errorf(p, "serve it without a password: the sha256 protects it", "has a user or a password in it, and user-data is no place for one")
		case err != nil || !agentURL.MatchString(u) || strings.ContainsAny(u, "[]") && parsed.Host == "":
			v.errorf(p, "such as https://mirror.example.net/bootstrap_linux_ARCH; write %24 for special characters", "%q is not a URL", abbreviate(u))
		case len(a.SHA256) > 1 && !strings.Contains(u, "ARCH"):
			v.errorf(p, "write ARCH where amd64 or arm64 stands in the file's name", "one file cannot have the sha256 of %d architectures", len(a.SHA256))
		}
	}
	v.distinct(at+".urls", a.URLs)
}

// label is a DNS label of RFC 1123.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// name checks a DNS label, empty ones are reported as missing elsewhere.
func (v *validator) name(path, name string) {
	if name != "" && !label.MatchString(name) {
		v.errorf(path, "lower-case letters, digits and hyphens, at most 63, no hyphen at either end, such as k8s-bgp", "%q is not a DNS label", abbreviate(name))
	}
}

// distinct reports elements that stand in a list twice.
func (v *validator) distinct(path string, list []string) {
	for i, s := range list {
		if j := slices.Index(list, s); j < i && s != "" {
			v.errorf(index(path, i), "remove it", "%q is listed twice, first as element %d", abbreviate(s), j)
		}
	}
}

// example warns of an address that documentation uses.
func (v *validator) example(path string, a netip.Addr) {
	for _, p := range documentation {
		if p.Contains(a) {
			v.warnf(path, "put your own address", "%s is an example address (%s is reserved for documentation)", a, p)
		}
	}
}

// documentation lists ranges that no network uses (RFC 5737, RFC 3849).
var documentation = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"),
}

// isUnicast says that a can be the address of a server.
func isUnicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isHex says that s is n lower-case hex digits.
func isHex(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == n && s == strings.ToLower(s)
}

// index is the path of an element of a list.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
