package metadata

// hetznerService is that of Hetzner Cloud. Servers in no private network have no
// second document.
func hetznerService(base string) service {
	return service{base: base, files: []file{
		{name: "metadata", path: "/hetzner/v1/metadata"},
		{name: "private-networks", path: "/hetzner/v1/metadata/private-networks", optional: true},
	}}
}
