// Package machine is what a systemd-nspawn machine is to the host it runs on:
// cgroups, processes, mounts, settings. The rig and the tests under faults make
// their servers of it.
package machine

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// InitPath is where the server's root holds Init.
const InitPath = "/usr/local/sbin/rig-init"

// Init is PID 1 until it becomes systemd.
//
//go:embed init.sh
var Init string

// Environment is systemd-nspawn's own.
var Environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	// runc and kubelet make seccomp filters of their own.
	"SYSTEMD_SECCOMP=0",
	// sysctls of the server's own network are writable.
	"SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
	"SYSTEMD_NSPAWN_USE_CGNS=1",
}

// Nspawn is the command line that boots root as a machine with that name among
// everything on this host, in an existing network namespace. What it returns goes
// on with more options, InitPath, and systemd's arguments.
func Nspawn(root, name, hostname string) []string {
	return []string{
		"systemd-nspawn", "--quiet", "--directory=" + root, "--machine=" + name, "--hostname=" + hostname,
		"--register=no", "--keep-unit", "--network-namespace-path=" + NetnsPath(name),
		"--capability=all", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--kill-signal=SIGRTMIN+3",
		// With stdin from /dev/null "pipe" logs nothing; this logs the boot.
		"--console=read-only",
	}
}

// Forget removes what a systemd-nspawn leaves that was killed.
func Forget(name string) { _ = os.Remove("/run/systemd/nspawn/propagate/" + name) }

// NetnsPath is a network namespace that ip(8) knows by name.
func NetnsPath(name string) string { return "/run/netns/" + name }

// InNetns is the command line that runs argv in a network namespace. Not `ip netns
// exec`: that makes a mount namespace too, which would hold on to our mounts.
func InNetns(name string, argv ...string) []string {
	return append([]string{"nsenter", "--net=" + NetnsPath(name), "--"}, argv...)
}

// WriteFile writes a file with its directories. A symlink that an image has there
// is replaced, not followed out of the root.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return ReplaceFile(path, data, mode)
}

// ReplaceFile writes path so that a reader finds the old content or the new. Test
// servers do not outlive the machine they run on, so nothing is fsynced.
func ReplaceFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
