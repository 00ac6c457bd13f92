package plan

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	leaseCA = "sha256:aa"
	me      = "me"
	other   = "other"
)

func TestDecideLease(t *testing.T) {
	own := func(g uint64) Directory { return Directory{CAHash: leaseCA, Epoch: 2, Generation: g} }
	lease := func(g uint64, holder string, beat uint64) Lease {
		return Lease{CAHash: leaseCA, Epoch: 2, Generation: g, Holder: holder, Beat: beat, Version: "7"}
	}
	none := Lease{}
	for _, test := range []struct {
		name  string
		sight LeaseSight
		step  LeaseStep
		want  Lease // to write or to follow
		why   string
	}{
		{"first one", LeaseSight{Own: own(0), Answers: true}, LeaseWrite,
			Lease{CAHash: leaseCA, Epoch: 2, Holder: me, Beat: 1}, "no Lease yet"},
		{"none, and lost for a while", LeaseSight{Own: own(0), Silent: LeasePatience - 1}, LeaseWait, none, "lost on all control planes, for 5m0s as seen from here"},
		{"none, and lost", LeaseSight{Own: own(0), Silent: LeasePatience}, LeaseTake,
			Lease{CAHash: leaseCA, Epoch: 2, Generation: 1, Holder: me}, "this server makes generation 1"},
		{"held and renewed here", LeaseSight{Own: own(3), Answers: true, Found: true, Lease: lease(3, me, 4)}, LeaseWrite, lease(3, me, 5), ""},
		{"made here", LeaseSight{Own: own(3), Answers: true, Found: true, Lease: lease(3, me, 0)}, LeaseWrite, lease(3, me, 1), ""},
		{"held by another", LeaseSight{Own: own(3), Answers: true, Found: true, Lease: lease(3, other, 4), Still: leaseStale - 1}, LeaseKeep, lease(3, other, 4), ""},
		{"held by one that is gone", LeaseSight{Own: own(3), Answers: true, Found: true, Lease: lease(3, other, 4), Still: leaseStale}, LeaseWrite, lease(3, me, 5), ""},
		{"a higher one", LeaseSight{Own: own(1), Answers: true, Found: true, Lease: lease(2, other, 0)}, LeaseFollow, lease(2, other, 0), "generation 1, which this server has, is dropped"},
		{"a higher one, long lost", LeaseSight{Own: own(1), Found: true, Lease: lease(2, other, 3), Silent: time.Hour}, LeaseFollow, lease(2, other, 3), "is dropped"},
		{"a higher one, won here before a reboot", LeaseSight{Own: own(1), Found: true, Lease: lease(2, me, 0)}, LeaseFollow, lease(2, me, 0), "is dropped"},
		{"to be made here", LeaseSight{Own: own(2), Found: true, Lease: lease(2, me, 0)}, LeaseFollow, lease(2, me, 0), "this server's to make"},
		{"made nowhere for long, won here", LeaseSight{Own: own(2), Found: true, Lease: lease(2, me, 0), Silent: LeasePatience}, LeaseTake,
			Lease{CAHash: leaseCA, Epoch: 2, Generation: 3, Holder: me, Version: "7"}, "generation 3"},
		{"made nowhere for long, won elsewhere", LeaseSight{Own: own(2), Found: true, Lease: lease(2, other, 0), Silent: LeasePatience}, LeaseTake,
			Lease{CAHash: leaseCA, Epoch: 2, Generation: 3, Holder: me, Version: "7"}, "generation 3"},
		{"a lower one, from a backup of Kubernetes", LeaseSight{Own: own(3), Answers: true, Found: true, Lease: lease(1, other, 9)}, LeaseWrite, lease(3, me, 1), "restored from a backup"},
		{"a lower one, and lost", LeaseSight{Own: own(3), Found: true, Lease: lease(1, other, 9), Silent: LeasePatience}, LeaseTake,
			Lease{CAHash: leaseCA, Epoch: 2, Generation: 4, Holder: me, Version: "7"}, "generation 4"},
		{"silent for a moment", LeaseSight{Own: own(0), Found: true, Lease: lease(0, other, 9), Silent: leaseStale - 1}, LeaseWait, lease(0, other, 9), "another control plane's may"},
		{"silent for longer", LeaseSight{Own: own(0), Found: true, Lease: lease(0, other, 9), Silent: leaseStale}, LeaseWait, lease(0, other, 9), "for 2m0s as seen from here"},
		{"lost", LeaseSight{Own: own(0), Found: true, Lease: lease(0, other, 9), Silent: LeasePatience}, LeaseTake,
			Lease{CAHash: leaseCA, Epoch: 2, Generation: 1, Holder: me, Version: "7"}, "has answered for 5m0s"},
		{"silent here only", LeaseSight{Own: own(0), Found: true, Lease: lease(0, other, 9), Silent: time.Hour, Elsewhere: "10.0.0.2"}, LeaseWait, lease(0, other, 9), "that of 10.0.0.2 does"},
		{"of another CA", LeaseSight{Own: own(0), Answers: true, Found: true, Lease: Lease{CAHash: "sha256:bb", Epoch: 2, Generation: 5}}, LeaseRefuse,
			Lease{CAHash: "sha256:bb", Epoch: 2, Generation: 5}, "a backup of another cluster"},
		{"of another epoch", LeaseSight{Own: own(0), Silent: time.Hour, Found: true, Lease: Lease{CAHash: leaseCA, Epoch: 1}}, LeaseRefuse,
			Lease{CAHash: leaseCA, Epoch: 1}, "a backup of another cluster"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.sight.Inst = me
			got := DecideLease(test.sight)
			if got.Step != test.step || got.Lease != test.want || !strings.Contains(got.Why, test.why) || (test.why == "") != (got.Why == "") {
				t.Errorf("%s %+v %q\nwant %s %+v %q", got.Step, got.Lease, got.Why, test.step, test.want, test.why)
			}
		})
	}
}

