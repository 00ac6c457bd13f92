// Package metadata is a metadata service for test and lab servers: it tells each
// server, known by its source address or its MAC address, what it is, in the forms
// of Packet, EC2, OpenStack and NoCloud, and hands out its user-data. It can be told
// to be slow, late, wrong or absent towards one server.
//
// docs/lab-metadata.md says how a lab uses it.
package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gopkg.in/yaml.v3"
)

// Forms in which a server is described.
const (
	Packet    = "packet"
	EC2       = "ec2"
	OpenStack = "openstack"
	NoCloud   = "nocloud"
)

// forms are those of a server that says none; the vendors' own exclude each other.
var forms = []string{Packet, EC2, OpenStack, NoCloud}

// Server is what the service says of one server.
type Server struct {
	ID       string   `yaml:"id"`
	Hostname string   `yaml:"hostname"`
	Tags     []string `yaml:"tags,omitempty"`
	// MACs are those of its ports, by which it is known where its address is not.
	MACs      []string   `yaml:"macs,omitempty"`
	Addresses []Address  `yaml:"addresses"`
	BGP       []Neighbor `yaml:"bgp,omitempty"`
	Switch    string     `yaml:"switch,omitempty"` // the top-of-rack switch
	// UserData is text, or the name of a file beside the inventory.
	UserData     string `yaml:"userData,omitempty"`
	UserDataFile string `yaml:"userDataFile,omitempty"`
	// Forms limits the forms in which it is described; empty: all.
	Forms []string `yaml:"forms,omitempty"`
	Fault Fault    `yaml:"fault,omitempty"`
}

// Address is an address of a server. The requests of the server come from one.
type Address struct {
	Address netip.Prefix `yaml:"address"`
	Gateway netip.Addr   `yaml:"gateway"`
	Public  bool         `yaml:"public,omitempty"`
	Block   netip.Prefix `yaml:"block"`             // what the address was cut from
	Elastic bool         `yaml:"elastic,omitempty"` // routed to the server, not configured on it
}

// Neighbor is a bgp_neighbors entry.
type Neighbor struct {
	CustomerAS uint32       `yaml:"customerAS"`
	CustomerIP netip.Addr   `yaml:"customerIP"`
	PeerAS     uint32       `yaml:"peerAS"`
	PeerIPs    []netip.Addr `yaml:"peerIPs"`
	MD5        string       `yaml:"md5,omitempty"`
	Multihop   bool         `yaml:"multihop,omitempty"`
}

// Ways in which the service can fail a server.
const (
	Absent    = "absent"    // 404, as before the platform knows the server
	Slow      = "slow"      // the answer comes after Delay
	Broken    = "broken"    // 500
	Flaky     = "flaky"     // 500 to every second request
	Truncated = "truncated" // half of the document, then the connection ends
	NoBGP     = "no-bgp"    // the document has no BGP neighbours
	Swapped   = "swapped"   // the documents of the server Of
	Refused   = "refused"   // the connection ends without an answer, as if nobody listened
)

var kinds = []string{"", Absent, Slow, Broken, Flaky, Truncated, NoBGP, Swapped, Refused}

// Fault is how the service answers one server from now on.
type Fault struct {
	Kind  string        `yaml:"kind,omitempty"`
	Delay time.Duration `yaml:"delay,omitempty"` // of Slow
	Of    string        `yaml:"of,omitempty"`    // of Swapped: the hostname
	// For ends the fault so long after the first request; 0: it stays.
	For time.Duration `yaml:"for,omitempty"`
}

// inventory is the file of a lab.
type inventory struct {
	Servers []Server `yaml:"servers"`
}

