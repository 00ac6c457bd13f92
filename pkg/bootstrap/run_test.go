package bootstrap

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// makeTestCA stands for the cluster CA that a server makes beforehand.
func makeTestCA() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// formed waits in virtual time until the named servers are ready, then stops all.
func (w *world) formed(limit time.Duration, names ...string) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		var waiting []string
		for _, name := range names {
			if s := w.named(name); s.agent() == nil || s.agent().board.read().Phase != member.Ready {
				waiting = append(waiting, name)
			}
		}
		if len(waiting) == 0 {
			synctest.Wait() // for what a node does beside becoming ready
			return
		}
		if time.Now().After(deadline) {
			for _, name := range names {
				st := w.named(name).agent().board.read()
				w.t.Logf("%s: %s waits for %q problem %q", name, st.Phase, st.Waiting, st.Problem)
			}
			w.t.Fatalf("after %s still waiting: %v", limit, waiting)
		}
		time.Sleep(100 * time.Millisecond) // virtual: synctest
	}
}

func (w *world) shutdown() {
	for _, s := range w.servers {
		if s.stop != nil {
			w.powerOff(s.name)
		}
	}
}

// Ports that cannot be guarded hold nothing up, and status says that they are open.
func TestFirewallThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.shutdown()
		s := w.named("cp1")
		s.firewall = member.FirewallStatus{State: member.FirewallFailed, Reason: "nft is not installed"}
		w.boot("cp1")
		w.formed(time.Minute, "cp1")
		if got := s.agent().board.read().Network.Firewall; got != s.firewall {
			t.Errorf("status %+v", got)
		}
		if !slices.Contains(s.guarded.APIServer, netip.MustParseAddr("203.0.113.10")) {
			t.Errorf("the order knows no Elastic IP: %+v", s.guarded)
		}
	})
}

func TestForms(t *testing.T) {
	for _, shape := range []struct{ controlPlanes, workers int }{{1, 0}, {1, 1}, {3, 0}, {3, 2}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, shape.controlPlanes, shape.workers)
			defer w.shutdown()
			var names []string
			for _, s := range w.servers {
				names = append(names, s.name)
			}
			slices.Sort(names)
			for _, name := range names {
				w.boot(name)
			}
			w.formed(5*time.Minute, names...)
			inits, joins := w.ledger()
			if len(inits) != 1 {
				t.Errorf("%d+%d: kubeadm init ran on %v, expected one server", shape.controlPlanes, shape.workers, inits)
			}
			if len(joins) != len(names)-1 {
				t.Errorf("%d+%d: joined %v, expected all but the first", shape.controlPlanes, shape.workers, joins)
			}
			for _, s := range w.servers {
				if sealed := s.journal[StepSealed] == "done"; sealed != (s.journal["init"] == "done") {
					t.Errorf("%s: the journal knows of sealed: %t; it is %v", s.name, sealed, s.journal)
				}
				wantIP := s.name[0] == 'c'
				if got := len(s.addresses) == 1; got != wantIP {
					t.Errorf("%s: Elastic IP on lo: %v, expected %v", s.name, got, wantIP)
				}
				if s.name[0] == 'w' && s.joinedWith.Server != "https://203.0.113.10:6443" {
					t.Errorf("%s joined through %s, expected the endpoint", s.name, s.joinedWith.Server)
				}
			}
		})
	}
}

// A server that loses power at any second of the formation ends in the same
// cluster, whoever it is.
func TestPowerLossWhileForming(t *testing.T) {
	all := []string{"cp1", "cp2", "cp3", "w1", "w2"}
	for _, victim := range []string{"cp1", "cp2", "w1"} {
		for at := 500 * time.Millisecond; at < 40*time.Second; at += 3 * time.Second {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, 2)
				defer w.shutdown()
				for _, name := range all {
					w.boot(name)
				}
				time.Sleep(at) // virtual: synctest; in the middle of whatever runs
				w.powerOff(victim)
				time.Sleep(5 * time.Second) // virtual
				w.boot(victim)
				w.formed(10*time.Minute, all...)
				if inits, _ := w.ledger(); len(inits) != 1 {
					t.Errorf("%s off at %s: kubeadm init ran on %v", victim, at, inits)
				}
			})
		}
	}
}

// All off and on again: no peer, no vote and no metadata is needed to come back.
func TestAllOffAndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []string{"cp1", "cp2", "cp3", "w1", "w2"}
		w := newWorld(t, 3, 2)
		defer w.shutdown()
		for _, name := range all {
			w.boot(name)
		}
		w.formed(5*time.Minute, all...)
		before, joined := w.ledger()
		for _, name := range all {
			w.powerOff(name)
		}
		for _, name := range all {
			w.boot(name)
		}
		w.formed(time.Minute, all...)
		after, joinedAfter := w.ledger()
		if !slices.Equal(before, after) || !slices.Equal(joined, joinedAfter) {
			t.Errorf("kubeadm ran again: init %v then %v, join %v then %v", before, after, joined, joinedAfter)
		}
	})
}

// Too few servers: nobody initialises, and each says whom it waits for.
func TestWaitIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 2)
		defer w.shutdown()
		for _, name := range []string{"cp1", "cp2", "w1"} {
			w.boot(name)
		}
		pass(2 * time.Minute)
		if inits, _ := w.ledger(); len(inits) != 0 {
			t.Errorf("kubeadm init ran on %v with 3 of 5 servers", inits)
		}
		st := w.named("w1").agent().board.read()
		for _, want := range []string{"4 of 5 votes needed", "3 here", "power them on"} {
			if !strings.Contains(st.Waiting, want) {
				t.Errorf("w1 waits for %q, expected it to say %q", st.Waiting, want)
			}
		}
	})
}

// A kubeadm init that fails is tried again on the same server, never on another.
func TestInitRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.shutdown()
		w.named("cp1").initFails = 3
		w.boot("cp1")
		w.boot("w1")
		w.formed(10*time.Minute, "cp1", "w1")
		if inits, _ := w.ledger(); !slices.Equal(inits, []string{"cp1"}) {
			t.Errorf("kubeadm init ran on %v", inits)
		}
	})
}
