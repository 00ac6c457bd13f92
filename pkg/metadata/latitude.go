package metadata

// latitudeService is that of Latitude.sh, which hands out a token first.
func latitudeService(base string) service {
	return service{
		base:  base,
		token: &token{path: "/metadata/v1/api/token", ttlHeader: "X-Metadata-Token-TTL-Seconds", header: "X-Metadata-Token"},
		files: []file{{name: "metadata.json", path: "/metadata/v1/metadata.json"}},
	}
}
