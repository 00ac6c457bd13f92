package rig

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
	"github.com/mustermetal/muster/test/rig/supervise"
)

// Server is one machine. It may be on or off; its disk is kept in both.
type Server struct {
	Name  string
	Index int // 1 to 250; addresses follow from it
	ID    string
	Tags  []string
	MAC   string
	// Addr is the private address of the first family, in a /31 (/127) with Gateway,
	// the ToR; Lines has all families.
	Addr, Gateway netip.Addr
	Stack         Stack
	// Public is the public address, in a /31 with PublicGateway, the ToR too; invalid
	// on servers that have none.
	Public, PublicGateway netip.Addr
	// Pods is the range of the CNI on this server.
	Pods netip.Prefix
	// Platform is the form in which the server is told what it is (package metadata);
	// empty: Packet's from the service, and a seed for cloud-init.
	Platform string

	rig *Rig
}

// ServerOptions describe a server to add.
type ServerOptions struct {
	Name     string   // at most 10 characters; the hostname in the metadata too
	Tags     []string // in the metadata document
	UserData []byte   // what cloud-init and the metadata service hand out
	// Public gives the server a public address, by which its default route leaves.
	Public bool
	Stack  Stack
	// Platform is as in Server.
	Platform string
	// Index is the server's place in the fabric; 0: the next free one.
	Index int
}

// nameLimit leaves room for "v-" and "-" in a link's name of 15 bytes.
const nameLimit = 12

// Add makes a server that is off and was never on.
func (r *Rig) Add(o ServerOptions) (*Server, error) {
	if !validName.MatchString(o.Name) || len(o.Name) > nameLimit {
		return nil, fmt.Errorf("server name %q: expected at most %d of a-z, 0-9 and -, beginning with a letter", o.Name, nameLimit)
	}
	var refused error
	err := r.update(func(st *state) {
		next := 1
		for _, s := range st.Servers {
			if s.Name == o.Name || s.Index == o.Index {
				refused = fmt.Errorf("server %q (index %d) is in the rig already", s.Name, s.Index)
				return
			}
			next = max(next, s.Index+1)
		}
		if o.Index == 0 {
			o.Index = next
		}
		if o.Index < 1 || o.Index > 250 {
			refused = fmt.Errorf("server %q has index %d; expected 1 to 250", o.Name, o.Index)
			return
		}
		st.Servers = append(st.Servers, serverState{Name: o.Name, Index: o.Index, ID: serverID(st.Name, o.Name), Tags: o.Tags, Public: o.Public, Stack: o.Stack, Platform: o.Platform})
	})
	if err = errors.Join(refused, err); err != nil {
		return nil, err
	}
	s, err := r.Server(o.Name)
	if err != nil {
		return nil, err
	}
	return s, s.SetUserData(o.UserData)
}

