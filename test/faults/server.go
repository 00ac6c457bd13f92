package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/test/faults/ledger"
	"github.com/mustermetal/muster/test/rig/machine"
)

// Server is one light server. It is off at first.
type Server struct {
	Name     string // hostname and node name
	Index    int
	Address  netip.Addr
	Hardware string // MAC address that is its identity
	Idle     bool   // the agent does not start at boot

	lab *Lab

	mu       sync.Mutex
	userData []byte
	seeded   bool  // since the disk was new or the user-data changed
	boot     *boot // nil: off
}

// boot is one run of a server.
type boot struct {
	nspawn *exec.Cmd
	ended  chan struct{} // closed when systemd-nspawn has ended
}

// stateSize is what the host preparation asks for, and room to write.
const stateSize = 2 << 30 // sparse

// stateDirs are the directories on the disk that must survive, and where the server
// sees them.
var stateDirs = []struct {
	name, path string
	mode       os.FileMode
}{
	{"muster", "/var/lib/muster", 0o700},
	{"etcd", "/var/lib/etcd", 0o700},
	{"kubelet", "/var/lib/kubelet", 0o755},
	{"kubernetes", "/etc/kubernetes", 0o755},
	{"containerd", "/var/lib/containerd", 0o711},
}

// Add makes a server that was never on, with the address and the identity of its
// index.
func (l *Lab) Add(name string, index int, userData []byte) (*Server, error) {
	s := &Server{Name: name, Index: index, Address: addressOf(index), Hardware: hardwareOf(index), lab: l, userData: userData}
	if err := errors.Join(os.MkdirAll(s.path("journal"), 0o755), s.newDisk(context.Background())); err != nil {
		return nil, fmt.Errorf("adding %s: %w", name, err)
	}
	l.mu.Lock()
	l.Servers = append(l.Servers, s)
	l.mu.Unlock()
	return s, nil
}

// addressOf is the private address of an index, 1 to 200.
func addressOf(index int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + index)}) }

// hardwareOf lies in a vendor's range: an address of our own making would have the
// local bit.
func hardwareOf(index int) string { return fmt.Sprintf("40:a6:b7:00:77:%02x", index) }

func (l *Lab) servers() []*Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Server(nil), l.Servers...)
}

func (s *Server) path(elem ...string) string {
	return s.lab.path(append([]string{"servers", s.Name}, elem...)...)
}

func (s *Server) machine() string { return prefix + "-" + s.Name }

// newDisk gives the server an empty disk, as a reinstallation does. It must be off.
func (s *Server) newDisk(ctx context.Context) error {
	for _, d := range []string{"up", "work", "root", "state"} {
		if err := errors.Join(os.RemoveAll(s.path(d)), os.MkdirAll(s.path(d), 0o755)); err != nil {
			return fmt.Errorf("disk of %s: %w", s.Name, err)
		}
	}
	s.seeded = false
	return s.copyDisk(ctx, s.lab.path("blank.img"), s.path("state.img"))
}

func (s *Server) copyDisk(ctx context.Context, from, to string) error {
	_, err := machine.Output(ctx, "cp", "--sparse=always", "--reflink=auto", from, to)
	return err
}

// mount mounts what of the disk is not mounted.
func (s *Server) mount(ctx context.Context) error {
	if on, err := machine.Mounted(s.path("root")); err != nil || on {
		return err
	}
	if err := machine.MountExt4(ctx, s.path("state.img"), s.path("state")); err != nil {
		return err
	}
	for _, d := range stateDirs {
		if err := os.Mkdir(s.path("state", d.name), d.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("disk of %s: %w", s.Name, err)
		}
	}
	lower := append([]string{s.lab.path("layer")}, s.lab.image.Lower...)
	if err := machine.MountOverlay(lower, s.path("up"), s.path("work"), s.path("root")); err != nil {
		return err
	}
	if s.seeded {
		return nil
	}
	s.seeded = true
	return s.seed()
}

// SetUserData changes what the server's next boot lays down, as a person would who
// writes it there by hand: cloud-init does it once.
func (s *Server) SetUserData(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.userData, s.seeded = data, false
}

// CopyDisk makes the server's state disk a copy of another one's. Both must be off.
func (s *Server) CopyDisk(ctx context.Context, from *Server) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copyDisk(ctx, from.path("state.img"), s.path("state.img"))
}

// On switches the server on. It returns when PID 1 is there.
func (s *Server) On(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boot != nil {
		return fmt.Errorf("server %s is on already", s.Name)
	}
	if err := s.on(ctx); err != nil {
		return fmt.Errorf("booting %s: %w", s.Name, err)
	}
	return nil
}

