// Package faults runs the real agent on light servers under faults: systemd-nspawn
// machines with real systemd, each in its own network namespace, with stand-ins for
// kubeadm, kubelet and containerd (package standin) that count every kubeadm init.
// docs/testing.md describes it.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/images"
	"github.com/mustermetal/muster/test/faults/fabric"
	"github.com/mustermetal/muster/test/faults/ledger"
	"github.com/mustermetal/muster/test/rig/machine"
)

// prefix opens the name of everything that is visible outside of a lab's
// directory. One lab at a time is on a machine, so that what a killed one left can
// be told and removed.
const prefix = "faults"

// Names of the fabric.
const (
	hub      = prefix + "-hub"
	balancer = "lb" // port of the load balancer
)

// Addresses: one subnet, the load balancer first.
var (
	subnet     = netip.MustParsePrefix("10.77.0.0/24")
	balancerIP = netip.MustParseAddr("10.77.0.1")
)

// Lab is a set of light servers and the switch between them.
type Lab struct {
	Switch *fabric.Switch

	mu      sync.Mutex // over Servers
	Servers []*Server

	dir    string
	lock   *os.File
	log    io.Writer
	image  images.Image
	closed sync.Once
	ends   []func() error // what Close undoes, last first
}

// Options say what a lab is made of.
type Options struct {
	Cache string // directory of everything built
	Agent string // the bootstrap binary
	Seed  uint64 // of the switch's random choices
	Log   io.Writer
}

// New makes a lab without servers. It waits for another lab on this machine to end,
// and removes what one left that was killed.
func New(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("light servers need root: user id is %d", os.Geteuid())
	}
	l := &Lab{dir: filepath.Join(o.Cache, "faults"), log: o.Log}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the lab: %w", err)
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	if err := l.build(ctx, o); err != nil {
		return nil, errors.Join(err, l.Close(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// take locks the name and clears what a killed lab left.
func (l *Lab) take(ctx context.Context) error {
	f, err := os.OpenFile("/run/muster-faults.lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("locking the lab: %w", err)
	}
	var last error
	said := false
	err = machine.Poll(ctx, "no other lab is on this machine", func() bool {
		last = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		taken := errors.Is(last, unix.EWOULDBLOCK)
		if taken && !said && l.log != nil {
			said = true
			fmt.Fprintf(l.log, "faults: another lab is on this machine, which holds %s; waiting for it\n", f.Name())
		}
		return !taken
	})
	if err = errors.Join(err, last); err != nil {
		return errors.Join(fmt.Errorf("locking the lab: %w", err), f.Close())
	}
	l.lock = f
	return l.sweep(ctx)
}

// sweep removes servers, namespaces and mounts by their names.
func (l *Lab) sweep(ctx context.Context) error {
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + machine.CgroupParent + "/" + prefix + "-*")
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range left {
		name := filepath.Base(dir)
		errs = append(errs, machine.KillAll(ctx, name), machine.RemoveCgroups(ctx, name))
		machine.Forget(name)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], l.dir+"/") {
			errs = append(errs, machine.Unmount(ctx, f[4]))
		}
	}
	spaces, err := filepath.Glob(machine.NetnsPath(prefix + "-*"))
	if err != nil {
		return err
	}
	for _, ns := range spaces {
		_, err := machine.Output(ctx, "ip", "netns", "del", filepath.Base(ns))
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing what an earlier lab left: %w", err)
	}
	return os.RemoveAll(l.path("servers"))
}

