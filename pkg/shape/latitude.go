package shape

import "github.com/mustermetal/muster/pkg/device"

// latitude reads metadata.json of Latitude.sh. Addresses come without a length, and
// BGP is not told. Its object `network` is in no document that was seen, so it is
// left alone.
func latitude(_ *reading, root node) device.Device {
	d := device.Device{ID: root.at("instance_id").text(), Hostname: root.at("hostname").text(), Tags: root.at("tags").words()}
	addBare(&d, root.at("local_ipv4"), false)
	addBare(&d, root.at("public_ipv4"), true)
	addBare(&d, root.at("public_ipv6"), true)
	return d
}
