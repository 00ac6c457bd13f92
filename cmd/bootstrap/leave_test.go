package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/member"
)

// leavingAgent is an agent whose node has pods that go one in a round, and that has
// left a few looks after the order. Before that it is silent, as one that starts anew.
type leavingAgent struct {
	pods    []string
	held    bool // no pod goes
	refused error
	orders  []string
	looks   int
}

func (a *leavingAgent) at(t *testing.T) (socket string) {
	mux := http.NewServeMux()
	handleAct(mux, actLeave, func(_ context.Context, yes bool, act leaveAct) ([]string, error) {
		a.orders = append(a.orders, fmt.Sprintf("%s %t", act.Order, yes))
		if a.refused != nil {
			return nil, a.refused
		}
		if act.Order != bootstrap.OrderDrain {
			return []string{"cp2 leaves the cluster."}, nil
		}
		left := a.pods
		if len(a.pods) > 0 && !a.held {
			a.pods = a.pods[1:]
		}
		return left, nil
	})
	mux.HandleFunc("GET /v1/self", func(w http.ResponseWriter, _ *http.Request) {
		a.looks++
		var st member.Status
		switch st.Phase = member.Leaving; a.looks {
		case 1:
			st.Waiting, st.Problem = "kubeadm reset", "it takes its time"
		case 2:
			w.WriteHeader(http.StatusBadGateway)
			return
		case 4:
			st.Phase = member.Left
		}
		localReply(w, http.StatusOK, st)
	})
	return agentAt(t, mux.ServeHTTP)
}

func TestLeaveCommand(t *testing.T) {
	const plan, done, nothing = "cp2 leaves the cluster.\n", "Done. This server has left, and stays out; bootstrap reset --yes and a reboot bring it back as a new one.\n", "Nothing was done: add --yes to do it.\n"
	for _, c := range []struct {
		name           string
		agent          leavingAgent
		yes            bool
		change         func(*leave)
		orders         []string
		out, talk, err string
	}{
		{name: "only a look", orders: []string{"leave false"}, out: plan + nothing},
		{name: "as JSON", change: func(l *leave) { l.json = true }, orders: []string{"leave false"},
			out: "{\n  \"version\": 1,\n  \"sentences\": [\n    \"cp2 leaves the cluster.\"\n  ],\n  \"done\": false\n}\n"},
		{name: "done", agent: leavingAgent{pods: []string{"default/web: ends"}}, yes: true,
			orders: []string{"leave false", "drain true", "drain true", "leave true"}, out: plan + done,
			talk: "draining, still here:\n  default/web: ends\nwaits: kubeadm reset: it takes its time\n"},
		{name: "without a drain", yes: true, change: func(l *leave) { l.noDrain = true }, orders: []string{"leave false", "leave true"},
			out: plan + done, talk: "waits: kubeadm reset: it takes its time\n"},
		{name: "a pod stays", agent: leavingAgent{pods: []string{"shop/db: held"}, held: true}, yes: true,
			orders: []string{"leave false", "drain true", "drain true", "drain true"}, talk: "draining, still here:\n  shop/db: held\n",
			err: "did not end within 3s; still here:\n  shop/db: held\nThis server has not left"},
		{name: "refused", agent: leavingAgent{refused: fmt.Errorf("%w: etcd keeps it", agent.ErrRefused)}, yes: true,
			orders: []string{"leave false"}, err: "etcd keeps it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, talk bytes.Buffer
			l := leave{socket: c.agent.at(t), drainTimeout: 3 * time.Second, stdout: &out, stderr: &talk,
				pause: func(context.Context, time.Duration) error { return nil }}
			if c.change != nil {
				c.change(&l)
			}
			err := l.run(t.Context(), c.yes)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, expected %q", err, c.err)
			}
			if c.agent.refused != nil && codeOf(err) != exitPermission {
				t.Errorf("exit code %d, expected %d", codeOf(err), exitPermission)
			}
			if diff := cmp.Diff(c.orders, c.agent.orders); diff != "" {
				t.Errorf("orders (-want +got)\n%s", diff)
			}
			if out.String() != c.out || talk.String() != c.talk {
				t.Errorf("it prints %q, expected %q; it says %q, expected %q", out.String(), c.out, talk.String(), c.talk)
			}
		})
	}
}
