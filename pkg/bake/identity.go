package bake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Finding is one trace of a server in a root.
type Finding struct {
	Path      string // as the server sees it
	Says      string // what it is, and what goes wrong with two of it
	Remedy    string
	Removable bool // Clean removes it; a server makes it anew at its next boot
}

// String is the finding as a sentence with its remedy.
func (f Finding) String() string { return fmt.Sprintf("%s: %s; %s", f.Path, f.Says, f.Remedy) }

// trace is one kind of identity: where it lies and when it counts.
type trace struct {
	globs     []string
	counts    func(content string) bool // nil: being there counts; else files only
	says      string
	removable bool
	emptied   bool // clean empties the file and keeps it
}

// Membership is not removable: it may be the last copy of a vote or of a
// cluster's data, and whoever bakes from such a disk took the wrong one.
const (
	remedyMember = "take a root that never joined a cluster, or, if that server is given up, remove the path"
	remedyClean  = "--clean removes it, every server makes its own at its first boot"
)

var traces = []trace{
	{globs: []string{"etc/machine-id"}, emptied: true, removable: true,
		// Empty, and not "uninitialized" as some builders leave it, is what clean
		// makes: with the latter systemd-firstboot may stop the boot with a question.
		counts: func(s string) bool { s = strings.TrimSpace(s); return s != "" && s != "uninitialized" },
		says:   "a machine id: journals, DHCP leases and systemd tell servers apart by it"},
	{globs: []string{"var/lib/dbus/machine-id"}, removable: true, counts: notEmpty,
		says: "a second copy of a machine id that D-Bus would keep using"},
	{globs: []string{"etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub"}, removable: true,
		says: "an SSH host key: whoever has the image can pose as every server made from it"},
	{globs: []string{"etc/hostname"}, removable: true, counts: namesServer,
		says: "a host name: nodes of one name overwrite each other"},
	{globs: []string{"var/lib/systemd/random-seed", "var/lib/urandom/random-seed", "var/lib/systemd/credential.secret"}, removable: true, counts: notEmpty,
		says: "a stored secret of the random generator or of systemd: servers would share it"},
	{globs: []string{"var/lib/dhcp/*.leases", "var/lib/dhclient/*.lease*", "var/lib/dhcpcd/*.lease*", "var/lib/NetworkManager/*.lease", "var/lib/NetworkManager/secret_key"}, removable: true, counts: notEmpty,
		says: "a DHCP lease or its key: servers would ask for the same address"},
	{globs: []string{"var/lib/cloud/instance", "var/lib/cloud/instances/*", "var/lib/cloud/data/instance-id", "var/lib/cloud/data/previous-*", "var/lib/cloud/sem/*"}, removable: true,
		says: "what cloud-init knows of an instance: it would take this boot for a later one and skip the user-data"},
	{globs: []string{"etc/udev/rules.d/70-persistent-net.rules"}, removable: true, counts: notEmpty,
		says: "network names bound to the MAC addresses of one server"},
	{globs: []string{"var/lib/containerd/io.containerd.grpc.v1.introspection/uuid"}, removable: true,
		says: "containerd's own id, which it made when it first ran"},
	{globs: []string{"etc/iscsi/initiatorname.iscsi"}, removable: false, counts: func(s string) bool { return hasLine(s, "InitiatorName=") },
		says: "an iSCSI initiator name: two servers of one name corrupt each other's disks"},
	{globs: []string{"etc/nvme/hostid", "etc/nvme/hostnqn"}, removable: false, counts: notEmpty,
		says: "an NVMe host id: targets take servers of one id for one server"},
	{globs: []string{"var/lib/muster/elect/*", "var/lib/muster/journal", "var/lib/muster/pki/*", "var/lib/muster/directory/*", "var/lib/muster/device.json"},
		says: "muster's state of a server: two servers with one vote can make two clusters"},
	{globs: []string{"etc/kubernetes/*.conf", "etc/kubernetes/pki/*", "etc/kubernetes/manifests/*"},
		says: "the Kubernetes credentials or manifests of a node"},
	{globs: []string{"var/lib/kubelet/pki/*"},
		says: "the kubelet's certificates: two nodes would be one"},
	{globs: []string{"var/lib/etcd/member"},
		says: "the data of an etcd member: a second copy of it breaks the cluster's quorum"},
}

func notEmpty(s string) bool { return strings.TrimSpace(s) != "" }

// namesServer tells a host name from what distributions write for "none".
func namesServer(s string) bool {
	return !slices.Contains([]string{"", "localhost", "localhost.localdomain", "debian", "ubuntu", "(none)"}, strings.TrimSpace(s))
}

func hasLine(s, prefix string) bool {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(strings.TrimSpace(line), prefix) {
			return true
		}
	}
	return false
}

// Inspect lists the identity that is left in the root file system at dir, in a
// fixed order. It writes nothing.
func Inspect(dir string) ([]Finding, error) {
	root, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return inspect(root)
}

func inspect(root *os.Root) ([]Finding, error) {
	var findings []Finding
	err := eachTrace(root, func(t trace, name string) error {
		remedy := remedyClean
		switch {
		case t.removable:
		case strings.HasPrefix(name, "etc/iscsi") || strings.HasPrefix(name, "etc/nvme"):
			remedy = "remove it and let the first boot make one, as the distribution's documentation says"
		default:
			remedy = remedyMember
		}
		findings = append(findings, Finding{Path: "/" + name, Says: t.says, Remedy: remedy, Removable: t.removable})
		return nil
	})
	return findings, err
}

// clean removes what a server makes anew, and returns what it removed.
func clean(root *os.Root) ([]string, error) {
	var removed []string
	err := eachTrace(root, func(t trace, name string) error {
		if !t.removable {
			return nil
		}
		var err error
		if t.emptied {
			err = root.WriteFile(name, nil, 0o444)
		} else {
			err = root.RemoveAll(name)
		}
		if err != nil {
			return fmt.Errorf("removing %s: %w", name, err)
		}
		removed = append(removed, "/"+name)
		return nil
	})
	return removed, err
}

// eachTrace calls found for every path that is identity.
func eachTrace(root *os.Root, found func(t trace, name string) error) error {
	for _, t := range traces {
		for _, glob := range t.globs {
			names, err := expand(root, glob)
			if err != nil {
				return fmt.Errorf("looking for %s: %w", glob, err)
			}
			for _, name := range names {
				counts, err := t.isIn(root, name)
				if err != nil {
					return fmt.Errorf("reading %s: %w", name, err)
				}
				if !counts {
					continue
				}
				if err := found(t, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (t trace) isIn(root *os.Root, name string) (bool, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return false, err
	}
	if t.counts == nil {
		return true, nil
	}
	if !info.Mode().IsRegular() {
		return false, nil // such as the link /var/lib/dbus/machine-id -> /etc/machine-id
	}
	content, err := root.ReadFile(name)
	return err == nil && t.counts(string(content)), err
}

// expand lists the paths that match glob, whose last element alone may hold a
// pattern. A missing directory has none; one that is a link out of the root is an error.
func expand(root *os.Root, glob string) ([]string, error) {
	dir, pattern := path.Split(glob)
	dir = strings.TrimSuffix(dir, "/")
	f, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ok, err := path.Match(pattern, e.Name()); err != nil {
			return nil, err
		} else if ok {
			names = append(names, path.Join(dir, e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}
