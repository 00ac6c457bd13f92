package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// resumeWithin bounds the time from the start of the agent that makes up the
// quorum to GO.
const resumeWithin = 15 * time.Second

// testLate boots three of five servers: they wait and say for how many. One more
// boots: the cluster forms, and status tells of the last, a control plane.
func testLate(t *testing.T, c *formation) {
	c.t = t
	all := c.servers
	late, never := all[4], all[2]
	c.servers = []*rig.Server{all[0], all[1], all[3]}
	c.bootAll()
	const sentence = "no leader yet: 4 of 5 votes needed, 3 here, missing: 2 that never answered (here: cp1, cp2, w1); "
	for _, s := range c.servers {
		c.eventually(2*time.Minute, s.Name+" to say for how many it waits", func() error {
			list, err := readStatus(c.ctx, s)
			if err != nil {
				return err
			}
			for _, one := range list {
				if !strings.HasPrefix(one.Waiting, sentence) || one.Phase != member.RollCall || one.Problem != "" {
					return fmt.Errorf("%s is in phase %s, problem %q, and waits for %q, expected %q", one.Name, one.Phase, one.Problem, one.Waiting, sentence)
				}
			}
			return nil
		})
	}
	t.Logf("%s waits: %s", c.servers[0].Name, c.status(c.servers[0]).Waiting)

	c.must(late.Boot(c.ctx))
	c.servers = []*rig.Server{all[0], all[1], all[3], all[4]}
	c.awaitReady(6 * time.Minute)
	d, ok := c.decision()
	if !ok {
		t.Fatal("no journal tells of GO")
	}
	took := d.gone.Sub(c.lines(late)[0].at)
	t.Logf("the agent of %s starts -> GO: %s", late.Name, took.Round(time.Millisecond))
	if took > resumeWithin {
		t.Errorf("GO came %s after the agent of %s started, expected at most %s", took, late.Name, resumeWithin)
	}
	// Two lines without a name: who is missing, and for whom a place is kept.
	want := []string{
		"1 of 5 expected servers never answered, or were removed; the cluster was formed without them, they join when they are powered on; " +
			"of the addresses in spec.discovery nobody is at " + never.Addr.String(),
		"2 of 3 control planes: no other server in sight may become one; spec.servers.eligible selects servers with the tag muster-role, or " +
			"muster-role=control-plane; the places are kept for servers that come later",
	}
	for _, s := range c.servers {
		c.eventually(time.Minute, s.Name+" to tell of the last", func() error {
			list, err := readStatus(c.ctx, s)
			if err != nil {
				return err
			}
			var said []string
			for _, one := range list {
				if one.Name == "" {
					said = append(said, one.Problem)
				}
			}
			if slices.Sort(said); len(list) != len(c.servers)+len(want) || !slices.Equal(said, want) {
				return fmt.Errorf("status lists %d servers and says %q, expected %q", len(list), said, want)
			}
			return nil
		})
	}
}

// line is a line of an agent's journal.
type line struct {
	at   time.Time
	text string // after msg=
}

// lines are what the agent of a server logged, over all boots.
func (c *formation) lines(s *rig.Server) []line {
	c.t.Helper()
	journal, err := s.Journal(c.ctx, layout.UnitAgent)
	c.must(err)
	var out []line
	for text := range strings.Lines(journal) {
		stamp, rest, _ := strings.Cut(text, " ")
		_, message, found := strings.Cut(rest, " msg=")
		if !found {
			continue // systemd's
		}
		at, err := time.Parse("2006-01-02T15:04:05.000000-0700", stamp)
		c.must(err)
		out = append(out, line{at, strings.TrimSpace(message)})
	}
	if len(out) == 0 {
		c.t.Fatalf("the agent of %s logged nothing:\n%s", s.Name, journal)
	}
	return out
}

// decision is when the first GO was decided, by the journal of its holder.
type decision struct {
	holder   string
	quorum   time.Time // enough votes are here
	prepared time.Time // the host is
	gone     time.Time // GO
}

var decreeLine = regexp.MustCompile(`^decree phase=(\w+) epoch=0 leader=(\S+) votes=(\d+) quorum=(\d+) `)

// decision reads the journals; false when the holder of GO is off.
func (c *formation) decision() (decision, bool) {
	c.t.Helper()
	for _, s := range c.servers {
		d := decision{holder: s.Name}
		for _, l := range c.lines(s) {
			if l.text == `"host prepared"` {
				d.prepared = l.at
			}
			m := decreeLine.FindStringSubmatch(l.text)
			if m == nil {
				continue
			}
			votes, _ := strconv.Atoi(m[3])
			quorum, _ := strconv.Atoi(m[4])
			if d.quorum.IsZero() && votes >= quorum {
				d.quorum = l.at
			}
			if m[1] == "go" && m[2] != s.Name {
				break // another holds it
			}
			if m[1] == "go" {
				d.gone = l.at
				return d, true
			}
		}
	}
	return decision{}, false
}

// String has the times from what GO needs to GO.
func (d decision) String() string {
	ready := d.quorum
	if d.prepared.After(ready) {
		ready = d.prepared
	}
	return fmt.Sprintf("%s: quorum visible -> GO %s; quorum visible and host prepared -> GO %s",
		d.holder, d.gone.Sub(d.quorum).Round(time.Millisecond), d.gone.Sub(ready).Round(time.Millisecond))
}
