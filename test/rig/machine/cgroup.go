package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Servers live in cgroups muster/NAME of every hierarchy that the host has:
// version 1 with a "unified" one beside (tried), or version 2 alone.
const CgroupParent = "muster"

// hierarchies returns the mount points of all cgroup hierarchies, and which of
// them is version 2: that one can freeze and kill.
func hierarchies() (all []string, v2 string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, "", fmt.Errorf("finding cgroups: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(line, " - ")
		at, kind := strings.Fields(left)[4], strings.Fields(right)[0]
		if !strings.HasPrefix(at, "/sys/fs/cgroup") || (kind != "cgroup" && kind != "cgroup2") {
			continue
		}
		all = append(all, at)
		if kind == "cgroup2" {
			v2 = at
		}
	}
	if v2 == "" {
		return nil, "", errors.New("no cgroup2 is mounted below /sys/fs/cgroup: the rig freezes and kills servers through it; mount one with: mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	}
	return all, v2, nil
}

// MakeCgroups makes the cgroups of a server and returns their directories.
func MakeCgroups(name string) ([]string, error) {
	all, _, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range all {
		parent := filepath.Join(h, CgroupParent)
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return nil, fmt.Errorf("making a cgroup: %w", err)
		}
		if err := delegate(h, parent); err != nil {
			return nil, err
		}
		dir := filepath.Join(parent, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making a cgroup: %w", err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// delegate lets children of parent use what h offers: in version 1 only cpuset
// needs it, in version 2 every controller is handed down by name.
func delegate(h, parent string) error {
	var settings [][2]string // file, value
	if cpus, err := os.ReadFile(filepath.Join(h, "cpuset.cpus")); err == nil {
		mems, err := os.ReadFile(filepath.Join(h, "cpuset.mems"))
		if err != nil {
			return fmt.Errorf("reading a cgroup: %w", err)
		}
		settings = append(settings, [2]string{parent + "/cpuset.cpus", string(cpus)}, [2]string{parent + "/cpuset.mems", string(mems)}, [2]string{parent + "/cgroup.clone_children", "1"})
	}
	if controllers, err := os.ReadFile(filepath.Join(h, "cgroup.controllers")); err == nil {
		for _, c := range strings.Fields(string(controllers)) {
			settings = append(settings, [2]string{h + "/cgroup.subtree_control", "+" + c}, [2]string{parent + "/cgroup.subtree_control", "+" + c})
		}
	}
	for _, s := range settings {
		if err := os.WriteFile(s[0], []byte(s[1]), 0o644); err != nil {
			return fmt.Errorf("handing a controller down to the servers' cgroups: %w", err)
		}
	}
	return nil
}

// Freeze stops every process of a server where it stands.
func Freeze(ctx context.Context, name string) error {
	_, v2, err := hierarchies()
	if err != nil {
		return err
	}
	dir := filepath.Join(v2, CgroupParent, name)
	if err := os.WriteFile(dir+"/cgroup.freeze", []byte("1"), 0); err != nil {
		return fmt.Errorf("freezing %s: %w", name, err)
	}
	return Poll(ctx, name+" is frozen", func() bool {
		b, err := os.ReadFile(dir + "/cgroup.events")
		return err == nil && strings.Contains(string(b), "frozen 1")
	})
}

// KillAll kills every process of a server at once, frozen or not, and waits until
// none is left. A server without cgroups has none.
func KillAll(ctx context.Context, name string) error {
	all, v2, err := hierarchies()
	if err != nil {
		return err
	}
	dir := filepath.Join(v2, CgroupParent, name)
	if err := os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("killing the processes of %s: %w", name, err)
	}
	return Poll(ctx, "no process of "+name+" is left", func() bool {
		for _, h := range all {
			thaw(filepath.Join(h, CgroupParent, name))
		}
		b, err := os.ReadFile(dir + "/cgroup.events")
		return err != nil || strings.Contains(string(b), "populated 0")
	})
}

// thaw ends what a killed runc left frozen: it freezes a container while it sets
// it up, and a process that a freezer of cgroup v1 holds does not even die.
// Elsewhere there is no such file, which is all that an error here can mean.
func thaw(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "freezer.state" {
			_ = os.WriteFile(path, []byte("THAWED"), 0)
		}
		return nil
	})
}

// RemoveCgroups removes a server's cgroups, which must be empty of processes.
func RemoveCgroups(ctx context.Context, name string) error {
	all, _, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range all {
		dir := filepath.Join(h, CgroupParent, name)
		// The last process may be gone a moment before its cgroup knows.
		errs = append(errs, Poll(ctx, "cgroup "+dir+" is removed", func() bool { return removeTree(dir) == nil }))
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and those below, deepest first. Their files cannot
// be removed and need not be.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveCgroupParent removes what is common to all servers when the last is gone;
// while another rig lives it cannot, and that is fine.
func RemoveCgroupParent() {
	all, _, err := hierarchies()
	if err != nil {
		return
	}
	for _, h := range all {
		_ = os.Remove(filepath.Join(h, CgroupParent))
	}
}
