package announce

import "time"

// Verdict is what one look at the API server found.
type Verdict int

// Verdicts.
const (
	// Failed: no answer, a refusal, or any answer but 200.
	Failed Verdict = iota
	// Ready: the API server answered 200.
	Ready
	// EtcdOnly: it is ready but for its etcd checks.
	EtcdOnly
)

const (
	// failuresToWithdraw in a row end the announcement: one may be a single lost
	// packet or a long pause of the runtime.
	failuresToWithdraw = 2
	// holdEtcd is how long an API server whose etcd alone fails stays announced.
	// Every API server loses etcd for the time of an election; withdrawing all of
	// them at once would cut what still works, such as watches, and the
	// connections of every client.
	holdEtcd = 10 * time.Second
)

// Gate decides from a sequence of verdicts whether the Elastic IPs are
// announced. The zero value is shut: only a 200 opens it.
type Gate struct {
	open      bool
	failures  int       // Failed since the last Ready
	etcdSince time.Time // first EtcdOnly since the last Ready
}

// Next takes the verdict of now and says whether the gate is open after it.
func (g *Gate) Next(v Verdict, now time.Time) bool {
	switch v {
	case Ready:
		*g = Gate{open: true}
	case EtcdOnly:
		if g.etcdSince.IsZero() {
			g.etcdSince = now
		}
		if now.Sub(g.etcdSince) >= holdEtcd {
			g.open = false
		}
	default:
		if g.failures++; g.failures >= failuresToWithdraw {
			g.open = false
		}
	}
	return g.open
}
