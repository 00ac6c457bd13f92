// Package gossip is the roll call: which servers are there, at which address,
// and a few hints about them. It carries no vote and decides nothing; who holds
// the gossip key can say anything, so what matters is asked again over mTLS.
//
// Floor 2. The library is hashicorp/memberlist.
package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config says who joins, and where.
type Config struct {
	Inst    string     // this instance, 32 hex digits; the name in the gossip
	HW      string     // its hardware id, 32 hex digits
	Address netip.Addr // bound and told to others: the private address
	Port    uint16     // tcp and udp, the same on every server
	// Label tells clusters apart that reach each other; it is sent in the clear.
	// The first 16 characters of spec.id.
	Label string
	Key   []byte // AES-256, 32 bytes
	// Accept are further keys that others may use, while the key changes.
	Accept [][]byte
	Flags  Flags  // what is known at the start
	Switch string // SwitchTag of this server's
	Logger *slog.Logger
	// Settled says that everybody has found everybody, so that looking for more
	// may slow down; nil means never.
	Settled func() bool
	// Conflict is told, in a goroutine of its own, when one instance is seen at
	// two addresses: a disk was cloned, or its server came back at another address
	// before the others noticed that it was gone. Both must stop voting. It is
	// called once per pair of addresses, and anew when another instance was seen at
	// one of them meanwhile.
	Conflict func(Conflict)
	// Transport replaces the network in tests; nil is the real one.
	Transport memberlist.Transport
}

// Conflict is one instance at two addresses.
type Conflict struct {
	Inst      string
	Addresses [2]netip.Addr // the one that was known, then the other
}

// Peer is one server that answers.
type Peer struct {
	Inst    string
	HW      string
	Address netip.Addr
	Flags   Flags
	Switch  string // a SwitchTag; empty where it is not known
}

// Group is this server's membership in the gossip.
type Group struct {
	config  Config
	list    *memberlist.Memberlist
	changes chan struct{}
	log     *logWriter
	dials   sync.WaitGroup
	left    sync.Once

	mu       sync.Mutex
	flags    Flags
	peers    map[string]Peer
	told     map[Conflict]bool
	dialing  map[netip.Addr]bool
	updating sync.Mutex // one change of flags at a time, so that the last one wins
}

// reclaim is how long after the death of a server its instance may come back
// from another address. Without it memberlist never lets it in again.
const reclaim = 10 * time.Second

// Join binds the port and begins to listen. It contacts nobody: Run does. It
// fails when the port is taken or the address is not on this server; trying
// again makes sense once that has changed.
func Join(ctx context.Context, config Config) (*Group, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Group{
		config:  config,
		changes: make(chan struct{}, 1),
		log:     &logWriter{log: config.Logger},
		flags:   config.Flags,
		peers:   map[string]Peer{},
		told:    map[Conflict]bool{},
		dialing: map[netip.Addr]bool{},
	}
	mc, err := g.memberlistConfig()
	if err != nil {
		return nil, err
	}
	list, err := memberlist.Create(mc)
	if err != nil {
		return nil, bindError(config, err)
	}
	g.list = list
	return g, nil
}

func (c Config) check() error {
	var problems []error
	if len(c.Inst) != 32 {
		problems = append(problems, fmt.Errorf("instance is %q; expected 32 hex digits", c.Inst))
	}
	if _, err := encodeMeta(said{hw: c.HW}); err != nil {
		problems = append(problems, err)
	}
	if !c.Address.IsValid() || c.Address.IsUnspecified() {
		problems = append(problems, fmt.Errorf("address is %q; expected this server's private address", c.Address))
	}
	if c.Port == 0 {
		problems = append(problems, errors.New("port is 0; every server must use the same one"))
	}
	for _, key := range append([][]byte{c.Key}, c.Accept...) {
		if len(key) != 32 {
			problems = append(problems, fmt.Errorf("key has %d bytes; expected 32", len(key)))
		}
	}
	if c.Label == "" || len(c.Label) > memberlist.LabelMaxSize {
		problems = append(problems, fmt.Errorf("label is %q; expected 1 to %d characters", c.Label, memberlist.LabelMaxSize))
	}
	return errors.Join(problems...)
}

func (g *Group) memberlistConfig() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.Inst // a wiped server is a new name, so that names never clash
	c.BindAddr = g.config.Address.String()
	c.AdvertiseAddr = c.BindAddr
	c.BindPort = int(g.config.Port)
	c.AdvertisePort = c.BindPort
	c.Label = g.config.Label
	keys, err := memberlist.NewKeyring(g.config.Accept, slices.Clone(g.config.Key))
	if err != nil {
		return nil, fmt.Errorf("gossip: its keys: %w", err)
	}
	c.Keyring = keys
	// Alive messages are small and encrypted bytes do not shrink; off, joining
	// 100 servers costs half the CPU (measured with memberlist 0.7.0).
	c.EnableCompression = false
	c.DeadNodeReclaimTime = reclaim
	c.Transport = g.config.Transport
	c.Delegate = (*delegate)(g)
	c.Events = (*delegate)(g)
	c.Conflict = (*delegate)(g)
	c.Logger = log.New(g.log, "", 0)
	return c, nil
}

