package bootstrap

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/election"
)

const (
	checkSpec = "5b0c0000000000000000000000000001"
	checkCA   = "sha256:1111"
	checkCA2  = "sha256:2222"
)

var (
	meInst, meHW = strings.Repeat("a", 32), strings.Repeat("b", 32)
	cp2Inst      = strings.Repeat("c", 32)
	me           = election.Leader{HW: meHW, Inst: meInst, Name: "cp1", Address: netip.MustParseAddr("10.99.14.9"), CAHash: checkCA, AgentCAHash: "sha256:3333"}
	cp2          = election.Leader{HW: strings.Repeat("d", 32), Inst: cp2Inst, Name: "cp2", Address: netip.MustParseAddr("10.99.14.11"), CAHash: checkCA2, AgentCAHash: "sha256:4444"}
	goValue      = election.Value{Kind: election.Go}
	abdicate     = election.Value{Kind: election.Abdicate}
)

func leads(l election.Leader) election.Value { return election.Value{Kind: election.Lead, Leader: l} }

// state is this server's state with those values decided.
func state(decided ...election.Value) *election.State {
	s := &election.State{Seq: 1, SpecID: checkSpec, Inst: meInst, Hardware: election.Hardware{HW: meHW}}
	for _, v := range decided {
		s.Slots = append(s.Slots, election.Slot{Decided: v})
	}
	return s
}

// holder is the state of a server that holds GO of the epoch that its values end in.
func holder(before ...election.Value) *election.State {
	s := state(append(before, leads(me), goValue)...)
	s.GoMarker = true
	return s
}

// chosen are the traces of a server on which kubeadm init may run now, changed.
func chosen(change func(*Traces)) Traces {
	t := Traces{State: holder(), SpecID: checkSpec, CAHash: checkCA, Stands: true, Endpoint: "147.75.194.92:6443"}
	change(&t)
	return t
}

func same(*Traces) {}

func seal(t *Traces) {
	t.State.Sealed = election.Sealed{Epoch: 0, CAHash: checkCA, Endpoint: "147.75.194.92:6443"}
}

type check struct {
	name   string
	traces Traces
	want   string // "": it may
}

func runChecks(t *testing.T, may func(Traces) error, checks []check) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := may(c.traces); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got:  %s\nwant: %s", got, c.want)
			}
		})
	}
}

