package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/test/faults/ledger"
)

const (
	clientPort = "2379"
	peerPort   = "2380"
)

// database is what all members of one etcd have in common. It lies in a file
// outside of the servers; who may change it is decided by their network.
type database struct {
	Revision uint64                     `json:"revision"`
	Members  []etcdMember               `json:"members"`
	Objects  map[string]json.RawMessage `json:"objects"`
}

// etcdMember is a member as etcd's JSON gateway prints it. One that never started
// has no name.
type etcdMember struct {
	ID        string   `json:"ID"`
	Name      string   `json:"name,omitempty"`
	PeerURLs  []string `json:"peerURLs"`
	IsLearner bool     `json:"isLearner,omitempty"`
}

// address is the private address of the member's server.
func (m etcdMember) address() string {
	if len(m.PeerURLs) == 0 {
		return ""
	}
	host, _, _ := net.SplitHostPort(m.PeerURLs[0][len("https://"):])
	return host
}

func peerURL(address string) string { return "https://" + net.JoinHostPort(address, peerPort) }

// pod is a static pod: etcd.yaml says all of it, the other manifests only that
// they are there.
type pod struct {
	Name    string `json:"name"` // of the node
	Address string `json:"address"`
	Cluster string `json:"cluster,omitempty"` // of the etcd to join; empty: a new one
	Member  string `json:"member,omitempty"`
}

// etcd is one member.
type etcd struct {
	pod
	mu      sync.Mutex
	checked time.Time
	why     error // no quorum
}

var errNoQuorum = errors.New("etcdserver: no leader")

// openEtcd takes up the data that is there, or begins what the manifest says.
func openEtcd(p pod) (*etcd, error) {
	file := filepath.Join(layout.EtcdData, "member", "id")
	b, err := os.ReadFile(file)
	if err == nil {
		own := pod{}
		if err := json.Unmarshal(b, &own); err != nil {
			return nil, fmt.Errorf("etcd's data is damaged: %w", err)
		}
		return &etcd{pod: own}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	fresh := p.Cluster == ""
	if fresh {
		p.Cluster, p.Member = newID(), newID()
	}
	e := &etcd{pod: p}
	err = e.with(func(db *database) error {
		if fresh {
			db.Objects = map[string]json.RawMessage{}
			db.Members = []etcdMember{{ID: p.Member, Name: p.Name, PeerURLs: []string{peerURL(p.Address)}}}
			return nil
		}
		i := slices.IndexFunc(db.Members, func(m etcdMember) bool { return m.ID == p.Member })
		if i < 0 {
			return fmt.Errorf("member %s is not in the list", p.Member)
		}
		db.Members[i].Name = p.Name
		return nil
	})
	if err != nil {
		return nil, err
	}
	if b, err = json.Marshal(e.pod); err != nil {
		return nil, err
	}
	return e, os.WriteFile(file, b, 0o600)
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, crypto/rand
	return strconv.FormatUint(binary.BigEndian.Uint64(b[:]), 10)
}

// with runs change on the database, one process at a time, and keeps what it made
// of it when it returns nil.
func (e *etcd) with(change func(*database) error) (err error) {
	dir := filepath.Join(ledger.Dir, "etcd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, e.Cluster+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close() // unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	file := filepath.Join(dir, e.Cluster+".json")
	var db database
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &db)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before := string(b)
	if err := change(&db); err != nil {
		return err
	}
	if b, err = json.Marshal(db); err != nil || string(b) == before {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// do runs change when this member is one and a majority of the voters is there.
func (e *etcd) do(change func(*database) error) error {
	if err := e.quorum(); err != nil {
		return err
	}
	return e.with(change)
}

// quorum says whether a majority of the voters reach this member over the network,
// as of half a second ago at most.
func (e *etcd) quorum() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	const fresh = 500 * time.Millisecond
	if time.Since(e.checked) < fresh {
		return e.why
	}
	e.why = e.count()
	e.checked = time.Now()
	return e.why
}

func (e *etcd) count() error {
	var voters []etcdMember
	err := e.with(func(db *database) error {
		if !slices.ContainsFunc(db.Members, func(m etcdMember) bool { return m.ID == e.Member }) {
			return errors.New("etcdserver: this member was removed")
		}
		for _, m := range db.Members {
			if !m.IsLearner {
				voters = append(voters, m)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	answers := make(chan bool, len(voters))
	for _, m := range voters {
		go func() { answers <- m.ID == e.Member || reaches(m.address()) }()
	}
	here := 0
	for range voters {
		if <-answers {
			here++
		}
		if here > len(voters)/2 {
			return nil
		}
	}
	return fmt.Errorf("%w: %d of %d voters reach each other", errNoQuorum, here, len(voters))
}

// reaches says whether the member at an address takes a connection. As in etcd, an
// election time-out of 1 s holds ten heartbeats of 100 ms, and one that comes through is
// enough: a frame lost now and then makes no member deaf.
func reaches(address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	const heartbeat, beats = 100 * time.Millisecond, 10
	answers := make(chan bool, beats)
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for range beats {
		go func() { answers <- beat(ctx, address) }()
		select {
		case ok := <-answers: // false: refused
			return ok
		case <-tick.C:
		}
	}
	return <-answers
}

func beat(ctx context.Context, address string) bool {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(address, peerPort))
	if err != nil {
		return false
	}
	return c.Close() == nil
}
