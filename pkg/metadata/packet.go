package metadata

// packetService is the Packet / Equinix Metal service and those that speak its
// format. It knows a server by the source address of the request.
func packetService(base string) service {
	return service{base: base, files: []file{{name: "metadata", path: "/metadata"}}}
}
