package metadata

import (
	"context"

	"github.com/mustermetal/muster/pkg/cluster"
)

// openStackService is Nova's over HTTP.
func openStackService(base string) service {
	return service{base: base, files: []file{
		{name: "meta_data.json", path: "/openstack/latest/meta_data.json"},
		{name: "network_data.json", path: "/openstack/latest/network_data.json", optional: true},
	}}
}

// configDrives are where a config drive is mounted or copied: by cloud-init as a
// seed, by Flatcar, and by hand.
var configDrives = []string{"var/lib/cloud/seed/config_drive", "config-drive", "media/configdrive", "mnt/config"}

// openStack reads the config drive where it is mounted, else what cloud-init kept of
// it, else the drive itself, else the service at the link-local address.
func openStack(m Machine) fetcher {
	return func(ctx context.Context) (found, error) {
		root := m.Root
		for _, dir := range configDrives {
			f, err := readFiles(root, dir+"/openstack/latest", "meta_data.json", "network_data.json")
			if err != nil || len(f.docs) > 0 {
				return f, err
			}
		}
		if k, ok := readKept(root); ok {
			if f, ok := k.documents("meta_data.json", "network_data.json", "openstack", "configdrive"); ok {
				return f, nil
			}
		}
		if f, err := m.readDrive(ctx, cluster.PlatformOpenStack, "/openstack/latest", "meta_data.json", "network_data.json"); err != nil || len(f.docs) > 0 {
			return f, err
		}
		return openStackService(linkLocal).fetch(ctx)
	}
}
