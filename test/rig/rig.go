// Package rig makes test servers: systemd-nspawn machines with systemd as PID 1,
// real cloud-init, containerd, kubelet and kubeadm, each alone in a /31 to a
// top-of-rack namespace (ToR) where BIRD speaks BGP and a metadata service
// answers by source address.
//
// It needs root. Everything it makes hangs on one directory and one name: network
// namespaces NAME-tor and NAME-SERVER, cgroups muster/NAME-SERVER, mounts and loop
// devices below the directory. What is alive is written down there, so that
// another process can go on (Open) or clean up (Destroy) after the first is dead.
package rig

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// Image is what the servers' disks are made of.
type Image struct {
	// Lower are the directories of the root file system, topmost first; they are
	// never written to.
	Lower []string `json:"lower"`
	// Containerd is a /var/lib/containerd with the images in it, which every
	// server gets by hard links. Empty: servers begin with an empty store.
	Containerd string `json:"containerd"`
}

// Options say what New makes.
type Options struct {
	// Name opens the name of everything that is visible outside Dir: at most 20
	// characters of a-z, 0-9 and -.
	Name string
	// Dir holds the disks and the state. It must be on a file system that can be
	// the upper layer of an overlay (ext4, xfs, tmpfs; no overlay).
	Dir   string
	Image Image
	// Log gets a line for every change; nil: nothing.
	Log *slog.Logger
}

// Rig is a set of servers and the fabric between them. Its methods may be called
// from many goroutines.
type Rig struct {
	dir      string
	log      *slog.Logger
	metadata metadata.Store

	mu    sync.Mutex // over state and admin
	state state
	admin string // the server whose admin.conf is taken; empty: the first that has one
}

var validName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

// New makes an empty rig: the ToR with its routers and the metadata service. A
// rig that is already in Dir must be destroyed before.
func New(ctx context.Context, o Options) (*Rig, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("making servers needs root: user id is %d", os.Geteuid())
	}
	if !validName.MatchString(o.Name) {
		return nil, fmt.Errorf("rig name %q: expected at most 20 of a-z, 0-9 and -, beginning with a letter", o.Name)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("rig directory %s: %w", o.Dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err == nil {
		return nil, fmt.Errorf("there is a rig in %s already: destroy it first", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "servers"), 0o755); err != nil {
		return nil, fmt.Errorf("making the rig's directory: %w", err)
	}
	r := newRig(dir, o.Log)
	r.state = state{Version: stateVersion, Name: o.Name, Image: o.Image}
	if _, err := os.Stat(machine.NetnsPath(r.torName())); err == nil {
		return nil, fmt.Errorf("network namespace %s exists: another rig is called %q, or one was lost; choose another name or remove it with ip netns del %s", r.torName(), o.Name, r.torName())
	}
	if err := r.save(); err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(err, r.Close(context.WithoutCancel(ctx)))
	}
	return r, nil
}

func (r *Rig) start(ctx context.Context) error {
	if err := machine.RaiseSysctls(filepath.Join(r.dir, stateFile)); err != nil {
		return err
	}
	if err := r.writeLayer(); err != nil {
		return err
	}
	// The program that keeps servers and metadata alive when this one ends. What
	// the environment asks of the agent's build (cgo, static linking) is not for it.
	if _, err := machine.Output(ctx, "env", "-u", "GOFLAGS", "CGO_ENABLED=0", "go", "build", "-o", r.daemon(), "github.com/mustermetal/muster/test/rig/rigd"); err != nil {
		return fmt.Errorf("building the rig's daemon: %w", err)
	}
	return r.torUp(ctx)
}

func newRig(dir string, log *slog.Logger) *Rig {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Rig{dir: dir, log: log, metadata: metadata.Store{Dir: filepath.Join(dir, "metadata")}}
}

// Open returns the rig that another process made in dir.
func Open(dir string, log *slog.Logger) (*Rig, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("rig directory %s: %w", dir, err)
	}
	r := newRig(dir, log)
	if r.state, err = loadState(dir); err != nil {
		return nil, err
	}
	return r, nil
}

// Destroy removes the rig in dir with all it made, wherever its driver ended. No
// rig in dir is no error.
func Destroy(ctx context.Context, dir string, log *slog.Logger) error {
	r, err := Open(dir, log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.Close(ctx)
}

// Close ends every process of the rig and removes its namespaces, links, mounts,
// loop devices, cgroups and directory, and puts the host's settings back. It goes
// on after an error; the directory stays when something could not be removed.
func (r *Rig) Close(ctx context.Context) error {
	var wg sync.WaitGroup
	servers := r.Servers()
	errs := make([]error, len(servers)+1)
	for i, s := range servers {
		wg.Go(func() { errs[i] = s.cut(ctx) })
	}
	wg.Wait()
	errs[len(servers)] = r.torDown(ctx)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the rig in %s: %w", r.dir, err)
	}
	if err := machine.ReleaseSysctls(filepath.Join(r.dir, stateFile)); err != nil {
		return err
	}
	machine.RemoveCgroupParent()
	// The state goes first: without it nobody believes that servers are here.
	if err := os.Remove(filepath.Join(r.dir, stateFile)); err != nil {
		return fmt.Errorf("closing the rig: %w", err)
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("closing the rig: %w", err)
	}
	return nil
}

// Dir is the rig's directory.
func (r *Rig) Dir() string { return r.dir }

// Files is the directory that the metadata service serves to servers under
// http://169.254.169.254/files/.
func (r *Rig) Files() string { return filepath.Join(r.dir, "files") }

// Servers returns the servers in the order in which they were added.
func (r *Rig) Servers() []*Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	servers := make([]*Server, len(r.state.Servers))
	for i, s := range r.state.Servers {
		servers[i] = r.server(s)
	}
	return servers
}

// Server returns the server of that name.
func (r *Rig) Server(name string) (*Server, error) {
	var names []string
	for _, s := range r.Servers() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("no server %q in %s; there are %v", name, r.dir, names)
}

func (r *Rig) daemon() string { return filepath.Join(r.dir, "rigd") }
