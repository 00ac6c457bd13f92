package userdata

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Platform is a way in which user-data gets to a server, and how much it carries.
type Platform struct {
	Name   string // as --limit takes it
	Title  string
	Limit  int    // bytes; 0: not known
	Base64 bool   // the limit counts the bytes in base64
	Source string // who says so
}

// Limit is the smallest limit of any platform, in bytes before any encoding.
const Limit = 16_384

// Unlimited is the limit of what carries files.
const Unlimited = math.MaxInt

// Any is the default: user-data that every platform takes.
var Any = Platform{Name: "any", Title: "every platform", Limit: Limit, Source: "the smallest limit of those below, Amazon EC2's"}

// Platforms lists them by name.
var Platforms = []Platform{
	Any,
	{Name: "azure", Title: "Microsoft Azure, custom data", Limit: 65_535, Source: "Azure REST API, osProfile.customData: the maximum length of the binary array"},
	{Name: "cloudstack", Title: "Apache CloudStack", Limit: 32_768, Base64: true, Source: "CloudStack, deployVirtualMachine by POST before vm.userdata.max.length; by GET about 3 KB"},
	{Name: "digitalocean", Title: "DigitalOcean", Limit: 65_536, Source: "DigitalOcean API, user_data: plain text of at most 64 KiB"},
	{Name: "ec2", Title: "Amazon EC2", Limit: Limit, Source: "EC2 RunInstances: limited to 16384 bytes before base64"},
	{Name: "hetzner", Title: "Hetzner Cloud", Limit: 32_768, Source: "Hetzner Cloud API, user_data: limited to 32 KiB"},
	{Name: "latitude", Title: "Latitude.sh", Source: "no limit in its API reference"},
	{Name: "maas", Title: "MAAS", Source: "no limit in its documentation"},
	{Name: "metal", Title: "Equinix Metal and services with its API", Source: "no limit in its API; its command line sends text only"},
	{Name: "nocloud", Title: "NoCloud: a disk labelled CIDATA, a directory, an HTTP server", Limit: Unlimited, Source: "files"},
	{Name: "openstack", Title: "OpenStack Nova and Ironic", Limit: 65_535, Base64: true, Source: "Nova API, user_data: at most 65535 bytes in base64"},
	{Name: "oracle", Title: "Oracle Cloud", Limit: 32_000, Base64: true, Source: "Oracle's answer to larger ones: metadata cannot be larger than 32000 bytes, all of it together"},
	{Name: "ovh", Title: "OVHcloud dedicated servers", Source: "no limit in its documentation"},
	{Name: "phoenixnap", Title: "phoenixNAP Bare Metal Cloud", Source: "no limit in its API"},
	{Name: "scaleway", Title: "Scaleway Elastic Metal", Source: "no limit in its API"},
	{Name: "tinkerbell", Title: "Tinkerbell, Hardware.spec.userData", Limit: 1 << 20, Source: "an object of Kubernetes may have 1.5 MiB in etcd; a third is left to the rest of it"},
	{Name: "vultr", Title: "Vultr", Source: "no limit in its API"},
}

// PlatformNamed returns the platform of that name.
func PlatformNamed(name string) (Platform, error) {
	i := slices.IndexFunc(Platforms, func(p Platform) bool { return p.Name == name })
	if i < 0 {
		var names []string
		for _, p := range Platforms {
			names = append(names, p.Name)
		}
		return Platform{}, fmt.Errorf("there is no platform %q; there are %s", name, strings.Join(names, ", "))
	}
	return Platforms[i], nil
}

// AtMost is a platform with a limit of its own.
func AtMost(bytes int) Platform {
	return Platform{Name: "limit", Title: "the limit given", Limit: bytes}
}

// Holds is the largest user-data in bytes before any encoding. Where nobody says
// what a platform takes, it is what every other takes.
func (p Platform) Holds() int {
	limit := cmp.Or(p.Limit, Limit)
	if p.Base64 {
		return limit / 4 * 3
	}
	return limit
}

// SizeError says that user-data is larger than its platform takes.
type SizeError struct {
	Size     int // bytes, before any encoding
	Platform Platform
	Format   Format
	Parts    map[string]int // bytes of each file
}

// Error names the size, the limit, the biggest parts, and what helps.
func (e *SizeError) Error() string {
	paths := slices.SortedFunc(maps.Keys(e.Parts), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Parts[b], e.Parts[a]), strings.Compare(a, b))
	})
	var biggest []string
	for _, p := range paths[:min(3, len(paths))] {
		biggest = append(biggest, fmt.Sprintf("%s %d", p, e.Parts[p]))
	}
	limit := fmt.Sprintf("the %d that %s takes", e.Platform.Holds(), e.Platform.Title)
	if e.Platform.Base64 {
		limit += fmt.Sprintf(" (%d in base64)", e.Platform.Limit)
	}
	help := "Shorten the cluster file (spec.static, kubelet, containerd.extra), or say with --limit what your platform is known to take"
	if e.Format != MIME {
		help += ", or render with --format mime, which is compressed"
	}
	return fmt.Sprintf("the user-data has %d bytes, %d more than %s; its biggest parts in bytes: %s. %s",
		e.Size, e.Size-e.Platform.Holds(), limit, strings.Join(biggest, ", "), help)
}