func (l *Lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func (l *Lab) build(ctx context.Context, o Options) error {
	artifacts, err := standins(ctx, l.path("artifacts"))
	if err != nil {
		return err
	}
	l.image, err = images.Ensure(ctx, images.Options{Cache: o.Cache, Agent: o.Agent, Artifacts: artifacts, Log: o.Log})
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(l.path("shared")), os.MkdirAll(l.path("shared"), 0o755), os.WriteFile(l.path("lab"), nil, 0o644), l.writeLayer()); err != nil {
		return fmt.Errorf("making the lab: %w", err)
	}
	if err := machine.MakeExt4(ctx, l.path("blank.img"), stateSize); err != nil {
		return err
	}
	if err := machine.RaiseSysctls(l.path("lab")); err != nil {
		return err
	}
	l.ends = append(l.ends, func() error { return machine.ReleaseSysctls(l.path("lab")) })
	if _, err := machine.Output(ctx, "ip", "netns", "add", hub); err != nil {
		return err
	}
	l.ends = append(l.ends, func() error {
		_, err := machine.Output(context.WithoutCancel(ctx), "ip", "netns", "del", hub)
		return err
	})
	l.Switch = fabric.New(machine.NetnsPath(hub), o.Seed)
	l.ends = append(l.ends, func() error { l.Switch.Close(); return nil })
	return l.startBalancer(ctx)
}

// standins builds the directory that bootstrap bake takes.
func standins(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "cni"), 0o755); err != nil {
		return "", fmt.Errorf("stand-ins: %w", err)
	}
	first := filepath.Join(dir, "kubeadm")
	build := []string{"env", "-u", "GOFLAGS", "CGO_ENABLED=0", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", first, "github.com/mustermetal/muster/test/faults/standin"}
	if _, err := machine.Output(ctx, build...); err != nil {
		return "", fmt.Errorf("building the stand-ins: %w", err)
	}
	for _, name := range []string{"kubelet", "kubectl", "containerd", "ctr", "containerd-shim-runc-v2", "cni/loopback"} {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("stand-ins: %w", err)
		}
		if err := os.Link(first, path); err != nil {
			return "", fmt.Errorf("stand-ins: %w", err)
		}
	}
	return dir, nil
}

// Ledger returns what the stand-ins did so far.
func (l *Lab) Ledger() ([]ledger.Line, error) { return ledger.Read(l.path("shared")) }

// Pace makes kubeadm init take that long from now on.
func (l *Lab) Pace(d time.Duration) error {
	return machine.ReplaceFile(l.path("shared", "pace"), []byte(d.String()), 0o644)
}

// Clear ends all servers and forgets them, the ledger and the faults.
func (l *Lab) Clear(ctx context.Context) error {
	servers := l.servers()
	errs := make([]error, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() { errs[i] = s.off(ctx) })
	}
	all.Wait()
	l.mu.Lock()
	l.Servers = nil
	l.mu.Unlock()
	l.Switch.Reset()
	errs = append(errs, os.RemoveAll(l.path("servers")), os.RemoveAll(l.path("shared")), os.MkdirAll(l.path("shared"), 0o755))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clearing the lab: %w", err)
	}
	return nil
}

// Close ends all servers and removes what the lab made, but its logs. It goes on
// after an error.
func (l *Lab) Close(ctx context.Context) error {
	var err error
	l.closed.Do(func() { err = l.close(ctx) })
	return err
}

func (l *Lab) close(ctx context.Context) error {
	var errs []error
	if l.Switch != nil {
		errs = append(errs, l.Clear(ctx))
	}
	for i := len(l.ends) - 1; i >= 0; i-- {
		errs = append(errs, l.ends[i]())
	}
	machine.RemoveCgroupParent()
	if err := errors.Join(errs...); err != nil {
		return errors.Join(fmt.Errorf("closing the lab: %w", err), l.lock.Close())
	}
	return l.lock.Close()
}

// start runs a program in the cgroups of a machine, with its output appended to a
// file.
func start(cgroups []string, log string, argv []string) (*exec.Cmd, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// The shell moves itself ("0") and becomes the program.
	const script = `n=$1; shift; while [ $n -gt 0 ]; do echo 0 >"$1/cgroup.procs" || exit 1; shift; n=$((n - 1)); done; exec "$@"`
	args := append([]string{"-c", script, "sh", fmt.Sprint(len(cgroups))}, cgroups...)
	cmd := exec.Command("/bin/sh", append(args, argv...)...)
	cmd.Env = machine.Environment
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}
