package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// An error that no attempt can cure stops the flow; status stays, says why, and
// the agent ends only when it is told to.
func TestPermanentStops(t *testing.T) {
	broken := errors.New("/dev/sda says no")
	for name, change := range map[string]func(*Machine){
		"at once": func(m *Machine) {
			m.Settle = func(device.Device) (Settled, error) { return Settled{}, Permanent(broken) }
		},
		"foreign state": func(m *Machine) {
			m.Settle = func(device.Device) (Settled, error) {
				return Settled{Origin: election.Foreign, Text: broken.Error()}, nil
			}
		},
		"within attempts": func(m *Machine) { m.Metadata = failing{Permanent(fmt.Errorf("metadata: %w", broken))} },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newWorld(t, 1, 0).named("cp1")
			m := Machine{Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now, Metadata: s, Network: s}
			change(&m)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			a, done := New(m), make(chan error, 1)
			servers := make(chan *Server, 1)
			go func() {
				done <- a.Run(ctx, func(ctx context.Context, s *Server) error {
					servers <- s
					<-ctx.Done()
					return nil
				})
			}()
			server := <-servers
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("%s: the agent ended: %v", name, err)
			default:
			}
			status := server.Servers(t.Context())[0]
			if status.Phase != member.Stopped || !strings.Contains(status.Problem, broken.Error()) {
				t.Errorf("%s: phase %s, problem %q", name, status.Phase, status.Problem)
			}
			stop()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// failing is metadata that is wrong for good.
type failing struct{ err error }

func (f failing) Device(context.Context, func(error)) (device.Device, error) {
	return device.Device{}, f.err
}

// A server that finds its own instance at another address stops voting and says
// so; it keeps answering.
func TestTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 0)
		defer w.shutdown()
		cp1 := w.named("cp1")
		cp1.twin = netip.MustParseAddr("10.0.0.99")
		w.boot("cp1")
		pass(10 * time.Minute)
		if inits, _ := w.ledger(); len(inits) > 0 {
			t.Error("kubeadm init ran although a copy of this disk is in sight")
		}
		status := cp1.agent().board.read()
		if !strings.Contains(status.Waiting, "answers at 10.0.0.99 too: two servers run from copies of one disk") {
			t.Errorf("phase %s waits for %q, problem %q", status.Phase, status.Waiting, status.Problem)
		}
	})
}

// noting is a network and a speaker that note what they are told, in order.
type noting struct {
	*testServer
	mu         sync.Mutex
	told       []string
	onLo       []netip.Prefix
	cannotDrop int // so many times
}

func (n *noting) note(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, text)
}

func (n *noting) Stop(context.Context) error {
	n.note("stop")
	return nil
}
func (n *noting) Set(p plan.Network) {
	n.note(fmt.Sprint("lo ", p.Addresses))
	if len(p.Addresses) > 0 { // they go by RemoveAddress
		n.onLo = p.Addresses
	}
}
func (n *noting) Addresses() ([]netip.Prefix, error) { return n.onLo, nil }
func (n *noting) RemoveAddress(_ context.Context, p netip.Prefix) error {
	n.note("delete " + p.String())
	if n.cannotDrop > 0 {
		n.cannotDrop--
		return errors.New("no")
	}
	n.onLo = nil
	return nil
}
func (n *noting) Start(context.Context, plan.Announcement) error {
	n.note("start")
	return nil
}
func (n *noting) Peers(context.Context) ([]member.PeerStatus, error) { return nil, nil }
func (n *noting) Withhold(_ context.Context, p netip.Prefix, held bool) error {
	n.note(fmt.Sprintf("withhold %s %t", p, held))
	return nil
}

