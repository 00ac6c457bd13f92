package bootstrap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mustermetal/muster/pkg/election"
)

// Traces are what the units' checks find on this server: the durable state of
// the election and what lies in /etc/kubernetes.
type Traces struct {
	State  *election.State // nil: none, or damaged
	SpecID string          // of the cluster file
	CAHash string          // of /etc/kubernetes/pki/ca.crt, "" where there is none
	// StandsEpoch is the epoch whose GO enough electors confirmed in this boot;
	// Stands says whether there is one.
	StandsEpoch uint64
	Stands      bool
	AdminConf   bool // /etc/kubernetes/admin.conf exists
	InitStarted bool // the journal says that this server began kubeadm init
	// Buried is the mark that this disk carries another server's node, a sentence; ""
	// when there is none.
	Buried string
	// Cards are the network cards here, where that is known.
	Cards []string
	// WasSealed says that the journal knows this server's cluster as sealed.
	WasSealed bool
	// OtherCA says that the endpoint answers TLS with a certificate of another CA.
	OtherCA  bool
	Endpoint string
}

// CheckInit is the last fence before kubeadm init (docs/fence.md): an error says
// why it may not run here. It runs in kubeadm-init.service, so that a person who
// starts that unit by hand on the wrong server is stopped too.
func CheckInit(t Traces) error {
	if err := t.elsewhere(); err != nil {
		return err
	}
	switch s := t.State; {
	case s == nil:
		return errors.New("this server has no state of the election, so it was not chosen to run kubeadm init: " +
			"muster.service runs it on the one server that was; bootstrap status shows which")
	case s.SpecID != t.SpecID:
		return fmt.Errorf("the state on this disk belongs to cluster %s, the cluster file to %s: nothing may be initialised here; run bootstrap reset --yes and reboot", s.SpecID, t.SpecID)
	case s.IsSealed():
		return fmt.Errorf("the cluster is formed (sealed in epoch %d): a second kubeadm init would make a second cluster; this server joins it", s.Sealed.Epoch)
	case s.Superseded():
		return superseded(*s)
	case !s.HoldsGo():
		return notChosen(*s)
	}
	leader, epoch, _ := t.State.Leader()
	switch {
	case !t.Stands || t.StandsEpoch != epoch:
		return fmt.Errorf("GO of epoch %d was not confirmed by enough servers since this boot: "+
			"it may have been superseded; muster.service asks them, bootstrap status shows who is missing", epoch)
	case t.CAHash == "":
		return errors.New("/etc/kubernetes/pki/ca.crt is not there: kubeadm would make a CA that the decree does not pin, and joiners would refuse this control plane; " +
			"muster.service lays the right one and starts this unit: systemctl restart muster")
	case t.CAHash != leader.CAHash:
		return fmt.Errorf("the CA in /etc/kubernetes/pki has the hash %s, the decree pins %s: joiners would refuse this control plane; "+
			"remove /etc/kubernetes/pki and let muster.service lay the right one", t.CAHash, leader.CAHash)
	case t.AdminConf && !t.InitStarted:
		return errors.New("/etc/kubernetes/admin.conf is here, but the journal knows of no kubeadm init by muster: " +
			"something else made a cluster on this server; run kubeadm reset, or keep that cluster and take this server off the list")
	case t.OtherCA:
		return fmt.Errorf("the endpoint %s answers with the certificate of another CA: a cluster is there already; "+
			"find it before anything else (openssl s_client -connect %s)", t.Endpoint, t.Endpoint)
	}
	return nil
}

// elsewhere says that the node on this disk is another server's: as the agent marked
// it, or, before the agent knows who this server is, by its network cards.
func (t Traces) elsewhere() error {
	if t.Buried != "" {
		return errors.New(t.Buried)
	}
	if t.State == nil || t.CAHash == "" {
		return nil
	}
	was := t.State.Hardware
	if is := (election.Hardware{HW: was.HW, MACs: t.Cards}); !was.Same(is) {
		return fmt.Errorf("this disk carries the node of a server with the network cards %s; here are %s: it was cloned or moved, or all cards were replaced; "+
			"kubelet, kubeadm and announcer stay down; run bootstrap reset --yes and reboot, and this server comes as a new one", strings.Join(was.MACs, " "), strings.Join(t.Cards, " "))
	}
	return nil
}

