package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/test/rig"
)

// TestCrash is the handful of TestCrashTable that every make e2e runs: those that
// once needed an operator.
func TestCrash(t *testing.T) { crashRound(t, handful) }

// TestCrashTable loses the power of a server at every point of its way into the
// cluster, and expects one healthy cluster from each without an operator. make
// crash-table runs it (MUSTER_E2E=crash) and prints the table of docs/runbook.md.
func TestCrashTable(t *testing.T) {
	if os.Getenv("MUSTER_E2E") != "crash" {
		t.Skip("MUSTER_E2E is not crash: make crash-table runs it, some 45 minutes")
	}
	for i := range max(len(initPoints), len(joinPoints), len(workerPoints)) {
		round := round{}
		for _, list := range []struct {
			from []point
			to   *[]point
		}{{initPoints, &round.first}, {joinPoints, &round.second}, {workerPoints, &round.worker}} {
			if i < len(list.from) {
				*list.to = list.from[i : i+1]
			}
		}
		t.Run(fmt.Sprintf("round %02d", i+1), func(t *testing.T) {
			const formation = 150 * time.Second // with its power losses, on an idle machine
			if end, ok := t.Deadline(); ok && time.Until(end) < formation {
				t.Skip("-timeout is too near to begin another formation")
			}
			crashRound(t, round)
		})
	}
	t.Run("the turn's holder dies for good", testTurnOfTheDead)
}

// testTurnOfTheDead: a control plane dies as etcd's only learner, while it is its turn
// to join. The next one takes the turn over, and the place. The dead one comes back
// when nobody waits for it any more, and joins anew, its old etcd data gone.
func testTurnOfTheDead(t *testing.T) {
	c := form(t, shape{controlPlanes: 3, electors: 1})
	first, dead, next := c.servers[0], c.servers[1], c.servers[2]
	c.servers = []*rig.Server{first}
	c.must(first.Boot(c.ctx))
	c.awaitReady(crashPatience)
	c.must(dead.Boot(c.ctx))
	c.must(appears(layout.EtcdData+"/member/wal")(c, dead))
	c.must(dead.PowerLoss(c.ctx))
	died := time.Now()
	t.Logf("%s died: %s", dead.Name, onDisk(dead))
	c.servers = []*rig.Server{first, next}
	c.must(next.Boot(c.ctx))
	c.awaitReady(crashPatience)
	t.Logf("%s is ready %s after the death of %s", next.Name, time.Since(died).Round(time.Second), dead.Name)
	testEtcd(t, c, 2)
	c.servers = []*rig.Server{first, dead, next}
	c.must(dead.Boot(c.ctx))
	back := time.Now()
	c.awaitReady(crashPatience)
	t.Logf("%s is ready %s after it was switched on again; it ran %s", dead.Name, time.Since(back).Round(time.Second), c.ran(dead, died))
	testNodes(t, c)
	testEtcd(t, c, 3)
	testOneInit(t, c)
	testEtcdAnswers(t, c)
}

// point is where a server loses its power.
type point struct {
	name  string
	reach func(*formation, *rig.Server) error // returns at that moment
}

// round is one formation with the points of each server, in order.
type round struct{ first, second, worker []point }

// crashRound forms a cluster server by server: cp1 votes alone, so it can. Each
// begins when the one before it is ready.
func crashRound(t *testing.T, r round) {
	workers := min(len(r.worker), 1)
	planes := 1 + min(len(r.second), 1)
	k := 2*planes - 1 // the third is never switched on: a cluster file with two is refused
	c := form(t, shape{controlPlanes: k, workers: workers, electors: 1})
	all := slices.Delete(slices.Clone(c.servers), planes, k)
	c.servers = nil
	for i, points := range [][]point{r.first, r.second, r.worker} {
		if i > 0 && len(points) == 0 {
			continue
		}
		s := all[len(c.servers)]
		c.servers = append(c.servers, s)
		c.must(s.Boot(c.ctx))
		for n, p := range points {
			if !t.Run(s.Name+", "+p.name, func(t *testing.T) { c.crash(t, s, p, n == len(points)-1) }) {
				return // the next begins where this one ended
			}
		}
		c.t = t
		c.awaitReady(crashPatience)
	}
	testNodes(t, c)
	testEtcd(t, c, planes)
	testOneInit(t, c)
	testEtcdAnswers(t, c)
}

// crashPatience is far above what a recovery takes: a name that Kubernetes still
// calls Ready may be taken again after a minute.
const crashPatience = 6 * time.Minute