// serverID is a UUID that is the same for the same name in the same rig.
func serverID(rig, name string) string {
	h := sha256.Sum256([]byte(rig + "/" + name))
	return fmt.Sprintf("%x-%x-4%x-8%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])[:36]
}

func (r *Rig) server(st serverState) *Server {
	s := &Server{Name: st.Name, Index: st.Index, ID: st.ID, Tags: st.Tags, Stack: st.Stack, Platform: st.Platform, rig: r}
	first := s.Lines()[0]
	s.Gateway, s.Addr, s.Pods = first.Gateway, first.Addr, first.Pods
	if st.Public {
		s.PublicGateway, s.Public = publicLink(st.Index)
	}
	s.MAC = mac(st.Index)
	return s
}

// mac is that of the server at a place of the fabric. 40:a6:b7 is a vendor's range:
// an address of our own making would have the local bit and be no permanent one for
// whoever looks.
func mac(index int) string { return fmt.Sprintf("40:a6:b7:00:%02x:%02x", index>>8, index&0xff) }

// SetUserData changes what the metadata service and, at the first boot, cloud-init
// hand out to the server.
func (s *Server) SetUserData(b []byte) error {
	if err := os.MkdirAll(s.path(""), 0o755); err != nil {
		return fmt.Errorf("server %s: %w", s.Name, err)
	}
	if err := machine.ReplaceFile(s.path("user-data"), b, 0o600); err != nil {
		return err
	}
	if s.Platform == Static {
		return nil
	}
	return s.rig.metadata.Put(s.told(b))
}

// FailMetadata makes the metadata service fail this server; the zero Fault ends it.
func (s *Server) FailMetadata(f metadata.Fault) error { return s.rig.metadata.Fail(s.Name, f) }

func (s *Server) path(elem string) string {
	return filepath.Join(s.rig.dir, "servers", s.Name, elem)
}

// machine is the server's name among everything on this host.
func (s *Server) machine() string { return s.rig.state.Name + "-" + s.Name }

func (s *Server) supervisor() machine.Process { return s.current().Supervisor }

func (s *Server) current() serverState {
	s.rig.mu.Lock()
	defer s.rig.mu.Unlock()
	for _, st := range s.rig.state.Servers {
		if st.Name == s.Name {
			return st
		}
	}
	return serverState{}
}

// Running says whether the server is on.
func (s *Server) Running() bool { return s.supervisor().Alive() }

// Boot switches the server on and returns when its systemd answers; units may
// still be starting (WaitRunning waits for them).
func (s *Server) Boot(ctx context.Context) error {
	if s.Running() {
		return fmt.Errorf("server %s is on already", s.Name)
	}
	if err := s.mountDisk(ctx); err != nil {
		return fmt.Errorf("booting %s: %w", s.Name, err)
	}
	cgroups, err := machine.MakeCgroups(s.machine())
	if err != nil {
		return fmt.Errorf("booting %s: %w", s.Name, err)
	}
	if err := s.configure(cgroups); err != nil {
		return fmt.Errorf("booting %s: %w", s.Name, err)
	}
	supervisor, err := machine.Spawn(s.Console(), s.rig.daemon(), "supervise", s.path("supervise.json"))
	if err != nil {
		return fmt.Errorf("booting %s: %w", s.Name, err)
	}
	if err := s.rig.updateServer(s.Name, func(st *serverState) { st.Supervisor = supervisor }); err != nil {
		return err
	}
	s.rig.log.Info("server is on", "server", s.Name, "address", s.Addr)
	return s.waitSystemd(ctx)
}

// configure writes how the supervisor starts the server from now on.
func (s *Server) configure(cgroups []string) error {
	tor, veth := s.rig.torName(), "v-"+s.Name
	ip := func(args ...string) []string { return append([]string{"ip"}, args...) }
	c := supervise.Config{
		Cgroups: cgroups,
		Unwire:  s.unwire(),
		Wire: [][]string{
			ip("netns", "add", s.machine()),
			ip("-n", s.machine(), "link", "set", "lo", "up"),
			ip("link", "add", veth, "netns", tor, "type", "veth", "peer", "name", "eth0", "address", s.MAC, "netns", s.machine()),
			// Routes go in while the links are up; unplugging takes those of the ToR away.
			ip("-n", s.machine(), "link", "set", "eth0", "up"),
			ip("-n", tor, "link", "set", veth, "up"),
		},
		Start: s.nspawn(),
		Env:   machine.Environment,
	}
	for _, l := range s.Lines() {
		c.Wire = append(c.Wire, s.wireLine(l)...)
		if l.Addr.Is6() {
			c.Wire = append(c.Wire, ip("-n", s.machine(), "-6", "route", "add", "default", "via", l.Gateway.String()))
		}
	}
	if s.Public.IsValid() {
		// As providers do it: the private networks through the private gateway, and
		// metadata, which this fabric's service tells apart by private addresses.
		c.Wire = append(c.Wire,
			ip("-n", s.machine(), "addr", "add", s.Public.String()+"/31", "dev", "eth0"),
			ip("-n", tor, "addr", "add", s.PublicGateway.String()+"/31", "dev", veth),
			ip("-n", s.machine(), "route", "add", "default", "via", s.PublicGateway.String()),
			ip("-n", s.machine(), "route", "add", "10.0.0.0/8", "via", s.Gateway.String(), "src", s.Addr.String()),
			ip("-n", s.machine(), "route", "add", MetadataAddr.String(), "via", s.Gateway.String(), "src", s.Addr.String()))
	} else if s.Stack != IPv6 {
		c.Wire = append(c.Wire, ip("-n", s.machine(), "route", "add", "default", "via", s.Gateway.String()))
	}
	if s.current().Unplugged {
		c.Wire = append(c.Wire, ip("-n", tor, "link", "set", veth, "down"))
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding how to start %s: %w", s.Name, err)
	}
	return machine.ReplaceFile(s.path("supervise.json"), b, 0o644)
}

func (s *Server) unwire() [][]string {
	return [][]string{
		{"ip", "-n", s.rig.torName(), "link", "del", "v-" + s.Name},
		{"ip", "netns", "del", s.machine()},
	}
}

func (s *Server) nspawn() []string {
	argv := append(machine.Nspawn(s.path("root"), s.machine(), s.Name),
		"--bind=/dev/kmsg", // the kubelet reads it
		"--bind="+s.path("containerd")+":/var/lib/containerd",
		"--tmpfs=/tmp:mode=1777",
	)
	for _, d := range stateDirs {
		argv = append(argv, "--bind="+filepath.Join(s.path("state"), d.name)+":"+d.path)
	}
	return append(argv, machine.InitPath)
}

// Reboot restarts the server as `systemctl reboot` does and returns when the new
// systemd answers.
func (s *Server) Reboot(ctx context.Context) error {
	before, err := s.leader()
	if err != nil {
		return err
	}
	if _, err := s.Exec(ctx, "systemctl", "--no-block", "reboot"); err != nil {
		return fmt.Errorf("rebooting %s: %w", s.Name, err)
	}
	if err := before.Gone(ctx); err != nil {
		return fmt.Errorf("rebooting %s: %w", s.Name, err)
	}
	return s.waitSystemd(ctx)
}

// Reinstall empties the disk of a server that is off: its next boot is a first one.
func (s *Server) Reinstall() error {
	if s.Running() {
		return fmt.Errorf("reinstalling %s: it is on", s.Name)
	}
	for _, part := range []string{"up", "work", "containerd", stateImage} {
		if err := os.RemoveAll(s.path(part)); err != nil {
			return fmt.Errorf("reinstalling %s: %w", s.Name, err)
		}
	}
	return nil
}

// PowerOff shuts the server down in order.
func (s *Server) PowerOff(ctx context.Context) error {
	leader, err := s.leader()
	if err != nil {
		return err
	}
	const powerOff = syscall.Signal(34 + 4) // SIGRTMIN+4, systemd(1)
	if err := leader.Signal(powerOff); err != nil {
		return fmt.Errorf("powering %s off: %w", s.Name, err)
	}
	if err := s.supervisor().Gone(ctx); err != nil {
		return fmt.Errorf("powering %s off: %w", s.Name, err)
	}
	return s.cut(ctx)
}

// PowerLoss takes the power away: the link goes, every process stops in the middle
// of what it does, and what was not fsynced to /var/lib/muster, /var/lib/etcd,
// /var/lib/kubelet or /etc/kubernetes is lost. The rest of the disk (the root, the
// image store) keeps what was only in memory; nothing that must survive lies there.
//
// Those four lie on one ext4 in a loop file. It is shut down without flushing its
// journal, which ends all writing at one instant, as it is with power; then the
// file is copied before anything is unmounted, and the next boot is from the copy.
func (s *Server) PowerLoss(ctx context.Context) error {
	if !s.Running() {
		return fmt.Errorf("server %s is off", s.Name)
	}
	// Dying processes must not say good-bye over the network.
	if _, err := machine.Output(ctx, s.unwire()[0]...); err != nil {
		return fmt.Errorf("power loss of %s: %w", s.Name, err)
	}
	frozen, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// A process deep in the kernel may not freeze; it cannot write either, soon.
	if err := machine.Freeze(frozen, s.machine()); err != nil {
		s.rig.log.Warn("not frozen before power loss", "server", s.Name, "error", err)
	}
	if err := machine.ShutdownFS(s.path("state")); err != nil {
		return fmt.Errorf("power loss of %s: %w", s.Name, err)
	}
	next := s.path("state.next")
	if _, err := machine.Output(ctx, "cp", "--sparse=always", "--reflink=auto", s.path(stateImage), next); err != nil {
		return fmt.Errorf("power loss of %s: %w", s.Name, err)
	}
	if err := s.cut(ctx); err != nil {
		return err
	}
	if err := os.Rename(next, s.path(stateImage)); err != nil {
		return fmt.Errorf("power loss of %s: %w", s.Name, err)
	}
	return nil
}

// cut ends everything of the server outside its disk, running or not.
func (s *Server) cut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := machine.KillAll(ctx, s.machine()); err != nil {
		return fmt.Errorf("ending %s: %w", s.Name, err)
	}
	if err := s.supervisor().End(ctx); err != nil {
		return fmt.Errorf("ending %s: %w", s.Name, err)
	}
	for _, argv := range s.unwire() {
		_, _ = machine.Output(ctx, argv...) // there may be none
	}
	if err := s.unmountDisk(ctx); err != nil {
		return fmt.Errorf("ending %s: %w", s.Name, err)
	}
	if err := machine.RemoveCgroups(ctx, s.machine()); err != nil {
		return fmt.Errorf("ending %s: %w", s.Name, err)
	}
	// systemd-nspawn removes its own, unless it was killed.
	machine.Forget(s.machine())
	s.rig.log.Info("server is off", "server", s.Name)
	return nil
}

// Console is the file with what the server said on its console since it was made.
func (s *Server) Console() string { return s.path("console.log") }

// lastWords are the end of the console, for errors.
func (s *Server) lastWords() string {
	b, err := os.ReadFile(s.Console())
	if err != nil {
		return err.Error()
	}
	const enough = 600
	if len(b) > enough {
		b = b[len(b)-enough:]
	}
	return strings.TrimSpace(string(b))
}