// BuriedText says why the node on a disk that came from other hardware stays down;
// traces are what was found of it.
func BuriedText(was, is election.Hardware, traces string) string {
	return fmt.Sprintf("this disk carries the node of hardware %s (network cards %s), and this is hardware %s (%s): it was cloned or moved, or all cards were replaced, or spec.identity.source was changed; "+
		"kubelet, kubeadm and announcer stay down at every boot (%s are its traces); run bootstrap reset --yes and reboot, and this server comes as a new one",
		was.HW, strings.Join(was.MACs, " "), is.HW, strings.Join(is.MACs, " "), traces)
}

func superseded(s election.State) error {
	text := "this server held GO and was superseded by an operator's order"
	if leader, epoch, ok := s.Leader(); ok {
		text += fmt.Sprintf(": %s leads epoch %d now", leader.Name, epoch)
	}
	return errors.New(text + "; what it built is void; run bootstrap reset --yes and reboot")
}

func notChosen(s election.State) error {
	leader, epoch, ok := s.Leader()
	switch {
	case !ok:
		return errors.New("no server is chosen yet to run kubeadm init: the servers are still voting; bootstrap status shows what they wait for")
	case leader.Inst == s.Inst && s.Gone():
		return fmt.Errorf("this server was chosen in epoch %d, but its own mark of that is not on disk: restart muster.service, which asks the other servers", epoch)
	case leader.Inst == s.Inst:
		return fmt.Errorf("this server leads epoch %d but GO is not decided: it needs the votes of enough servers; bootstrap status shows who is missing", epoch)
	case s.Gone():
		return fmt.Errorf("%s (%s) was chosen to run kubeadm init in epoch %d, not this server: here it would make a second cluster", leader.Name, leader.Address, epoch)
	}
	return fmt.Errorf("%s (%s) leads epoch %d, not this server", leader.Name, leader.Address, epoch)
}

// CheckStart says whether kubelet and the announcer may start. In question are a
// server that holds a GO which is not sealed, since it may have been superseded
// while it was off and must not rise on its own, one that lost its memory of such a
// GO, one whose node was made for a decree that was superseded, and one whose disk
// carries another server's node. The cluster file has
// no say: one that a later release finds fault with must not keep a formed node
// down, and another one must not let a superseded node up.
func CheckStart(t Traces) error {
	if err := t.elsewhere(); err != nil {
		return err
	}
	s := t.State
	if s == nil {
		s = &election.State{} // lost, or never formed by this election
	}
	if slices.Contains(s.VoidCAs(), t.CAHash) {
		return fmt.Errorf("the CA in /etc/kubernetes/pki has the hash %s, which was superseded: what was built here is void and stays down; "+
			"bootstrap status says how to give this server to the cluster", t.CAHash)
	}
	if s.IsSealed() {
		if t.CAHash != "" && t.CAHash != s.Sealed.CAHash {
			return fmt.Errorf("the CA in /etc/kubernetes/pki has the hash %s, the cluster was sealed with %s: "+
				"what runs here belongs to another cluster; bootstrap reset --yes and a reboot let this server join", t.CAHash, s.Sealed.CAHash)
		}
		return nil
	}
	if !s.HoldsGo() {
		if t.CAHash != "" && t.InitStarted && !t.WasSealed {
			return errors.New("kubeadm init was begun on this server, but the fence's state of that life is damaged or gone, and nothing on this disk says that the cluster was sealed: " +
				"it may have been superseded, so it stays down until enough other servers say that it is sealed; bootstrap status shows them, and bootstrap reset --yes with a reboot lets this server join")
		}
		return nil // Kubernetes is the authority
	}
	_, epoch, _ := s.Leader()
	if !t.Stands || t.StandsEpoch != epoch {
		return fmt.Errorf("this server holds GO of epoch %d, which is not sealed and was not confirmed by enough servers since this boot: "+
			"it stays down until they answer, because another may have taken its place; bootstrap status shows who is missing", epoch)
	}
	return nil
}
