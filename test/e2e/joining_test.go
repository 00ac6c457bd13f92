package e2e

import (
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/member"
)

// TestServerAddedLater: a cluster that expected one server and formed takes
// another, which boots with joining user-data, as a worker, for good.
func TestServerAddedLater(t *testing.T) {
	c := form(t, shape{controlPlanes: 1})
	c.bootAll()
	c.awaitReady(4 * time.Minute)

	later := addWorker(c, "w1")
	c.servers = append(c.servers, later)
	c.must(later.Boot(c.ctx))
	c.awaitReady(4 * time.Minute)
	testNodes(t, c)
	testOneInit(t, c)
	for _, s := range c.servers {
		if st := c.status(s); st.Problem != "" || st.Decree.State != "sealed" || (st.Role == member.Worker) != (s == later) {
			t.Errorf("status of %s: role %s, decree %s, problem %q", s.Name, st.Role, st.Decree.State, st.Problem)
		}
	}

	c.must(later.PowerLoss(c.ctx))
	c.must(later.Boot(c.ctx))
	c.awaitReady(2 * time.Minute)
	testNodes(t, c)
}
