package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
)

// An operator pins another agent in the cluster file of a formed cluster, and applies it.
// It lies on the first server only. The servers exchange theirs one at a time, the others with
// a copy of the first; a power loss brings the new one back. Then one is pinned that
// ends with an error: one server tries it and goes back, and no other does.
func TestUpgrade(t *testing.T) {
	variation(t)
	r := begin(t, 3, 3, "cp1", "cp2", "cp3")
	r.on()
	r.formed()
	r.settled("")
	kubelets := r.processes()

	// A program with words behind it runs as before.
	sum := r.pinAgent("cp1", "cp "+layout.Local.Agent()+" /opt/next && echo another build >> /opt/next")
	r.upgraded(sum, "")
	for _, name := range []string{"cp2", "cp3"} {
		if !r.journalHas(name, "from=\"server ") {
			r.Errorf("%s did not have the agent from another server", name)
		}
	}
	if now := r.processes(); now != kubelets {
		r.Errorf("kubelets and containerds were %s and are %s", kubelets, now)
	}
	r.must(r.by["cp2"].PowerLoss(r.ctx))
	r.must(r.by["cp2"].On(r.ctx))
	r.settled(sum)

	bad := r.pinAgent("cp1", `printf '#!/bin/sh\n[ "$1" = fence ] && exit 0\necho this build is broken >&2\nexit 1\n' > /opt/next`)
	r.upgraded(sum, bad)
	tried := 0
	for _, s := range r.those() {
		st := r.until(s.Name, "it says why the bad agent is not taken", func(st member.Status) bool {
			return strings.Contains(st.Problem, "bootstrap "+bad[:12]+" is pinned and not taken: ") && strings.Contains(st.Problem, "this build is broken")
		})
		if st.Agent.State == member.AgentReturned {
			tried++
		}
	}
	if tried != 1 {
		r.Errorf("%d servers tried the bad agent", tried)
	}
	r.formed()
	r.settled(sum)
}

// pinAgent makes a program /opt/next by a script on one server, and pins it for all, as
// an operator does.
func (r *trial) pinAgent(on, script string) (sum string) {
	r.Helper()
	out, err := r.by[on].Exec(r.ctx, "sh", "-ec", script+"; chmod 755 /opt/next; sha256sum /opt/next")
	r.must(err)
	sum, _, _ = strings.Cut(out, " ")
	r.plan.Agent = sum
	file, err := r.plan.File()
	r.must(err)
	_, err = r.by[on].Exec(r.ctx, "sh", "-ec", "cat > /run/cluster.yaml <<'END'\n"+string(file)+"\nEND")
	r.must(err)
	r.operate(on, "bootstrap", "apply", "-f", "/run/cluster.yaml", "--yes")
	return sum
}

// upgraded waits until all servers run an agent and nothing is under way, or all hold
// another one back. Meanwhile never more than one exchanges its own.
func (r *trial) upgraded(sum, held string) {
	r.Helper()
	began, looks, most := time.Now(), 0, 0
	for {
		underWay, open := 0, []string{}
		for _, s := range r.those() {
			out, err := s.Exec(r.ctx, "cat", layout.Upgrade)
			if err == nil && !strings.Contains(out, `"stage":"kept"`) && !strings.Contains(out, `"stage":"returned"`) {
				underWay++
			}
			list, err := s.All(r.ctx)
			if err != nil {
				open = append(open, fmt.Sprintf("%s: %v", s.Name, err))
			}
			for _, one := range list {
				a := one.Agent
				done := held == "" && a.State == "" || held != "" && a.Pinned == held && (a.State == member.AgentReturned || a.State == member.AgentHeld)
				if one.Name == s.Name && (a.SHA256 != sum || !done || one.Phase != member.Ready) {
					open = append(open, fmt.Sprintf("%s is %s, %+v", s.Name, one.Phase, a))
				}
			}
		}
		looks, most = looks+1, max(most, underWay)
		if len(open) == 0 {
			break
		}
		if time.Since(began) > 5*time.Minute || r.ctx.Err() != nil {
			r.Fatalf("after %s not all are through with the agent %s:\n%s", time.Since(began), sum, strings.Join(open, "\n"))
		}
		r.pause(200 * time.Millisecond)
	}
	r.Logf("%d servers were through with it after %s; %d looks, at most %d exchanged at once", len(r.those()), time.Since(began).Round(time.Second), looks, most)
	if most > 1 {
		r.Errorf("%d servers exchanged their agent at once", most)
	}
}

// settled waits until all servers are ready, and checks that what muster-fetch accepts
// at the next boot is what lies in the agent's place; "" is any.
func (r *trial) settled(sum string) {
	r.Helper()
	for _, s := range r.those() {
		r.until(s.Name, "it is ready", func(st member.Status) bool {
			return st.Phase == member.Ready && st.Agent.SHA256 != "" && (sum == "" || st.Agent.SHA256 == sum)
		})
		if sum == "" {
			continue
		}
		out, err := s.Exec(r.ctx, "sh", "-c", "sha256sum "+layout.Local.Agent()+"; cat "+layout.FetchEnv)
		r.must(err)
		if !strings.HasPrefix(out, sum+" ") || !strings.Contains(out, "MUSTER_SHA256_amd64='"+sum+"'") {
			r.Errorf("on %s the agent and its pin are, expected %s:\n%s", s.Name, sum, out)
		}
	}
}

// processes are those that an exchange of agents has to leave alone.
func (r *trial) processes() string {
	r.Helper()
	var all []string
	for _, s := range r.those() {
		out, err := s.Exec(r.ctx, "systemctl", "show", "-P", "MainPID", layout.UnitKubelet, layout.UnitContainerd)
		r.must(err)
		all = append(all, s.Name+" "+strings.Join(strings.Fields(out), " "))
	}
	return strings.Join(all, "; ")
}