// TestCheckInit: one server, with everything in place, may run kubeadm init; each
// other gets the sentence that a person at its console needs.
func TestCheckInit(t *testing.T) {
	runChecks(t, CheckInit, []check{
		{"chosen", chosen(same), ""},
		{"chosen, init was interrupted", chosen(func(t *Traces) { t.AdminConf, t.InitStarted = true, true }), ""},
		{"chosen in a later epoch", chosen(func(t *Traces) {
			t.State, t.StandsEpoch = holder(leads(cp2), abdicate), 1
		}), ""},
		{"no state", chosen(func(t *Traces) { t.State = nil }),
			"this server has no state of the election, so it was not chosen to run kubeadm init: muster.service runs it on the one server that was; bootstrap status shows which"},
		{"another cluster's state", chosen(func(t *Traces) { t.SpecID = "77" }),
			"the state on this disk belongs to cluster " + checkSpec + ", the cluster file to 77: nothing may be initialised here; run bootstrap reset --yes and reboot"},
		{"sealed", chosen(seal),
			"the cluster is formed (sealed in epoch 0): a second kubeadm init would make a second cluster; this server joins it"},
		{"sealed, known without any slot", chosen(func(t *Traces) { t.State = state(); seal(t) }),
			"the cluster is formed (sealed in epoch 0): a second kubeadm init would make a second cluster; this server joins it"},
		{"nothing decided", chosen(func(t *Traces) { t.State = state() }),
			"no server is chosen yet to run kubeadm init: the servers are still voting; bootstrap status shows what they wait for"},
		{"the last leader abdicated", chosen(func(t *Traces) { t.State = state(leads(me), abdicate) }),
			"no server is chosen yet to run kubeadm init: the servers are still voting; bootstrap status shows what they wait for"},
		{"leads without GO", chosen(func(t *Traces) { t.State = state(leads(me)) }),
			"this server leads epoch 0 but GO is not decided: it needs the votes of enough servers; bootstrap status shows who is missing"},
		{"GO without its marker on disk", chosen(func(t *Traces) { t.State = state(leads(me), goValue) }),
			"this server was chosen in epoch 0, but its own mark of that is not on disk: restart muster.service, which asks the other servers"},
		{"another leads", chosen(func(t *Traces) { t.State = state(leads(cp2)) }),
			"cp2 (10.99.14.11) leads epoch 0, not this server"},
		{"another was chosen", chosen(func(t *Traces) { t.State = state(leads(cp2), goValue) }),
			"cp2 (10.99.14.11) was chosen to run kubeadm init in epoch 0, not this server: here it would make a second cluster"},
		{"an older life of this disk was chosen", chosen(func(t *Traces) { t.State.Inst = cp2Inst }),
			"cp1 (10.99.14.9) was chosen to run kubeadm init in epoch 0, not this server: here it would make a second cluster"},
		{"not confirmed since this boot", chosen(func(t *Traces) { t.Stands = false }),
			"GO of epoch 0 was not confirmed by enough servers since this boot: it may have been superseded; muster.service asks them, bootstrap status shows who is missing"},
		{"an older GO was confirmed", chosen(func(t *Traces) { t.State = holder(leads(cp2), abdicate) }),
			"GO of epoch 1 was not confirmed by enough servers since this boot: it may have been superseded; muster.service asks them, bootstrap status shows who is missing"},
		{"no CA", chosen(func(t *Traces) { t.CAHash = "" }),
			"/etc/kubernetes/pki/ca.crt is not there: kubeadm would make a CA that the decree does not pin, and joiners would refuse this control plane; " +
				"muster.service lays the right one and starts this unit: systemctl restart muster"},
		{"another CA", chosen(func(t *Traces) { t.CAHash = checkCA2 }),
			"the CA in /etc/kubernetes/pki has the hash sha256:2222, the decree pins sha256:1111: joiners would refuse this control plane; " +
				"remove /etc/kubernetes/pki and let muster.service lay the right one"},
		{"a cluster made by hand", chosen(func(t *Traces) { t.AdminConf = true }),
			"/etc/kubernetes/admin.conf is here, but the journal knows of no kubeadm init by muster: something else made a cluster on this server; " +
				"run kubeadm reset, or keep that cluster and take this server off the list"},
		{"another cluster at the endpoint", chosen(func(t *Traces) { t.OtherCA = true }),
			"the endpoint 147.75.194.92:6443 answers with the certificate of another CA: a cluster is there already; " +
				"find it before anything else (openssl s_client -connect 147.75.194.92:6443)"},
	})
}