func (s *Server) on(ctx context.Context) error {
	if err := s.mount(ctx); err != nil {
		return err
	}
	cgroups, err := machine.MakeCgroups(s.machine())
	if err != nil {
		return err
	}
	if err := plug(ctx, s.machine(), s.Name, netip.PrefixFrom(s.Address, subnet.Bits()), s.Hardware); err != nil {
		return err
	}
	if err := s.lab.Switch.Attach(s.Name, port(s.Name)); err != nil {
		return err
	}
	nspawn, err := start(cgroups, s.path("console"), s.nspawn())
	if err != nil {
		return err
	}
	b := &boot{nspawn: nspawn, ended: make(chan struct{})}
	go func() {
		_ = nspawn.Wait() // killed, or powered off from inside
		close(b.ended)
	}()
	s.boot = b
	return machine.Poll(ctx, s.Name+" has a PID 1", func() bool {
		select {
		case <-b.ended:
			return true
		default:
		}
		_, found := machine.InitOf(nspawn.Process.Pid)
		return found
	})
}

func (s *Server) nspawn() []string {
	argv := append(machine.Nspawn(s.path("root"), s.machine(), s.Name),
		fmt.Sprintf("--uuid=%032x", 0xfa0175<<8+s.Index), // one name for the journals of all boots
		"--bind="+s.lab.path("shared")+":"+ledger.Dir,
		"--bind="+s.path("journal")+":/var/log/journal",
		"--tmpfs=/tmp:mode=1777")
	for _, d := range stateDirs {
		argv = append(argv, "--bind="+filepath.Join(s.path("state"), d.name)+":"+d.path)
	}
	return append(argv, machine.InitPath, "systemd.unit=multi-user.target")
}

// PowerLoss takes the power away: the link goes, and what was not fsynced to the
// state disk is lost. It does not hurry to be nice: the disk is shut down without
// its journal, copied, and the next boot is from the copy. A server that is off
// stays so.
func (s *Server) PowerLoss(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boot == nil {
		return nil
	}
	s.lab.Switch.Detach(s.Name) // dying processes say no good-bye
	frozen, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// A process deep in the kernel may not freeze; it cannot write either, soon.
	_ = machine.Freeze(frozen, s.machine())
	err := errors.Join(machine.ShutdownFS(s.path("state")), s.copyDisk(ctx, s.path("state.img"), s.path("next.img")), s.end(ctx))
	if err == nil {
		err = os.Rename(s.path("next.img"), s.path("state.img"))
	}
	if err != nil {
		return fmt.Errorf("power loss of %s: %w", s.Name, err)
	}
	return nil
}

// Wipe takes the power away and puts an empty disk in. The server stays off.
func (s *Server) Wipe(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.end(ctx), s.newDisk(ctx))
}

// off ends the server, on or off.
func (s *Server) off(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end(ctx)
}

func (s *Server) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s.lab.Switch.Detach(s.Name)
	if err := machine.KillAll(ctx, s.machine()); err != nil {
		return err
	}
	if s.boot != nil {
		<-s.boot.ended
		s.boot = nil
	}
	if _, err := os.Stat(machine.NetnsPath(s.machine())); err == nil {
		if _, err := machine.Output(ctx, "ip", "netns", "del", s.machine()); err != nil {
			return err
		}
		// The hub's end goes with the other one, a moment later.
		_ = ipBatch(ctx, hub, "link del "+port(s.Name)+"\n")
	}
	machine.Forget(s.machine())
	return errors.Join(
		machine.Unmount(ctx, s.path("root")), machine.Unmount(ctx, s.path("state")),
		machine.RemoveCgroups(ctx, s.machine()))
}

// IsOn says whether the server has power.
func (s *Server) IsOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boot != nil
}

// pid1 is the server's PID 1 as this host sees it.
func (s *Server) pid1() (machine.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boot != nil {
		if p, found := machine.InitOf(s.boot.nspawn.Process.Pid); found {
			return p, nil
		}
	}
	return machine.Process{}, fmt.Errorf("server %s is off", s.Name)
}

// Fill leaves that many bytes free on the state disk.
func (s *Server) Fill(ctx context.Context, leave int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mount(ctx); err != nil {
		return err
	}
	f, err := os.Create(s.path("state", ballast))
	if err != nil {
		return fmt.Errorf("filling the disk of %s: %w", s.Name, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return errors.Join(err, f.Close())
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-leave)
	if err == nil && leave == 0 {
		// What is kept for root, too; until nothing is left.
		for step := int64(64 << 20); step >= st.Bsize; {
			at, err := f.Seek(0, io.SeekEnd)
			if err != nil {
				return errors.Join(err, f.Close())
			}
			if unix.Fallocate(int(f.Fd()), 0, at, step) != nil {
				step /= 2
			}
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("filling the disk of %s: %w", s.Name, err)
	}
	return nil
}

// Empty takes back what Fill took, if a power loss has not, for good.
func (s *Server) Empty() error {
	if err := os.Remove(s.path("state", ballast)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	dir, err := os.Open(s.path("state"))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ballast is the file of Fill.
const ballast = "ballast"
