package shape

import (
	"cmp"

	"github.com/mustermetal/muster/pkg/device"
)

// cloudInit reads instance-data.json, in which cloud-init keeps what it found,
// whatever the platform: names always, and of the platform's own document what is
// there in a form that another shape reads too.
func cloudInit(_ *reading, root node) device.Device {
	v1, meta := root.at("v1"), root.at("ds").at("meta_data")
	d := device.Device{}
	if meta.isMapping() {
		openStackMeta(&d, meta)
		d.Tags = append(d.Tags, meta.at("tags").words()...)
		bgpText(&d, meta.at("bgp_neighbors"))
		for _, list := range []struct {
			key    string
			public bool
		}{{"local-ipv4", false}, {"local_ipv4", false}, {"public-ipv4", true}, {"public_ipv4", true}} {
			addBare(&d, meta.at(list.key), list.public)
		}
	}
	if network := root.at("ds").at("network_json"); network.isMapping() {
		networkData(&d, network)
	}
	d.ID = cmp.Or(v1.at("instance_id").text(), v1.at("instance-id").text())
	d.Hostname = cmp.Or(v1.at("local_hostname").text(), v1.at("local-hostname").text(), d.Hostname)
	return d
}