// bindError makes a sentence of what memberlist says when it cannot listen; it
// does not wrap the system's error, so its text is all there is.
func bindError(config Config, err error) error {
	at := netip.AddrPortFrom(config.Address, config.Port)
	switch text := err.Error(); {
	case strings.Contains(text, "address already in use"):
		return fmt.Errorf("gossip: %s is in use by another process; stop it (ss -lptn 'sport = :%d' names it) or set spec.ports.gossip: %w", at, config.Port, err)
	case strings.Contains(text, "cannot assign requested address"):
		return fmt.Errorf("gossip: %s is not an address of this server, though its metadata says so; see ip addr: %w", config.Address, err)
	}
	return fmt.Errorf("gossip: listening at %s: %w", at, err)
}

// Peers returns the servers that answer, this one included, sorted by instance.
func (g *Group) Peers() []Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	peers := make([]Peer, 0, len(g.peers))
	for _, p := range g.peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Inst, b.Inst) })
	return peers
}

// Changes gives a value after Peers has changed; several changes may be one
// value. There is one channel: one reader.
func (g *Group) Changes() <-chan struct{} { return g.changes }

// SetFlags changes what this server says of itself. It returns at once; the
// others learn it within a few gossip rounds of 200 ms.
func (g *Group) SetFlags(flags Flags) {
	g.updating.Lock()
	defer g.updating.Unlock()
	g.mu.Lock()
	same := g.flags == flags
	g.flags = flags
	g.mu.Unlock()
	if same {
		return
	}
	// UpdateNode queues the message and then only waits until it went out; its
	// one error is that this wait was too short.
	if err := g.list.UpdateNode(time.Nanosecond); err != nil {
		g.config.Logger.Debug("gossip: flags are on their way", "flags", flags)
	}
}

// Leave tells the others that this server goes, stops listening and waits for
// what Run has left behind; end Run first. Without a deadline on ctx it takes at
// most 10 s. The group is of no use afterwards.
func (g *Group) Leave(ctx context.Context) error {
	var err error
	// memberlist panics when told to leave a second time.
	g.left.Do(func() { err = g.leave(ctx) })
	return err
}

func (g *Group) leave(ctx context.Context) error {
	const most = 5 * time.Second
	wait := most
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(most, max(time.Until(deadline), time.Millisecond))
	}
	// That nobody heard it is no reason to stay: they find out by probing.
	leaveErr := g.list.Leave(wait)
	if leaveErr != nil {
		leaveErr = fmt.Errorf("gossip: telling the others: %w", leaveErr)
	}
	g.log.leaving.Store(true)
	if err := g.list.Shutdown(); err != nil {
		return errors.Join(leaveErr, fmt.Errorf("gossip: shutting down: %w", err))
	}
	done := make(chan struct{})
	go func() { g.dials.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	case <-time.After(wait):
	}
	return leaveErr
}

func (g *Group) changed() {
	select {
	case g.changes <- struct{}{}:
	default: // one is waiting to be read
	}
}

// delegate is what memberlist calls; Group itself shall not show these methods.
// memberlist holds its own lock meanwhile: nothing here may wait or call back.
type delegate Group

func (d *delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	meta, err := encodeMeta(said{d.flags, d.config.HW, d.config.Switch})
	if err != nil {
		return nil // cannot be: Join has checked the hardware id
	}
	return meta
}

func (d *delegate) NotifyMsg([]byte)                  {}
func (d *delegate) GetBroadcasts(_, _ int) [][]byte   { return nil }
func (d *delegate) LocalState(bool) []byte            { return nil }
func (d *delegate) MergeRemoteState(_ []byte, _ bool) {}

func (d *delegate) NotifyJoin(n *memberlist.Node)   { d.see(n) }
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.see(n) }

func (d *delegate) see(n *memberlist.Node) {
	says, err := decodeMeta(n.Meta)
	if err != nil {
		d.config.Logger.Warn("gossip: a server says of itself what this release does not understand; it is left out", "inst", n.Name, "address", n.Addr.String(), "err", err)
		d.forget(n.Name)
		return
	}
	at := address(n.Addr)
	d.mu.Lock()
	// Whoever was at this address under another instance is told of again, should it
	// be back.
	maps.DeleteFunc(d.told, func(c Conflict, _ bool) bool { return c.Inst != n.Name && slices.Contains(c.Addresses[:], at) })
	d.peers[n.Name] = Peer{Inst: n.Name, HW: says.hw, Address: at, Flags: says.flags, Switch: says.onSwitch}
	d.mu.Unlock()
	(*Group)(d).changed()
}

func (d *delegate) NotifyLeave(n *memberlist.Node) { d.forget(n.Name) }

func (d *delegate) forget(inst string) {
	d.mu.Lock()
	delete(d.peers, inst)
	d.mu.Unlock()
	(*Group)(d).changed()
}

func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	c := Conflict{Inst: existing.Name, Addresses: [2]netip.Addr{address(existing.Addr), address(other.Addr)}}
	d.mu.Lock()
	told := d.told[c]
	d.told[c] = true
	d.mu.Unlock()
	if told || d.config.Conflict == nil {
		return
	}
	go d.config.Conflict(c)
}

func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
