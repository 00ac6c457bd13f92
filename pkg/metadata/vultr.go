package metadata

// vultrService answers at the link-local address. The header is what cloud-init
// sends it, too.
func vultrService(base string) service {
	return service{base: base, header: map[string]string{"Metadata-Token": "cloudinit"}, files: []file{{name: "v1.json", path: "/v1.json"}}}
}