// Load reads an inventory: a YAML file with a list of servers, or a directory with
// such files. Unknown keys are errors.
func Load(path string) ([]Server, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.yaml")); err != nil {
			return nil, fmt.Errorf("inventory: %w", err)
		}
	}
	var servers []Server
	for _, file := range files {
		some, err := loadFile(file)
		if err != nil {
			return nil, fmt.Errorf("inventory %s: %w", file, err)
		}
		servers = append(servers, some...)
	}
	if err := check(servers); err != nil {
		return nil, fmt.Errorf("inventory %s: %w", path, err)
	}
	return servers, nil
}

func loadFile(file string) ([]Server, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var i inventory
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&i); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for n := range i.Servers {
		s := &i.Servers[n]
		if s.UserDataFile == "" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(file), s.UserDataFile))
		if err != nil {
			return nil, err
		}
		s.UserData = string(b)
	}
	return i.Servers, nil
}

// check says what of an inventory cannot be.
func check(servers []Server) error {
	taken := map[string]string{}
	for i, s := range servers {
		at := fmt.Sprintf("servers[%d]", i)
		if s.ID == "" || s.Hostname == "" || len(s.Addresses) == 0 && len(s.MACs) == 0 {
			return fmt.Errorf("%s has id %q, hostname %q, %d addresses, %d macs; expected id, hostname, and an address or a MAC", at, s.ID, s.Hostname, len(s.Addresses), len(s.MACs))
		}
		if !slices.Contains(kinds, s.Fault.Kind) {
			return fmt.Errorf("%s.fault.kind is %q; expected one of %q", at, s.Fault.Kind, kinds[1:])
		}
		for _, f := range s.Forms {
			if all := append(forms, Vultr, Hetzner, Latitude); !slices.Contains(all, f) {
				return fmt.Errorf("%s.forms has %q; expected some of %q", at, f, all)
			}
		}
		var keys []string
		for _, a := range s.Addresses {
			if !a.Address.IsValid() {
				return fmt.Errorf("%s has an address without a length; expected such as 10.99.14.9/31", at)
			}
			if !a.Elastic {
				keys = append(keys, a.Address.Addr().String())
			}
		}
		for _, m := range s.MACs {
			mac, err := net.ParseMAC(m)
			if err != nil {
				return fmt.Errorf("%s.macs: %w", at, err)
			}
			keys = append(keys, mac.String())
		}
		for _, key := range keys {
			if other := taken[key]; other != "" {
				return fmt.Errorf("%s (%s) has %s, which %s has too", at, s.Hostname, key, other)
			}
			taken[key] = s.Hostname
		}
	}
	return nil
}

// Store is a directory with a file a server, which a driver changes while the
// service answers from it.
type Store struct {
	Dir string
}

// Ready is a file in the store that exists while the service listens.
const Ready = "ready"

// Put writes what the service says of a server from now on.
func (s Store) Put(server Server) error {
	b, err := yaml.Marshal(inventory{[]Server{server}})
	if err == nil {
		err = os.MkdirAll(s.Dir, 0o700)
	}
	path := filepath.Join(s.Dir, server.Hostname+".yaml")
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("metadata of %s: %w", server.Hostname, err)
	}
	return nil
}

// Get returns what the service says of a server; false when it knows none.
func (s Store) Get(hostname string) (Server, bool, error) {
	servers, err := loadFile(filepath.Join(s.Dir, hostname+".yaml"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(servers) == 0 {
		return Server{}, false, nil
	}
	if err != nil {
		return Server{}, false, fmt.Errorf("metadata of %s: %w", hostname, err)
	}
	return servers[0], true, nil
}

// Fail makes the service answer a server as the fault says; the zero Fault makes it
// honest again.
func (s Store) Fail(hostname string, f Fault) error {
	server, known, err := s.Get(hostname)
	if err != nil || !known {
		return errors.Join(err, fmt.Errorf("a fault for %s, which the service does not know", hostname))
	}
	server.Fault = f
	return s.Put(server)
}

// object is a JSON object.
type object = map[string]any

func encode(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // maps, lists and text
	}
	return append(b, '\n')
}