// crash takes the power from a server at a point, looks at what its disk kept, and
// boots it; of the last point of a server it measures the way back.
func (c *formation) crash(t *testing.T, s *rig.Server, p point, last bool) {
	c.t = t
	c.must(p.reach(c, s))
	before := onDisk(s)
	c.must(s.PowerLoss(c.ctx))
	lost := time.Now()
	c.must(s.Disk(c.ctx))
	found := onDisk(s)
	c.must(s.Boot(c.ctx))
	on := time.Now()
	if !last {
		t.Logf("power loss; done: %s; found: %s", before, found)
		return
	}
	c.awaitReady(crashPatience)
	c.eventually(time.Minute, s.Name+" to be a ready node through the Elastic IP", func() error { return readyNode(c, s.Name) })
	took := time.Since(on)
	row := fmt.Sprintf("| %s, %s | %s | %s | %s | %.0f s |", s.Name, p.name, before, found, c.ran(s, lost), took.Seconds())
	t.Log("\n" + row)
	if path := os.Getenv("MUSTER_CRASH_TABLE"); path != "" {
		c.must(appendLine(path, row))
	}
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

// kubeadmUnits are what the agent runs to become a node.
var kubeadmUnits = []string{layout.UnitKubeadmReset, layout.UnitKubeadmInit, layout.UnitKubeadmJoin}

// ran tells which of them were started since a time.
func (c *formation) ran(s *rig.Server, since time.Time) string {
	c.t.Helper()
	var out []string
	for _, unit := range kubeadmUnits {
		journal, err := s.Exec(c.ctx, "journalctl", "--no-pager", "--quiet", "--output=cat", "--unit="+unit, fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000))
		c.must(err)
		name := strings.ReplaceAll(strings.TrimSuffix(unit, ".service"), "-", " ")
		switch n := strings.Count(journal, "Starting "+unit); n {
		case 0:
		case 1:
			out = append(out, name)
		default:
			out = append(out, fmt.Sprintf("%s ×%d", name, n))
		}
	}
	if out == nil {
		return "nothing to do"
	}
	return strings.Join(out, ", ")
}

// onDisk says how far a server is, by what survives a power loss: the last line of
// the agent's journal, and the files of kubeadm, kubelet and etcd. A file without
// content, which had some, is torn.
func onDisk(s *rig.Server) string {
	last := "journal empty"
	if entries, err := durable.ReadJournal(s.HostPath(layout.Journal)); err != nil {
		last = err.Error()
	} else if n := len(entries); n > 0 {
		last = entries[n-1].Step + " " + string(entries[n-1].Event)
	}
	files, torn := 0, 0
	for _, dir := range []string{layout.Kubernetes, layout.KubeletData} {
		_ = filepath.WalkDir(s.HostPath(dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() && e.Name() == "pods" {
				return fs.SkipDir
			}
			if info, err := e.Info(); err == nil && e.Type().IsRegular() {
				files++
				if info.Size() == 0 {
					torn++
				}
			}
			return nil
		})
	}
	text := fmt.Sprintf("%s; %d files", last, files)
	if torn > 0 {
		text += fmt.Sprintf(", %d of them torn", torn)
	}
	if _, err := os.Stat(s.HostPath(layout.EtcdData + "/member")); err == nil {
		text += "; etcd has data"
	}
	return text
}

// testEtcdAnswers writes through the endpoint and reads it back: quorum is there.
func testEtcdAnswers(t *testing.T, c *formation) {
	c.t = t
	c.kubectl("annotate", "namespace", "default", "muster.test/crash=survived", "--overwrite")
	if out := c.kubectl("get", "namespace", "default", "-o", `jsonpath={.metadata.annotations.muster\.test/crash}`); out != "survived" {
		t.Errorf("kubectl get: %q", out)
	}
	for _, s := range c.servers {
		if st := c.status(s); st.Phase != member.Ready || st.Decree.State != "sealed" {
			t.Errorf("%s: phase %s, decree %s, problem %q", s.Name, st.Phase, st.Decree.State, st.Problem)
		}
	}
}

// pointPatience bounds the way to a point.
const pointPatience = 3 * time.Minute

// says waits until a unit of a server says something.
func says(unit, text string) func(*formation, *rig.Server) error {
	return func(c *formation, s *rig.Server) error {
		ctx, cancel := context.WithTimeout(c.ctx, pointPatience)
		defer cancel()
		argv, err := s.Command([]string{"journalctl", "--follow", "--lines=all", "--quiet", "--output=cat", "--unit=" + unit})
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		found := false
		for lines := bufio.NewScanner(out); !found && lines.Scan(); {
			found = strings.Contains(lines.Text(), text)
		}
		cancel()
		_ = cmd.Wait() // it was killed
		if !found {
			return fmt.Errorf("%s of %s did not say %q in %s", unit, s.Name, text, pointPatience)
		}
		return nil
	}
}

// watch looks at a server's disk from outside, as often as it can, until there is
// what a point needs.
func watch(what string, there func(*rig.Server) bool) func(*formation, *rig.Server) error {
	return func(c *formation, s *rig.Server) error {
		for deadline := time.Now().Add(pointPatience); !there(s); c.pause(2 * time.Millisecond) {
			if c.ctx.Err() != nil || time.Now().After(deadline) {
				return fmt.Errorf("%s on %s did not come in %s", what, s.Name, pointPatience)
			}
		}
		return nil
	}
}

// appears waits for a file.
func appears(path string) func(*formation, *rig.Server) error {
	return watch(path, func(s *rig.Server) bool { return exists(s.HostPath(path)) })
}

// goes waits until a file that was there is gone.
func goes(path string) func(*formation, *rig.Server) error {
	return func(c *formation, s *rig.Server) error {
		if err := appears(path)(c, s); err != nil {
			return err
		}
		return watch("the end of "+path, func(s *rig.Server) bool { return !exists(s.HostPath(path)) })(c, s)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// journaled waits for an entry of the agent's journal.
func journaled(step string, event durable.Event) func(*formation, *rig.Server) error {
	return watch(step+" "+string(event), func(s *rig.Server) bool {
		entries, err := durable.ReadJournal(s.HostPath(layout.Journal))
		return err == nil && durable.Last(entries, step) == event
	})
}
