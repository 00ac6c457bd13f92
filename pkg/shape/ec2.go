package shape

import (
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/device"
)

// ec2 reads the leaves of an EC2-style tree, named by their path below meta-data/.
// Tinkerbell's Tootles, hollow-metadataservice, EC2 and many clouds serve one. It
// tells neither gateway nor length of an address, and no BGP.
func ec2(docs Documents) (device.Device, error) {
	r := &reading{}
	leaf := func(name string) node {
		n := node{reading: r, path: "meta-data/" + name}
		if b, ok := docs[name]; ok {
			text := strings.TrimSpace(string(b))
			if strings.HasPrefix(text, "<") {
				n.refuse("is HTML or XML (%q): spec.metadata.url points at something else, or a proxy answered", head([]byte(text)))
			} else if text != "" {
				n.value = text
			}
		}
		return n
	}
	d := device.Device{ID: leaf("instance-id").text(), Tags: split(leaf("tags").text())}
	for _, name := range []string{"local-hostname", "hostname"} {
		// EC2 lists the names of several interfaces with a space between.
		if names := strings.Fields(leaf(name).text()); d.Hostname == "" && len(names) > 0 {
			d.Hostname = names[0]
		}
	}
	for _, list := range []struct {
		name   string
		public bool
	}{{"local-ipv4", false}, {"public-ipv4", true}, {"public-ipv6", true}, {"ipv6", true}} {
		for _, address := range split(leaf(list.name).text()) {
			addBare(&d, node{r, "meta-data/" + list.name, address}, list.public)
		}
	}
	const macs, tag = "network/interfaces/macs/", "tags/instance/"
	for name := range docs {
		if rest, ok := strings.CutPrefix(name, macs); ok {
			mac, _, _ := strings.Cut(rest, "/")
			d.MACs = append(d.MACs, mac)
		}
		if key, ok := strings.CutPrefix(name, tag); ok {
			d.Tags = append(d.Tags, key+"="+leaf(name).text())
		}
	}
	addMAC(&d, leaf("mac"))
	slices.Sort(d.Tags)
	return r.done(d, docs)
}
