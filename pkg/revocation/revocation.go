// Package revocation refuses the certificates of instances that were removed
// from the cluster, and cuts the connections that they have. Certificates of
// muster have no meaningful dates, so a list is all that ends one.
//
// Floor 1.
package revocation

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
)

// List is the revoked instances and the live connections of all instances. It
// only grows: an instance that was removed never comes back.
type List struct {
	peer func(tls.ConnectionState) (inst string, err error)

	mu      sync.Mutex
	revoked map[string]bool
	live    map[net.Conn]string // inst of the other side
}

// NewList returns a list of the revoked instances; peer reads the instance that
// the other side's certificate names.
func NewList(peer func(tls.ConnectionState) (string, error), revoked ...string) *List {
	l := &List{peer: peer, revoked: map[string]bool{}, live: map[net.Conn]string{}}
	for _, inst := range revoked {
		l.revoked[inst] = true
	}
	return l
}

// Check is nil, or the sentence for an instance that was removed.
func (l *List) Check(inst string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.check(inst)
}

func (l *List) check(inst string) error {
	if !l.revoked[inst] {
		return nil
	}
	return fmt.Errorf("instance %s was removed from this cluster and its certificate is revoked: switch the server off, or reinstall it to come back as a new instance", inst)
}

// Add revokes instances and closes the connections that they have at this
// moment. It returns how many were closed.
func (l *List) Add(insts ...string) (cut int) {
	l.mu.Lock()
	var victims []net.Conn
	for _, inst := range insts {
		l.revoked[inst] = true
	}
	for conn, inst := range l.live {
		if l.revoked[inst] {
			victims = append(victims, conn)
			delete(l.live, conn)
		}
	}
	l.mu.Unlock()
	for _, conn := range victims {
		// The raw connection: closing TLS could wait for a peer that reads nothing.
		if conn.Close() == nil {
			cut++
		}
	}
	return cut
}

// Insts are the revoked instances, sorted.
func (l *List) Insts() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.revoked))
}

// Guard returns a server's configuration that refuses revoked instances at the
// handshake and cuts them later. It needs no hold of the listener: TLS names the
// connection below when it asks for the configuration.
func (l *List) Guard(config *tls.Config) *tls.Config { return l.server(config, l.enter) }

// Track is Guard without the refusal at the handshake, for a server that refuses
// each request with a sentence: TLS could only say "bad certificate".
func (l *List) Track(config *tls.Config) *tls.Config { return l.server(config, l.note) }

func (l *List) server(config *tls.Config, took func(tls.ConnectionState, net.Conn) error) *tls.Config {
	outer := config.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		inner := config
		if config.GetConfigForClient != nil {
			special, err := config.GetConfigForClient(hello)
			if err != nil {
				return nil, err
			}
			if special != nil {
				inner = special
			}
		}
		return with(inner, func(cs tls.ConnectionState) error { return took(cs, hello.Conn) }), nil
	}
	return outer
}

// Client returns the configuration of one connection to a server, which must not
// be revoked. conn is the connection below, to be cut later; nil when nobody
// here has it.
func (l *List) Client(config *tls.Config, conn net.Conn) *tls.Config {
	return with(config, func(cs tls.ConnectionState) error { return l.enter(cs, conn) })
}

// with adds a check behind a configuration's own.
func with(config *tls.Config, check func(tls.ConnectionState) error) *tls.Config {
	out := config.Clone()
	before := config.VerifyConnection
	out.VerifyConnection = func(cs tls.ConnectionState) error {
		if before != nil {
			if err := before(cs); err != nil {
				return err
			}
		}
		return check(cs)
	}
	return out
}

// enter refuses a revoked peer and remembers any other, in one step: a peer that
// is revoked a moment later is found.
func (l *List) enter(cs tls.ConnectionState, conn net.Conn) error {
	inst, err := l.peer(cs)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(inst); err != nil {
		return err
	}
	l.remember(inst, conn)
	return nil
}

// note remembers a peer.
func (l *List) note(cs tls.ConnectionState, conn net.Conn) error {
	inst, err := l.peer(cs)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(inst, conn)
	return nil
}

// remember also forgets the connections that have ended, so that there are never
// many more than live ones.
func (l *List) remember(inst string, conn net.Conn) {
	maps.DeleteFunc(l.live, func(c net.Conn, _ string) bool { return ended(c) })
	if conn != nil {
		l.live[conn] = inst
	}
}

// ended says whether this side has closed a connection.
func ended(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	return raw.Control(func(uintptr) {}) != nil
}
