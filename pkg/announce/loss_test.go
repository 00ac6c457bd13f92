package announce

import (
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// expectServers waits until exactly these servers are the next hops of both Elastic
// IPs at both routers.
func (r *rack) expectServers(d time.Duration, what string, servers ...int) time.Duration {
	r.t.Helper()
	return r.within(d, what, func() bool { return r.has(servers...) })
}

func (r *rack) has(servers ...int) bool {
	var v4, v6 []string
	for _, n := range servers {
		v4 = append(v4, "10.70."+strconv.Itoa(n)+".1")
		v6 = append(v6, "fd70:"+strconv.Itoa(n)+"::1")
	}
	return slices.Equal(r.hops(eip), v4) && slices.Equal(r.hops2(eip), v4) && slices.Equal(r.hops(eip6), v6) && slices.Equal(r.hops2(eip6), v6)
}

// TestLosses: whatever is lost on one of two servers, both routers of a BIRD pair
// stop sending there in time, in both families, and the other server stays.
func TestLosses(t *testing.T) {
	r := startRack(t)
	both := []netip.Prefix{eip, eip6}
	one := startServer(t, "one", serverConfig{Device: serverDevice(1, "s3cret"), EIPs: both})
	two := startServer(t, "two", serverConfig{Device: serverDevice(2, "s3cret"), EIPs: both})
	three := startServer(t, "three", serverConfig{Device: serverDevice(3, "s3cret"), EIPs: both})
	r.expectServers(20*time.Second, "all announce to both routers", 1, 2, 3)

	const apiTime = 3 * time.Second
	for _, harm := range []struct{ name, do, undo string }{
		{"API server killed", "api kill", "api start"},
		{"API server stopped (SIGSTOP)", "api stop", "api cont"},
		{"API server drains (readyz 500)", "api health 500", "api health 200"},
	} {
		one.tell(harm.do)
		r.expectServers(apiTime, harm.name+": withdrawn", 2, 3)
		one.tell(harm.undo)
		r.expectServers(apiTime, "back", 1, 2, 3)
	}

	// An election of etcd fails everywhere at once; nothing moves.
	for _, s := range []*testServer{one, two, three} {
		s.tell("api etcd failed")
	}
	begin := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	const election = 4 * time.Second // far above the two failures that count else
	for time.Since(begin) < election {
		<-tick.C
		if !r.has(1, 2, 3) {
			t.Fatalf("withdrawn %v after etcd failed everywhere", time.Since(begin))
		}
	}
	two.tell("api etcd ok")
	three.tell("api etcd blocks") // and then answers nothing for etcd, as the real check does
	r.expectServers(holdEtcd, "where etcd stays away: withdrawn", 2)
	if d := time.Since(begin); d < holdEtcd-probePeriod || d > holdEtcd+3*time.Second {
		t.Errorf("withdrawn %v after etcd failed, want about %v", d, holdEtcd)
	}
	one.tell("api etcd ok")
	three.tell("api etcd ok")
	r.expectServers(apiTime, "etcd is back", 1, 2, 3)

	must(t, one.cmd.Process.Signal(syscall.SIGKILL))
	r.expectServers(time.Second, "speaker killed: gone", 2, 3)

	two.tell("silence")
	// The hold time runs from the last message, which is up to a keepalive old.
	const slack = time.Second
	if d := r.expectServers(holdTime*time.Second+slack, "silent server: gone within the hold time", 3); d < (holdTime-keepalive)*time.Second-slack {
		t.Errorf("gone after %v: something else than the hold time ended it", d)
	}
}
