package faults

import (
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/faults/fabric"
)

// unfit leaves too little room on a disk for kubeadm: the server votes and may lead,
// but is not fit for GO until Empty.
const unfit = 100 << 20

// One server more than the user-data expects: N form a cluster, and the one too
// many waits and is named, until an operator lets it in.
func TestSurplus(t *testing.T) {
	t.Run("at once", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2", "w3")
		r.must(r.by["cp1"].Fill(r.ctx, unfit))
		r.on()
		r.said("cp1", "4 servers share this user-data, which expects 3")
		r.must(r.by["cp1"].Empty())
		r.surplus("cp1", "w1", "w2", "w3")
	})
	t.Run("a day later", func(t *testing.T) {
		r := begin(t, 3, 1, "cp1", "w1", "w2", "w3")
		r.on("cp1", "w1", "w2")
		r.formed("cp1", "w1", "w2")
		r.on("w3")
		r.surplus("cp1", "w1", "w2", "w3")
		approve := []string{"bootstrap", "approve", r.until("w3", "it is somebody", func(s member.Status) bool { return s.HW != "" }).HW}
		r.operate("cp1", approve...)
		r.surplus("cp1", "w1", "w2", "w3") // that only said what would happen
		r.operate("cp1", append(approve, "--yes")...)
		r.formed()
	})
	// N = 2, q = 2: with more than 2q-1 = 3 in sight nobody votes.
	t.Run("too many to vote", func(t *testing.T) {
		variation(t)
		r := begin(t, 2, 1, "cp1", "w1", "w2", "w3")
		r.must(r.by["cp1"].Fill(r.ctx, unfit))
		r.on()
		for _, name := range r.plan.Names {
			r.said(name, "4 servers share this user-data, which expects 2", "above 3 nobody votes")
		}
		r.must(r.by["cp1"].Empty())
		r.calm(5 * time.Second)
		r.must(r.by["w3"].PowerLoss(r.ctx))
		r.surplus("cp1", "w1", "w2")
	})
}

// N = 1 on two servers. Each is a quorum of its own, and the law allows no extra
// server (2q-N-1 = 0), so this is the case where the fence can promise nothing. What
// it does: servers that see each other before GO refuse and name each other; when
// the other is gone the leader goes on.
func TestOneTwice(t *testing.T) {
	t.Run("in sight", func(t *testing.T) {
		r := begin(t, 1, 1, "cp1", "cp2")
		for _, s := range r.those() {
			r.must(s.Fill(r.ctx, unfit))
		}
		r.on()
		for _, name := range r.plan.Names {
			r.said(name, "2 servers share this user-data, which expects 1", "cp1", "cp2")
		}
		for _, s := range r.those() {
			r.must(s.Empty())
		}
		r.calm(5 * time.Second)
		// By who saw whom first, nobody leads yet, each leads itself, or one took the
		// other's word; the last may only stay behind its leader.
		goes, stays := "cp2", "cp1"
		if r.until("cp1", "it answers", func(member.Status) bool { return true }).Decree.LeaderName == "cp2" {
			goes, stays = stays, goes
		}
		r.must(r.by[goes].PowerLoss(r.ctx))
		r.formed(stays)
	})
	// The same out of sight: two clusters, outside of the law. It shows that the
	// ledger and the verdict see what they are there for.
	t.Run("out of sight", func(t *testing.T) {
		r := begin(t, 1, 1, "cp1", "cp2")
		r.lawless = true
		r.cut([]string{"cp1"}, []string{"cp2"})
		r.Switch.Set(balancer, "cp1", fabric.Rule{Cut: true})
		r.on()
		for _, name := range r.plan.Names {
			r.until(name, "it is ready alone", func(s member.Status) bool { return s.Phase == member.Ready })
		}
	})
}

// User-data of the same cluster with another N.
func TestOtherNumber(t *testing.T) {
	rerendered := func(r *trial, expect int) []byte {
		other := r.plan
		other.Expect = expect
		data, err := other.Render()
		r.must(err)
		return data
	}
	// On servers that never had the first: they count for nothing among those with it.
	t.Run("on others", func(t *testing.T) {
		variation(t)
		r := begin(t, 3, 1, "cp1", "w1", "w2", "w3", "w4")
		for _, name := range []string{"w3", "w4"} {
			r.by[name].SetUserData(rerendered(r, 5))
		}
		r.must(r.by["cp1"].Fill(r.ctx, unfit))
		r.on()
		r.said("cp1", "w3 carries expect: 5, this server 3", "w4 carries expect: 5, this server 3")
		r.said("w3", "carries expect: 3, this server 5")
		r.must(r.by["cp1"].Empty())
		r.formed("cp1", "w1", "w2")
	})
	// On one that voted with the first: it votes no more, until it has that again.
	t.Run("afterwards", func(t *testing.T) {
		r := begin(t, 3, 1, "cp1", "w1", "w2", "w3", "w4")
		r.must(r.by["cp1"].Fill(r.ctx, unfit))
		r.on("cp1", "w1", "w2")
		r.until("w2", "it voted", func(s member.Status) bool { return s.Decree.State == string(election.PhaseLeader) })
		r.must(r.by["w2"].PowerLoss(r.ctx))
		r.by["w2"].SetUserData(rerendered(r, 5))
		r.on("w2")
		r.said("w2", "began with expect: 3", "now says 5")
		r.must(r.by["cp1"].Empty())
		r.calm(5 * time.Second)
		r.must(r.by["w2"].PowerLoss(r.ctx))
		r.by["w2"].SetUserData(r.data)
		r.on("w2")
		r.formed("cp1", "w1", "w2")
	})
}