// The EIP rule, in its order; and no order to withdraw outlives the illness, not
// even when the address could not be deleted or an earlier agent left the order.
func TestElasticIPs(t *testing.T) {
	const ip = "203.0.113.10/32"
	add, drop := []string{"lo [" + ip + "]", "withhold " + ip + " false"},
		[]string{"withhold " + ip + " true", "lo []", "delete " + ip}
	for _, tt := range []struct {
		name       string
		healthy    []bool
		cannotDrop int
		want       []string
		problem    string
	}{
		{"healthy", []bool{true}, 0, add, ""},
		{"ill from the start", []bool{false}, 0, []string{"lo []", "withhold " + ip + " false"}, ""},
		{"ill and well again", []bool{true, false, true}, 0,
			slices.Concat(add, drop, []string{"withhold " + ip + " false"}, add), ""},
		{"the address cannot be deleted at first", []bool{true, false}, 1,
			slices.Concat(add, drop, drop, []string{"withhold " + ip + " false"}), ""},
		{"the address cannot be deleted", []bool{true, false}, 9, slices.Concat(add, drop, drop),
			"the Elastic IPs shall leave this server, whose API server is not healthy, and that is tried on: removing the Elastic IP " + ip + " from lo: no"},
		{"the address cannot be deleted until it may stay", []bool{true, false, true}, 9, slices.Concat(add, drop, drop, add), ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 0)
			w.cluster.Spec.Network.BGP.ControlPlane = "none"
			s := w.named("cp1")
			n := &noting{testServer: s, cannotDrop: tt.cannotDrop}
			s.health = make(chan bool)
			a := New(Machine{Cluster: w.cluster, Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now,
				Network: n, Speaker: n, Health: s})
			a.device = s.device
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); a.holdElasticIPs(ctx) }()
			for _, healthy := range tt.healthy {
				s.health <- healthy
				time.Sleep(4*WithdrawHead + WithdrawHead/2) // virtual: two attempts, each after the withdrawal's head start
			}
			problem := a.board.read().Problem
			stop()
			<-done
			if !slices.Equal(n.told, tt.want) || problem != tt.problem {
				t.Errorf("%s:\n got %q\nwant %q\nproblem %q, expected %q", tt.name, n.told, tt.want, problem, tt.problem)
			}
		})
	}
}

// What an agent before left on lo stays on a control plane until its API server's
// health is known, and goes from everybody else.
func TestLeftovers(t *testing.T) {
	named, other := netip.MustParsePrefix("203.0.113.10/32"), netip.MustParsePrefix("203.0.113.11/32")
	for _, tt := range []struct {
		name    string
		journal []string
		void    bool
		want    []netip.Prefix
	}{
		{"a server that joins", nil, false, nil},
		{"a control plane that joins", []string{StepControlPlane}, false, nil},
		{"a control plane", []string{StepControlPlane, "join"}, false, []netip.Prefix{named}},
		{"the first control plane", []string{StepControlPlane, "init"}, false, []netip.Prefix{named}},
		{"the first control plane, superseded", []string{StepControlPlane, "init"}, true, nil},
		{"a worker", []string{StepWorker, "join"}, false, nil},
	} {
		w := newWorld(t, 1, 0)
		s := w.named("cp1")
		s.addresses = []netip.Prefix{named, other}
		for _, step := range tt.journal {
			s.journal[step] = "done"
		}
		a := New(Machine{Cluster: w.cluster, Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now,
			Network: s, Kubernetes: s, Journal: s})
		a.device = s.device
		if err := a.layRoutes(t.Context(), tt.void); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.Addresses(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v stays on lo, want %v", tt.name, got, tt.want)
		}
	}
}

// With kube-vip the pod is laid when the API server of this server is healthy and
// not before, once, and our speaker never runs beside it; with ours a pod of a
// former cluster file goes. What the metadata make impossible is in status.
func TestKubeVIPInPlaceOfTheSpeaker(t *testing.T) {
	peers := []device.Neighbor{{Family: 4, CustomerAS: 65000, PeerAS: 65530, PeerIPs: []netip.Addr{netip.MustParseAddr("169.254.255.1")}, Multihop: true}}
	for _, tt := range []struct {
		name, speaker string
		neighbors     []device.Neighbor
		healthy       bool
		before, pod   bool
		told, problem string
	}{
		{"healthy", cluster.SpeakerKubeVIP, peers, true, false, true, "stop", ""},
		{"not healthy yet", cluster.SpeakerKubeVIP, peers, false, false, false, "", ""},
		{"after a reboot", cluster.SpeakerKubeVIP, peers, false, true, true, "", ""},
		{"no routers", cluster.SpeakerKubeVIP, nil, true, false, false, "", "kube-vip: the metadata of cp1 has no IPv4 router"},
		{"ours again", cluster.SpeakerBuiltin, peers, true, true, false, "start", ""},
		{"nobody", cluster.SpeakerNone, peers, true, false, false, "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 0)
			w.cluster.Spec.Network.BGP.ControlPlane = tt.speaker
			s := w.named("cp1")
			s.health, s.device.BGPNeighbors = make(chan bool), tt.neighbors
			if tt.before {
				s.pods = map[string]string{layout.KubeVIP: "before"}
			}
			n := &noting{testServer: s}
			a := New(Machine{Cluster: w.cluster, Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now,
				Network: n, Speaker: n, Health: s, Kubernetes: s})
			a.device = s.device
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); a.holdElasticIPs(ctx) }()
			s.health <- tt.healthy
			time.Sleep(time.Second) // virtual
			synctest.Wait()
			w.mu.Lock()
			pod := s.pods[layout.KubeVIP]
			w.mu.Unlock()
			n.mu.Lock()
			all := slices.Clone(n.told)
			n.mu.Unlock()
			if (pod != "") != tt.pod || tt.pod && tt.healthy && !strings.Contains(pod, "value: 169.254.255.1:65530::true\n") {
				t.Errorf("%s: the pod is %q, expected one: %t", tt.name, pod, tt.pod)
			}
			var told []string
			for _, text := range all {
				if text == "start" || text == "stop" {
					told = append(told, text)
				}
			}
			if strings.Join(told, " ") != tt.told {
				t.Errorf("%s: the speaker was told %q, expected %q", tt.name, told, tt.told)
			}
			if problem := a.board.read().Problem; !strings.Contains(problem, tt.problem) || (problem != "") != (tt.problem != "") {
				t.Errorf("%s: the problem is %q, expected %q", tt.name, problem, tt.problem)
			}
			stop()
			<-done
			synctest.Wait()
		})
	}
}

