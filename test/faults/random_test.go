package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/test/faults/fabric"
)

// TestRandom draws clusters and faults by a seed: MUSTER_FAULTS_RUNS of them, the
// first with MUSTER_FAULTS_SEED, each further one with the next number. The seed gives
// the same faults at the same times; what the servers make of them is up to them.
func TestRandom(t *testing.T) {
	runs, err := strconv.Atoi(os.Getenv("MUSTER_FAULTS_RUNS"))
	if err != nil && os.Getenv("MUSTER_FAULTS_RUNS") != "" {
		t.Fatalf("MUSTER_FAULTS_RUNS: %v", err)
	}
	theLab(t)
	seed := newSeed(t)
	for i := range uint64(runs) {
		t.Run(fmt.Sprint(seed+i), func(t *testing.T) { random(t, seed+i) })
	}
}

// shapes of clusters: N and the servers, cp* eligible.
var shapes = []struct {
	controlPlanes int
	names         string
}{
	{1, "cp1 w1 w2"}, {1, "cp1 cp2 w1"}, {3, "cp1 cp2 cp3"}, {1, "cp1 cp2 w1 w2"}, {3, "cp1 cp2 cp3 w1 w2"}, {3, "cp1 cp2 cp3 cp4 w1"},
}

// chaos is one random run.
type chaos struct {
	*trial
	wipes int            // still allowed by the law
	under sync.WaitGroup // faults that are not over yet
	busy  map[string]*sync.Mutex
}

func random(t *testing.T, seed uint64) {
	shape := shapes[seed%uint64(len(shapes))]
	names := strings.Fields(shape.names)
	plan, err := NewPlan(len(names), shape.controlPlanes, names...)
	if err != nil {
		t.Fatal(err)
	}
	may := plan.choose(seed / uint64(len(shapes)))
	r := beginPlan(t, seed, plan)
	t.Logf("%d control planes, eligible: %s", plan.ControlPlanes, plan.Eligible)
	c := &chaos{trial: r, wipes: election.Tolerated(len(names), election.Quorum(len(names), cluster.QuorumSafe)), busy: map[string]*sync.Mutex{}}
	for _, name := range names {
		c.busy[name] = &sync.Mutex{}
	}
	r.must(r.Pace(r.between(0, 3*time.Second)))
	for _, i := range r.random.Perm(len(names)) {
		r.on(names[i])
		r.pause(r.between(0, 300*time.Millisecond))
	}
	for range 1 + r.random.IntN(5) {
		r.pause(r.between(0, 2*time.Second))
		c.fault()
	}
	c.under.Wait()
	r.Switch.Reset()
	r.formed()
	r.roles(may...)
}

// fault begins one and goes on; its end comes by itself.
func (c *chaos) fault() {
	victim := c.plan.Names[c.random.IntN(len(c.plan.Names))]
	long := c.between(time.Second, 8*time.Second)
	short := c.between(0, 4*time.Second)
	switch c.random.IntN(10) {
	case 0:
		c.partition(long)
	case 1:
		other := c.plan.Names[c.random.IntN(len(c.plan.Names))]
		c.link(long, fabric.Rule{Cut: true}, [][2]string{{victim, other}})
	case 2:
		c.link(long, fabric.Rule{
			Loss: 0.05 + 0.25*c.random.Float64(), Duplicate: 0.05 * c.random.Float64(), Delay: c.between(0, 20*time.Millisecond), Jitter: c.between(0, 50*time.Millisecond),
		}, c.pairs())
	case 3:
		c.do("kill the agent of "+victim, victim, func(s *Server) error { return s.Signal(layout.UnitAgent, syscall.SIGKILL) })
	case 4:
		c.do(fmt.Sprintf("stop the agent of %s for %v", victim, long), victim, func(s *Server) error {
			err := s.Signal(layout.UnitAgent, syscall.SIGSTOP)
			c.pause(long)
			return errors.Join(err, s.Signal(layout.UnitAgent, syscall.SIGCONT))
		})
	case 5:
		c.do("restart the agent of "+victim, victim, func(s *Server) error {
			_, _ = s.Exec(c.ctx, "systemctl", "restart", "--no-block", layout.UnitAgent) // it may be half way up
			return nil
		})
	case 6, 7:
		c.do(fmt.Sprintf("power off %s for %v", victim, short), victim, func(s *Server) error {
			if err := s.PowerLoss(c.ctx); err != nil {
				return err
			}
			c.pause(short)
			return s.On(c.ctx)
		})
	case 8:
		c.do(fmt.Sprintf("fill the disk of %s for %v", victim, short), victim, func(s *Server) error {
			err := s.Fill(c.ctx, int64(c.seed%2)*unfit)
			c.pause(short)
			return errors.Join(err, s.Empty())
		})
	case 9:
		if c.wipes > 0 {
			c.wipes--
			c.do("wipe "+victim, victim, c.wipe)
		}
	}
}

// do runs a fault of one server beside the others; a server has one at a time.
func (c *chaos) do(what, victim string, fault func(*Server) error) {
	c.Log(what)
	c.under.Go(func() {
		c.busy[victim].Lock()
		defer c.busy[victim].Unlock()
		if err := fault(c.by[victim]); err != nil {
			c.Errorf("%s: %v", what, err)
		}
	})
}

// wipe takes the power and an unimportant disk away. Important is one of the leader,
// whose cluster would wait for an operator or for ten minutes, and one of a server
// that knows of GO, which may have a name in the directory.
func (c *chaos) wipe(s *Server) error {
	if err := s.PowerLoss(c.ctx); err != nil {
		return err
	}
	state, err := s.State(c.ctx)
	if err != nil {
		return err
	}
	leader, _, led := state.Leader()
	if led && leader.Inst == state.Inst || state.Gone() || state.IsSealed() {
		c.Logf("%s keeps its disk: it leads or knows of GO", s.Name)
	} else if err := s.Wipe(c.ctx); err != nil {
		return err
	}
	return s.On(c.ctx)
}

// State reads the fence's memory on the disk of a server that is off; the zero State
// when there is none.
func (s *Server) State(ctx context.Context) (election.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mount(ctx); err != nil {
		return election.State{}, err
	}
	found, err := durable.Read(filepath.Join(s.path("state"), "muster", "elect"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || found.State == nil {
		return election.State{}, err
	}
	return *found.State, nil
}

// partition splits the servers in two for a while.
func (c *chaos) partition(d time.Duration) {
	var sides [2][]string
	for _, name := range c.plan.Names {
		i := c.random.IntN(2)
		sides[i] = append(sides[i], name)
	}
	var across [][2]string
	for _, a := range append([]string{balancer}, sides[0]...) {
		for _, b := range sides[1] {
			across = append(across, [2]string{a, b}, [2]string{b, a})
		}
	}
	c.Logf("%v | %v", sides[0], sides[1])
	c.link(d, fabric.Rule{Cut: true}, across)
}

func (c *chaos) pairs() (all [][2]string) {
	for _, a := range c.plan.Names {
		for _, b := range c.plan.Names {
			if a != b {
				all = append(all, [2]string{a, b})
			}
		}
	}
	return all
}

// link makes pairs follow a rule for a while.
func (c *chaos) link(d time.Duration, rule fabric.Rule, pairs [][2]string) {
	c.Logf("%+v on %d pairs for %v", rule, len(pairs), d)
	for _, p := range pairs {
		c.Switch.Set(p[0], p[1], rule)
	}
	c.under.Go(func() {
		c.pause(d)
		for _, p := range pairs {
			c.Switch.Set(p[0], p[1], fabric.Rule{})
		}
	})
}