// Whatever is seen: the generation never goes down, a directory that answers is
// never given up for a new one, and nobody makes one that it did not win.
func TestDecideLeaseHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := LeaseSight{
			Inst: me, Own: Directory{CAHash: leaseCA, Generation: rapid.Uint64Range(0, 3).Draw(t, "own")},
			Answers: rapid.Bool().Draw(t, "answers"), Found: rapid.Bool().Draw(t, "found"),
			Elsewhere: rapid.SampledFrom([]string{"", "10.0.0.2"}).Draw(t, "elsewhere"),
			Still:     time.Duration(rapid.Int64Range(0, int64(2*LeasePatience)).Draw(t, "still")),
			Silent:    time.Duration(rapid.Int64Range(0, int64(2*LeasePatience)).Draw(t, "silent")),
		}
		if s.Found {
			s.Lease = Lease{CAHash: leaseCA, Generation: rapid.Uint64Range(0, 3).Draw(t, "generation"), Holder: rapid.SampledFrom([]string{me, other}).Draw(t, "holder"),
				Beat: rapid.Uint64Range(0, 2).Draw(t, "beat"), Version: "7"}
		}
		d := DecideLease(s)
		switch d.Step {
		case LeaseTake:
			if s.Answers || s.Elsewhere != "" || s.Silent < LeasePatience || d.Lease.Generation <= max(s.Own.Generation, s.Lease.Generation) || d.Lease.Beat != 0 {
				t.Fatalf("takes %+v at %+v", d.Lease, s)
			}
		case LeaseWrite:
			if !s.Answers || d.Lease.Generation != s.Own.Generation || d.Lease.Generation < s.Lease.Generation || d.Lease.Beat == 0 {
				t.Fatalf("writes %+v at %+v", d.Lease, s)
			}
		case LeaseFollow:
			if d.Lease != s.Lease || d.Lease.Generation < s.Own.Generation {
				t.Fatalf("follows %+v at %+v", d.Lease, s)
			}
		}
		if d.Lease.Version != s.Lease.Version {
			t.Fatalf("swaps version %q for what was seen with %q", d.Lease.Version, s.Lease.Version)
		}
	})
}

func TestLeaseWatch(t *testing.T) {
	begin := time.Now()
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	quiet := LeaseSight{Found: true, Lease: Lease{Generation: 1, Beat: 3, Version: "7"}}
	renewed, answered, elsewhere := quiet, quiet, quiet
	renewed.Lease.Version, renewed.Lease.Beat = "8", 4
	answered.Answers = true
	elsewhere.Elsewhere = "10.0.0.2"
	var w LeaseWatch
	for i, look := range []struct {
		after         time.Duration
		sight         LeaseSight
		still, silent time.Duration
	}{
		{0, quiet, 0, 0},
		{time.Minute, quiet, time.Minute, time.Minute},
		{2 * time.Minute, answered, 2 * time.Minute, 0},
		{3 * time.Minute, quiet, 3 * time.Minute, time.Minute},
		{4 * time.Minute, elsewhere, 4 * time.Minute, 0},
		{5 * time.Minute, quiet, 5 * time.Minute, time.Minute},
		{6 * time.Minute, renewed, 0, 0},
		{7 * time.Minute, renewed, time.Minute, time.Minute},
	} {
		var got LeaseSight
		got, w = w.Look(look.sight, at(look.after))
		if got.Still != look.still || got.Silent != look.silent {
			t.Errorf("look %d: still for %s, silent for %s; want %s and %s", i, got.Still, got.Silent, look.still, look.silent)
		}
	}
}
