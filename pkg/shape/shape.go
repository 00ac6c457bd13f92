// Package shape reads what platforms say of a server: one function a shape, the
// documents in, the device out. It knows forms, not vendors.
//
// Floor 1: it fetches nothing; pkg/metadata does.
package shape

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mustermetal/muster/pkg/device"
)

// Documents are what a platform gave out, by the name that its service or seed
// has for each.
type Documents map[string][]byte

// Shape is one form in which platforms describe a server.
type Shape struct {
	Name string
	// Documents are the names of what Device reads, the first one needed.
	Documents []string
	// Device is pure. It fills in what the documents tell; a missing id, or a value
	// that is there and wrong, is an error that names the field. Kernel, cluster file
	// and device.Missing deal with the rest.
	Device func(Documents) (device.Device, error)
}

// All are the shapes, by spec.platform.
var All = []Shape{
	{"packet", []string{"metadata"}, one("metadata", packet)},
	{"ec2", []string{"instance-id"}, ec2},
	{"openstack", []string{"meta_data.json", "network_data.json"}, openStack},
	{"vultr", []string{"v1.json"}, one("v1.json", vultr)},
	{"hetzner", []string{"metadata", "private-networks"}, hetzner},
	{"latitude", []string{"metadata.json"}, one("metadata.json", latitude)},
	{"nocloud", []string{"meta-data", "network-config"}, noCloud},
	{"cloudinit", []string{"instance-data.json"}, one("instance-data.json", cloudInit)},
}

// Of returns the shape of a platform.
func Of(platform string) (Shape, bool) {
	i := slices.IndexFunc(All, func(s Shape) bool { return s.Name == platform })
	if i < 0 {
		return Shape{}, false
	}
	return All[i], true
}

// one makes a shape of a single JSON document.
func one(name string, read func(*reading, node) device.Device) func(Documents) (device.Device, error) {
	return func(docs Documents) (device.Device, error) {
		r := &reading{}
		root, err := r.json(docs[name])
		if err != nil {
			return device.Device{}, err
		}
		d := read(r, root)
		return r.done(d, docs)
	}
}

// done returns the device, or all that is wrong with its documents.
func (r *reading) done(d device.Device, docs Documents) (device.Device, error) {
	if d.ID == "" && len(r.problems) == 0 {
		r.problems = append(r.problems, errNoID)
	}
	if len(r.problems) == 0 {
		d.Settle()
		return d, nil
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		size += len(docs[name])
	}
	return device.Device{}, fmt.Errorf("metadata document of %d bytes is not usable: %w", size, errors.Join(r.problems...))
}

// errNoID is what a document without the server's id is.
var errNoID = errors.New("it has no id of the server")