// A filter that makes holding Elastic IPs vain is in the journal, once for each
// time that it is set so.
func TestStrictFilterIsInTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const strict = "rp_filter is 1 (strict) on bond1"
		w := newWorld(t, 1, 0)
		w.cluster.Spec.Network.BGP.ControlPlane = "none"
		s := w.named("cp1")
		s.health = make(chan bool)
		var journal bytes.Buffer
		a := New(Machine{Cluster: w.cluster, Log: slog.New(slog.NewTextHandler(&journal, nil)), Notify: func(string) {}, Now: time.Now,
			Network: s, Speaker: fakeSpeaker{s}, Health: s})
		a.device, a.self.Node.Private = s.device, s.address
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { a.holdElasticIPs(ctx); done <- nil }()
		for _, filter := range []string{"", strict, strict, "", strict} {
			s.filter = filter
			s.health <- true
			synctest.Wait()
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := strings.Count(journal.String(), strict); got != 2 {
			t.Errorf("%q is %d times in the journal, expected 2:\n%s", strict, got, journal.String())
		}
	})
}

// tardyGossip takes the first flags that it is told only when it is released.
type tardyGossip struct {
	*testServer
	began, release chan struct{}

	mu   sync.Mutex
	told []Flags
}

func (g *tardyGossip) SetFlags(f Flags) {
	if f == (Flags{Sealed: true}) {
		close(g.began)
		<-g.release
	}
	g.mu.Lock()
	g.told = append(g.told, f)
	g.mu.Unlock()
}

// Two that change the flags at once leave gossip with the changes of both.
func TestFlagsAreNotOvertaken(t *testing.T) {
	g := &tardyGossip{began: make(chan struct{}), release: make(chan struct{})}
	a := New(Machine{Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Now: time.Now})
	a.fabric.Gossip = g
	var both sync.WaitGroup
	both.Go(func() { a.setFlags(func(f *Flags) { f.Sealed = true }) })
	<-g.began
	second := make(chan struct{})
	both.Go(func() {
		a.setFlags(func(f *Flags) { f.ControlPlane = true })
		close(second)
	})
	select {
	case <-second: // it overtook
	case <-time.After(20 * time.Millisecond): // it waits, as it should
	}
	close(g.release)
	both.Wait()
	if last := g.told[len(g.told)-1]; last != (Flags{Sealed: true, ControlPlane: true}) {
		t.Errorf("gossip was told %+v, the last lacks a flag", g.told)
	}
}

// A vote that cannot be made durable is not answered. The agent goes on serving
// and says why, and the vote is given when there is room again.
func TestVoteThatCannotBeWrittenIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, 0)
		defer w.shutdown()
		w.boot("cp1")
		pass(2 * time.Second)
		cp1 := w.named("cp1")
		w.mu.Lock()
		cp1.saveFails = true
		w.mu.Unlock()
		w.boot("cp2")
		w.boot("cp3")
		pass(10 * time.Minute)
		if d := w.named("cp2").agent().fence.read(); d.Phase != election.PhaseForming {
			t.Errorf("3 votes decide, and cp1 could not write its own: %s", d.Phase)
		}
		if st := cp1.server.Status(t.Context()); st.Problem != "the fence cannot write its state, so it does not vote: the disk is full" {
			t.Errorf("problem %q", st.Problem)
		}
		w.mu.Lock()
		cp1.saveFails = false
		w.mu.Unlock()
		w.formed(5*time.Minute, "cp1", "cp2", "cp3")
		if st := cp1.server.Status(t.Context()); st.Problem != "" {
			t.Errorf("problem %q is still in view", st.Problem)
		}
	})
}