// TestCheckStart: kubelet and the speaker start everywhere but on a server whose
// GO may have been superseded, or whose cluster lost.
func TestCheckStart(t *testing.T) {
	unconfirmed := func(epoch string) string {
		return "this server holds GO of epoch " + epoch + ", which is not sealed and was not confirmed by enough servers since this boot: " +
			"it stays down until they answer, because another may have taken its place; bootstrap status shows who is missing"
	}
	const void = "the CA in /etc/kubernetes/pki has the hash sha256:1111, which was superseded: what was built here is void and stays down; " +
		"bootstrap status says how to give this server to the cluster"
	const lost = "kubeadm init was begun on this server, but the fence's state of that life is damaged or gone, and nothing on this disk says that the cluster was sealed: " +
		"it may have been superseded, so it stays down until enough other servers say that it is sealed; bootstrap status shows them, and bootstrap reset --yes with a reboot lets this server join"
	superseded := func(t *Traces) { t.State = state(leads(me), goValue, leads(cp2), goValue) }
	const mark = "this disk carries the node of hardware 1"
	const moved = "this disk carries the node of a server with the network cards 02:00:00:00:00:0a; here are 02:00:00:00:00:0b: it was cloned or moved, or all cards were replaced; " +
		"kubelet, kubeadm and announcer stay down; run bootstrap reset --yes and reboot, and this server comes as a new one"
	cards := func(was, is string) func(*Traces) {
		return func(t *Traces) {
			seal(t)
			t.State.Hardware.MACs, t.Cards = strings.Fields(was), strings.Fields(is)
		}
	}
	const a, b, c = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	runChecks(t, CheckInit, []check{{"buried", chosen(func(t *Traces) { t.Buried = mark }), mark}, {"moved", chosen(cards(a, b)), moved}})
	runChecks(t, CheckStart, []check{
		{"buried", chosen(func(t *Traces) { t.Buried = mark }), mark},
		{"buried, and nothing left of the state", chosen(func(t *Traces) { t.State, t.Buried = nil, mark }), mark},
		{"in other hardware", chosen(cards(a, b)), moved},
		{"in other hardware, without a node", chosen(func(t *Traces) { cards(a, b)(t); t.CAHash = "" }), ""},
		{"one card of two replaced", chosen(cards(a+" "+b, b+" "+c)), ""},
		{"no card seen yet", chosen(cards(a, "")), ""},
		{"superseded", chosen(superseded), void},
		{"superseded, the others are sealed", chosen(func(t *Traces) { superseded(t); t.State.Sealed = election.Sealed{Epoch: 1, CAHash: checkCA2} }), void},
		{"superseded, reset since", chosen(func(t *Traces) { superseded(t); t.CAHash = "" }), ""},
		{"superseded, and joined since", chosen(func(t *Traces) {
			superseded(t)
			t.CAHash, t.State.Sealed = checkCA2, election.Sealed{Epoch: 1, CAHash: checkCA2}
		}), ""},
		{"no state: Kubernetes decides", chosen(func(t *Traces) { t.State = nil }), ""},
		{"no state, kubeadm init was begun", chosen(func(t *Traces) { t.State, t.InitStarted = nil, true }), lost},
		{"no state, kubeadm init was begun and sealed", chosen(func(t *Traces) { t.State, t.InitStarted, t.WasSealed = nil, true, true }), ""},
		{"no state, kubeadm init was begun and left nothing", chosen(func(t *Traces) { t.State, t.InitStarted, t.CAHash = nil, true, "" }), ""},
		{"a new life after a lost state", chosen(func(t *Traces) { t.State, t.InitStarted = state(), true }), lost},
		{"a new life that learned of the old one's GO", chosen(func(t *Traces) { t.State, t.InitStarted = state(leads(me), goValue), true; t.State.Inst = cp2Inst }), lost},
		{"a new life that learned that it was superseded", chosen(func(t *Traces) { superseded(t); t.InitStarted, t.State.Inst = true, cp2Inst }), void},
		{"a new life that learned of sealed", chosen(func(t *Traces) {
			t.State, t.InitStarted = state(leads(me), goValue), true
			t.State.Inst = cp2Inst
			seal(t)
		}), ""},
		{"another cluster's state that holds GO", chosen(func(t *Traces) { t.SpecID = "77"; t.Stands = false }), unconfirmed("0")},
		{"a cluster file that cannot be read", chosen(func(t *Traces) { t.SpecID = ""; seal(t); t.Stands = false }), ""},
		{"nothing decided", chosen(func(t *Traces) { t.State = state() }), ""},
		{"leads without GO", chosen(func(t *Traces) { t.State = state(leads(me)) }), ""},
		{"another was chosen", chosen(func(t *Traces) { t.State, t.Stands = state(leads(cp2), goValue), false }), ""},
		{"GO that stands", chosen(same), ""},
		{"GO that is not confirmed", chosen(func(t *Traces) { t.Stands = false }), unconfirmed("0")},
		{"GO of another epoch confirmed", chosen(func(t *Traces) { t.State = holder(leads(cp2), abdicate) }), unconfirmed("1")},
		{"sealed, after a reboot", chosen(func(t *Traces) { seal(t); t.Stands = false }), ""},
		{"sealed, no CA here yet", chosen(func(t *Traces) { seal(t); t.CAHash = "" }), ""},
		{"sealed with another CA: superseded", chosen(func(t *Traces) { seal(t); t.CAHash = checkCA2 }),
			"the CA in /etc/kubernetes/pki has the hash sha256:2222, the cluster was sealed with sha256:1111: " +
				"what runs here belongs to another cluster; bootstrap reset --yes and a reboot let this server join"},
	})
}
