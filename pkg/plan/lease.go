package plan

import (
	"fmt"
	"time"
)

// Lease is what the object kube-system/muster-directory says: which generation of
// the directory stands, and who answers for it. It is written by comparing and
// swapping its resource version, so that of two who want the next generation one
// gets it.
type Lease struct {
	CAHash     string // of the cluster that it belongs to
	Epoch      uint64
	Generation uint64
	Holder     string // instance
	// Beat counts the renewals in this generation: 0 says that its directory was
	// not made yet, and that Holder may make it.
	Beat    uint64
	Version string // Kubernetes' resource version; empty: to be created
}

// Times around the Lease, each measured on the clock of one server.
const (
	// LeaseEvery is how often a control plane looks at the Lease, and its holder
	// renews it.
	LeaseEvery = 30 * time.Second
	// leaseStale is how long a Lease stands still before another control plane
	// whose directory answers renews it: four renewals.
	leaseStale = 2 * time.Minute
	// LeasePatience is how long no directory has answered before a control plane
	// takes the next generation: ten renewals. It is for calm only, because a
	// directory that is slow to come back is worth more than a new one; what
	// permits to make one is the swap.
	LeasePatience = 5 * time.Minute
)

// Directory names one directory of a cluster.
type Directory struct {
	CAHash     string
	Epoch      uint64
	Generation uint64
}

// LeaseSight is what one control plane knows when it looks at the Lease.
type LeaseSight struct {
	Inst      string    // of this server
	Own       Directory // what it runs
	Answers   bool      // its directory answers
	Elsewhere string    // name or address of a control plane whose directory answers, if one was asked
	Lease     Lease
	Found     bool          // there is a Lease
	Still     time.Duration // how long the Lease was seen to stand still
	Silent    time.Duration // and no directory answered, here or elsewhere
}

// LeaseStep is what a control plane does about the Lease.
type LeaseStep string

// Steps.
const (
	LeaseKeep   LeaseStep = "keep"   // nothing
	LeaseWrite  LeaseStep = "write"  // create it or renew it, for the generation that answers here
	LeaseFollow LeaseStep = "follow" // run the Lease's generation; make it when it is ours to make
	LeaseTake   LeaseStep = "take"   // swap it for the next generation, and make that when the swap succeeds
	LeaseWait   LeaseStep = "wait"   // no directory answers: wait, and say so
	LeaseRefuse LeaseStep = "refuse" // it belongs to another cluster
)

// LeaseDecision is a step with the Lease to write, for LeaseWrite and LeaseTake,
// or to follow, and a sentence for a person where there is something to say.
type LeaseDecision struct {
	Step  LeaseStep
	Lease Lease
	Why   string
}

// Mine says whether the generation of the Lease is for an instance to make.
func (l Lease) Mine(inst string) bool { return l.Holder == inst && l.Beat == 0 }

// DecideLease says what to do about the Lease. The generation only ever goes up:
// whoever learns of a higher one drops its own.
func DecideLease(s LeaseSight) LeaseDecision {
	mine := Lease{CAHash: s.Own.CAHash, Epoch: s.Own.Epoch, Generation: s.Own.Generation, Holder: s.Inst, Beat: 1, Version: s.Lease.Version}
	l := s.Lease
	switch {
	case !s.Found && s.Answers:
		return LeaseDecision{LeaseWrite, mine, "there is no Lease yet"}
	case !s.Found:
		return s.silent(s.Own.Generation)
	case l.CAHash != s.Own.CAHash || l.Epoch != s.Own.Epoch:
		return LeaseDecision{LeaseRefuse, l, fmt.Sprintf("the Lease kube-system/muster-directory is for epoch %d and cluster CA %s, this cluster has epoch %d and CA %s: "+
			"it came from a backup of another cluster; delete it, and this cluster writes its own", l.Epoch, l.CAHash, s.Own.Epoch, s.Own.CAHash)}
	case l.Generation > s.Own.Generation:
		return LeaseDecision{LeaseFollow, l, fmt.Sprintf("the Lease says that generation %d of the directory stands; generation %d, which this server has, is dropped", l.Generation, s.Own.Generation)}
	case s.Answers && l.Generation < s.Own.Generation:
		return LeaseDecision{LeaseWrite, mine, fmt.Sprintf("the Lease says generation %d, and generation %d answers: Kubernetes was restored from a backup", l.Generation, s.Own.Generation)}
	case s.Answers && (l.Holder == s.Inst || s.Still >= leaseStale):
		mine.Beat = l.Beat + 1
		return LeaseDecision{LeaseWrite, mine, ""}
	case s.Answers:
		return LeaseDecision{LeaseKeep, l, ""}
	case l.Generation == s.Own.Generation && l.Mine(s.Inst) && s.Silent < LeasePatience:
		return LeaseDecision{LeaseFollow, l, fmt.Sprintf("generation %d of the directory is this server's to make", l.Generation)}
	}
	return s.silent(max(l.Generation, s.Own.Generation))
}

// silent is the decision while no directory answers here; last is the highest
// generation known.
func (s LeaseSight) silent(last uint64) LeaseDecision {
	next := Lease{CAHash: s.Own.CAHash, Epoch: s.Own.Epoch, Generation: last + 1, Holder: s.Inst, Version: s.Lease.Version}
	since := s.Silent.Round(time.Second)
	switch {
	case s.Elsewhere != "":
		return LeaseDecision{LeaseWait, s.Lease, fmt.Sprintf("the directory of this server does not answer, that of %s does: this one joins it; journalctl -u muster-directory says what hinders it", s.Elsewhere)}
	case s.Silent < leaseStale:
		return LeaseDecision{LeaseWait, s.Lease, fmt.Sprintf("the directory of this server does not answer; another control plane's may: "+
			"it counts as lost only when none renews the Lease kube-system/muster-directory for %s", leaseStale)}
	case s.Silent < LeasePatience:
		return LeaseDecision{LeaseWait, s.Lease, fmt.Sprintf("the directory of this cluster is lost on all control planes, for %s as seen from here: none answers; "+
			"at %s one of them makes generation %d from what Kubernetes knows; what runs goes on running, only further servers cannot join until then", since, LeasePatience, last+1)}
	}
	return LeaseDecision{LeaseTake, next, fmt.Sprintf("no directory of this cluster has answered for %s: this server makes generation %d from what Kubernetes knows", since, last+1)}
}

// LeaseWatch is what one control plane remembers of the Lease between two looks:
// since when it stands still and nobody answered. It must see it without a break;
// after a look that failed, begin with the zero LeaseWatch.
type LeaseWatch struct {
	seen   Lease
	still  time.Time
	silent time.Time
}

// Look takes a sight in at a time of this server's clock, with its monotonic
// reading, fills in how long it stands so, and returns the next watch.
func (w LeaseWatch) Look(s LeaseSight, now time.Time) (LeaseSight, LeaseWatch) {
	if w.still.IsZero() || w.seen != s.Lease {
		w.seen, w.still, w.silent = s.Lease, now, now
	}
	if s.Answers || s.Elsewhere != "" {
		w.silent = now
	}
	s.Still, s.Silent = now.Sub(w.still), now.Sub(w.silent)
	return s, w
}
