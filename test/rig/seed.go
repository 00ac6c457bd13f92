package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/test/ignition"
	"github.com/mustermetal/muster/test/rig/machine"
)

func (r *Rig) layerDir() string { return filepath.Join(r.dir, "layer") }

// writeLayer writes what every server of a rig has over its image: the difference
// between a machine and a container on this host.
func (r *Rig) writeLayer() error {
	files := []struct {
		path, content string
		mode          os.FileMode
	}{
		{machine.InitPath, machine.Init, 0o755},
		// Scopes of pods now and then sit out the default 90 s at shutdown, cause unknown.
		{"/etc/systemd/system.conf.d/rig.conf", "[Manager]\nDefaultTimeoutStopSec=10s\n", 0o644},
		// Tests count what units said.
		{"/etc/systemd/journald.conf.d/rig.conf", "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nSystemMaxUse=200M\n", 0o644},
		// Nobody answers at that address and port, and says so at once. It must be
		// there: the kubelet refuses pods without the file, CoreDNS starts only with a
		// server in it.
		{"/etc/resolv.conf", "nameserver " + MetadataAddr.String() + "\n", 0o644},
	}
	for _, f := range files {
		if err := machine.WriteFile(filepath.Join(r.layerDir(), f.path), []byte(f.content), f.mode); err != nil {
			return err
		}
	}
	for _, d := range []string{"var/log/journal", "etc/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(r.layerDir(), d), 0o755); err != nil {
			return fmt.Errorf("writing the rig's layer: %w", err)
		}
	}
	for _, unit := range []string{"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount"} {
		err := os.Symlink("/dev/null", filepath.Join(r.layerDir(), "etc/systemd/system", unit))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("writing the rig's layer: %w", err)
		}
	}
	return nil
}

// seed writes at the first boot what makes this server this one, into the mounted
// root: the name, the CNI, and cloud-init's seed. Later boots find it there. Where
// user-data is for Ignition, what Ignition does takes the seed's place, and
// cloud-init finds nothing to do.
func (s *Server) seed(ctx context.Context) error {
	root := s.path("root")
	const noCloud, cniConfig = "/var/lib/cloud/seed/nocloud", "/etc/cni/net.d/10-rig.conflist"
	if _, err := os.Stat(filepath.Join(root, cniConfig)); err == nil {
		return nil
	}
	userData, err := os.ReadFile(s.path("user-data"))
	if err != nil {
		return fmt.Errorf("seeding: %w", err)
	}
	cni, err := s.cni()
	if err != nil {
		return err
	}
	type file struct {
		path    string
		content []byte
		mode    os.FileMode
	}
	files := []file{{"/etc/hostname", []byte(s.Name + "\n"), 0o644}}
	if ignition.Is(userData) {
		if err := ignition.Apply(ctx, root, userData); err != nil {
			return fmt.Errorf("seeding by Ignition: %w", err)
		}
	} else {
		files = append(files,
			// Addresses and routes are there before PID 1 is.
			file{noCloud + "/network-config", []byte("config: disabled\n"), 0o644},
			file{noCloud + "/user-data", userData, 0o600},
			file{noCloud + "/meta-data", fmt.Appendf(nil, "instance-id: %s\nlocal-hostname: %s\n", s.ID, s.Name), 0o644})
	}
	files = append(files, file{cniConfig, cni, 0o644}) // last: it says that all is there
	for _, f := range files {
		if err := machine.WriteFile(filepath.Join(root, f.path), f.content, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// cni is the configuration of the bridge plugin: a range for each server, and the
// ToR has the routes between them, so that nothing is masqueraded.
func (s *Server) cni() ([]byte, error) {
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0", "name": "rig",
		"plugins": []object{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
				"ipam": object{
					"type":   "host-local",
					"ranges": [][]object{{{"subnet": s.Pods.String()}}},
					"routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the CNI configuration: %w", err)
	}
	return append(b, '\n'), nil
}

// document is what the metadata service says of this server, in the Packet format
// as far as servers have it that announce by BGP.
func (s *Server) document() ([]byte, error) {
	type object = map[string]any
	peers := make([]string, len(Routers))
	for i, a := range Routers {
		peers[i] = a.String()
	}
	tags := s.Tags
	if tags == nil {
		tags = []string{}
	}
	addresses := []object{}
	address := func(a, gateway netip.Addr, block netip.Prefix, public bool) {
		addresses = append(addresses, object{
			"id": s.ID[:35] + fmt.Sprint(len(addresses)+1), "address_family": 4, "netmask": "255.255.255.254", "created_at": "2026-11-01T00:00:00Z",
			"public": public, "cidr": 31, "management": true, "enabled": true,
			"network": gateway.String(), "address": a.String(), "gateway": gateway.String(),
			"parent_block": object{"network": block.Addr().String(), "netmask": "255.255.0.0", "cidr": block.Bits(), "href": "/ips/" + s.ID},
		})
	}
	if s.Public.IsValid() {
		address(s.Public, s.PublicGateway, PublicRange, true)
	}
	address(s.Addr, s.Gateway, ServerRange, false)
	b, err := json.MarshalIndent(object{
		"id": s.ID, "hostname": s.Name, "iqn": "iqn.2026-11.net.packet:device." + s.ID[:8],
		"operating_system": object{"slug": "debian_12", "distro": "debian", "version": "12", "license_activation": object{"state": "unlicensed"}, "image_tag": nil},
		"plan":             "rig.nspawn.x86", "class": "rig.nspawn.x86", "reserved": false, "facility": "rig1", "metro": "rg", "state": "active",
		"private_subnets": []string{"10.0.0.0/8"}, "tags": tags, "ssh_keys": []string{}, "customdata": object{}, "switch_short_id": "00000001", "volumes": []string{},
		"network": object{
			"bonding":        object{"mode": 4, "link_aggregation": "individual", "mac": s.MAC},
			"interfaces":     []object{{"name": "eth0", "mac": s.MAC, "bond": "bond0"}},
			"addresses":      addresses,
			"metal_gateways": []string{},
		},
		"bgp_neighbors": []object{{
			"address_family": 4, "customer_as": ServerAS, "customer_ip": s.Addr.String(), "md5_enabled": true, "md5_password": md5,
			"multihop": true, "peer_as": RouterAS, "peer_ips": peers,
			"routes_in": []object{{"route": ElasticIP.String() + "/32", "exact": false}}, "routes_out": []object{},
		}},
		"api_url": MetadataURL, "phone_home_url": MetadataURL + "/phone-home", "user_state_url": MetadataURL + "/events",
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the metadata of %s: %w", s.Name, err)
	}
	return append(b, '\n'), nil
}
