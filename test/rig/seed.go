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
	"github.com/mustermetal/muster/test/rig/metadata"
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
	const cniConfig = "/etc/cni/net.d/10-rig.conflist"
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
	files := map[string][]byte{}
	if ignition.Is(userData) {
		if err := ignition.Apply(ctx, root, userData); err != nil {
			return fmt.Errorf("seeding by Ignition: %w", err)
		}
	} else {
		files = s.cloudInitSeed(userData)
	}
	files["/etc/hostname"] = []byte(s.Name + "\n")
	for path, content := range files {
		mode := os.FileMode(0o644)
		if filepath.Base(path) == "user-data" || filepath.Base(path) == "user_data" {
			mode = 0o600
		}
		if err := machine.WriteFile(filepath.Join(root, path), content, mode); err != nil {
			return err
		}
	}
	// Last: it says that all is there.
	return machine.WriteFile(filepath.Join(root, cniConfig), cni, 0o644)
}

// cloudInitSeed is where cloud-init finds what it needs, by the server's platform: a
// seed, a config drive, or the name of the service.
func (s *Server) cloudInitSeed(userData []byte) map[string][]byte {
	files := map[string][]byte{
		// Addresses and routes are there before PID 1 is.
		"/etc/cloud/cloud.cfg.d/98-rig-network.cfg": []byte("network: {config: disabled}\n"),
	}
	told := s.told(userData)
	switch s.Platform {
	case metadata.Packet, metadata.EC2:
		// As the images of Equinix Metal had it.
		files["/etc/cloud/cloud.cfg.d/99-rig-datasource.cfg"] = []byte("datasource_list: [Ec2]\ndatasource: {Ec2: {metadata_urls: [\"" + MetadataURL + "\"], strict_id: false, max_wait: 120, timeout: 10}}\n")
	case metadata.OpenStack:
		files["/etc/cloud/cloud.cfg.d/99-rig-datasource.cfg"] = []byte("datasource_list: [ConfigDrive]\n")
		for name, document := range metadata.ConfigDrive(told) {
			files["/var/lib/cloud/seed/config_drive/openstack/latest/"+name] = document
		}
	default:
		if s.Platform != metadata.NoCloud && s.Platform != CloudInit { // what only the service tells
			told.Tags, told.BGP = nil, nil
		}
		for name, document := range metadata.Seed(told) {
			files["/var/lib/cloud/seed/nocloud/"+name] = document
		}
	}
	return files
}

// cni is the configuration of the bridge plugin: a range for each server, and the
// ToR has the routes between them, so that nothing is masqueraded.
func (s *Server) cni() ([]byte, error) {
	type object = map[string]any
	var ranges [][]object
	var routes []object
	for _, l := range s.Lines() {
		ranges = append(ranges, []object{{"subnet": l.Pods.String()}})
		routes = append(routes, object{"dst": map[string]string{"-4": "0.0.0.0/0", "-6": "::/0"}[family(l.Addr)]})
	}
	b, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0", "name": "rig",
		"plugins": []object{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
				"ipam": object{
					"type":   "host-local",
					"ranges": ranges,
					"routes": routes,
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

// ConfigDrive are the files of a config drive that tells this server what it is.
func (s *Server) ConfigDrive() map[string][]byte {
	files := map[string][]byte{}
	for name, document := range metadata.ConfigDrive(s.told([]byte("#cloud-config\n"))) {
		files["openstack/latest/"+name] = document
	}
	return files
}

// told is what the metadata service says of this server.
func (s *Server) told(userData []byte) metadata.Server {
	t := metadata.Server{
		ID: s.ID, Hostname: s.Name, Tags: s.Tags, MACs: []string{s.MAC}, Switch: "00000001", UserData: string(userData),
	}
	var private []metadata.Address
	private, t.BGP = s.toldFamilies()
	if s.Public.IsValid() {
		t.Addresses = append(t.Addresses, metadata.Address{Address: netip.PrefixFrom(s.Public, 31), Gateway: s.PublicGateway, Public: true, Block: PublicRange})
	}
	t.Addresses = append(t.Addresses, private...)
	switch s.Platform {
	case "":
	case metadata.Packet: // Equinix Metal and hollow-metadataservice serve the tree, too
		t.Forms = []string{metadata.Packet, metadata.EC2}
	case CloudInit:
		t.Forms = []string{metadata.NoCloud}
	default:
		t.Forms = []string{s.Platform}
	}
	return t
}
