package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	formerProgram = "the former agent"
	newProgram    = "the new agent"
	formerEnv     = "MUSTER_SHA256_amd64='former'\n"
	newEnv        = "MUSTER_SHA256_amd64='new'\n"
)

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// errPower is what a write says at which the power goes.
var errPower = errors.New("power loss")

// server is the disk of a server, and a systemd that starts what lies on it.
type server struct {
	t   *testing.T
	dir string

	running   string // the program that the agent's unit runs, "" none
	directory string // that the directory's runs, "" none
	runs      int
	restarts  []string

	refuses         bool          // the new program does not run at all
	failsToStart    bool          // its agent ends with 1
	failed          bool          // and is not started again
	crashesEvery    time.Duration // after it came up
	readyAfter      time.Duration // 0 is at once, -1 never
	directoryBreaks bool          // its directory does not answer
	up              time.Time

	powerAt, writes int // the power goes at this write, counted from 1
}

func newServer(t *testing.T) *server {
	s := &server{t: t, dir: t.TempDir(), running: formerProgram, directory: formerProgram}
	s.put("bootstrap", formerProgram)
	s.put("bootstrap.former", formerProgram)
	s.put("env", formerEnv)
	s.put(hashOf(newProgram), newProgram)
	o := Order{From: hashOf(formerProgram), To: hashOf(newProgram), Stage: Lay, FormerEnv: formerEnv, Env: newEnv}
	if err := o.Write(s.path("order"), plainWrite); err != nil {
		t.Fatal(err)
	}
	return s
}

func plainWrite(path string, data []byte, perm fs.FileMode) error {
	return os.WriteFile(path, data, perm)
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) put(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

func (s *server) exchange() Exchange {
	return Exchange{
		Path: s.path("order"), Program: s.path("bootstrap"), Former: s.path("bootstrap.former"), Part: s.path(".part"), Env: s.path("env"),
		Candidates: s.dir, Write: s.write, Units: s, Agent: s.agent, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Try: func(_ context.Context, program string) error {
			if data, err := os.ReadFile(program); err != nil || s.refuses {
				return errors.Join(err, fmt.Errorf("%s: exec format error", data))
			}
			return nil
		},
	}
}

// write fails at the moment of the power loss, before or after it wrote, by turns.
func (s *server) write(path string, data []byte, perm fs.FileMode) error {
	s.writes++
	if s.powerAt > 0 && s.writes >= s.powerAt {
		if s.writes == s.powerAt && s.powerAt%2 == 0 {
			_ = plainWrite(path, data, perm)
		}
		return errPower
	}
	return plainWrite(path, data, perm)
}

func (s *server) isNew() bool { return s.running == newProgram }

// RestartAgent implements Units.
func (s *server) RestartAgent(context.Context) error {
	s.running, s.up = s.read("bootstrap"), time.Now()
	s.runs++
	s.restarts = append(s.restarts, "agent: "+s.running)
	if s.isNew() && s.failsToStart {
		return errors.New("muster.service: the main process ended with 1; it logged last: no such flag")
	}
	return nil
}

// Run implements Units.
func (s *server) Run(context.Context) (string, bool, error) {
	if s.isNew() && s.crashesEvery > 0 && time.Since(s.up) >= s.crashesEvery {
		s.runs++
		s.up = time.Now()
	}
	return fmt.Sprint(s.runs), s.isNew() && s.failed, nil
}

// RestartDirectory implements Units.
func (s *server) RestartDirectory(ctx context.Context) error {
	if s.directory == "" {
		return nil
	}
	s.directory = s.read("bootstrap")
	s.restarts = append(s.restarts, "directory: "+s.directory)
	if s.directory == newProgram && s.directoryBreaks {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (s *server) agent(context.Context) (string, bool, error) {
	ready := s.readyAfter == 0 || s.readyAfter > 0 && time.Since(s.up) >= s.readyAfter
	return hashOf(s.running), !s.isNew() || ready, nil
}

// end is what must hold when it is over.
func (s *server) end(program, env string) {
	s.t.Helper()
	got := []string{s.read("bootstrap"), s.read("bootstrap.former"), s.read("env"), s.running}
	if diff := cmp.Diff([]string{program, formerProgram, env, program}, got); diff != "" {
		s.t.Errorf("program, former program, fetch.env and what runs (-want +got)\n%s", diff)
	}
	if s.directory != "" && s.directory != program {
		s.t.Errorf("the directory runs %q", s.directory)
	}
}

func TestExchange(t *testing.T) {
	for _, row := range []struct {
		name  string
		setup func(*server)
		stage Stage
		why   string // a part of it
		// restarts that are not those of the good way.
		restarts []string
		within   time.Duration
	}{
		{"good", func(*server) {}, Kept, "", nil, steady + look},
		{"good, a worker", func(s *server) { s.directory = "" }, Kept, "", []string{"agent: the new agent"}, steady + look},
		{"good, and slow", func(s *server) { s.readyAfter = time.Minute }, Kept, "", nil, time.Minute + steady + look},
		{"it does not run", func(s *server) { s.refuses = true }, Returned, "it does not run on this server: the new agent: exec format error", []string{}, 0},
		{"it ends with 1", func(s *server) { s.failsToStart = true }, Back, "the main process ended with 1; it logged last: no such flag", nil, 0},
		{"it is never ready", func(s *server) { s.readyAfter = -1 }, Back, "it was not ready within 3m0s: this server is not ready under it", nil, deadline},
		{"it is not started again", func(s *server) { s.failed = true }, Back, "systemd does not start it again", nil, 0},
		{"it crashes again and again", func(s *server) { s.crashesEvery = 6 * time.Second }, Back, "it ended 3 times", nil, 20 * time.Second},
		{"its directory does not answer", func(s *server) { s.directoryBreaks = true }, Back, "the directory does not start from the new program: not within 3m0s", nil, steady + look + deadline},
		{"there is no way back", func(s *server) { s.put("bootstrap.former", "another") }, Returned, "there would be no way back", []string{}, 0},
		{"the new one is torn", func(s *server) { s.put(hashOf(newProgram), "the new ag") }, Returned, "the disk changed it", []string{}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				row.setup(s)
				began := time.Now()
				if err := s.exchange().Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > row.within {
					t.Errorf("it took %s, expected at most %s", took, row.within)
				}
				o, err := Read(s.path("order"))
				if err != nil {
					t.Fatal(err)
				}
				want := Kept
				if row.stage != Kept {
					want = Returned
				}
				if o.Stage != want || !strings.Contains(o.Why, row.why) || (o.Why == "") != (row.why == "") {
					t.Errorf("it ended as %s: %q; expected %s: %q", o.Stage, o.Why, want, row.why)
				}
				program, env := newProgram, newEnv
				if want == Returned {
					program, env = formerProgram, formerEnv
				}
				s.put("bootstrap.former", formerProgram) // one row spoils it
				s.end(program, env)
				if row.restarts != nil {
					if diff := cmp.Diff(row.restarts, append([]string{}, s.restarts...)); diff != "" {
						t.Errorf("restarts (-want +got)\n%s", diff)
					}
				}
			})
		})
	}
}

// TestPowerLossWhileExchanging cuts the power at each write of a good exchange and of
// one that goes back. At the next boot what lies in the agent's place is what
// muster-fetch accepts, or lies whole where it looks, and the order is carried out.
func TestPowerLossWhileExchanging(t *testing.T) {
	for _, bad := range []bool{false, true} {
		cuts := 0
		for at := 1; ; at++ {
			over := false
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.failsToStart = bad
				s.powerAt = at
				err := s.exchange().Run(t.Context())
				if over = err == nil; over {
					return
				}
				if !errors.Is(err, errPower) {
					t.Fatal(err)
				}
				s.boot()
				if err := s.exchange().Run(t.Context()); err != nil {
					t.Fatalf("power loss at write %d: %v", at, err)
				}
				program, env := newProgram, newEnv
				if bad {
					program, env = formerProgram, formerEnv
				}
				s.end(program, env)
			})
			if over {
				break
			}
			cuts++
		}
		if cuts < 4 {
			t.Errorf("bad=%t: %d writes at which the power could go", bad, cuts)
		}
	}
}

// boot does as muster-fetch, and starts the agent.
func (s *server) boot() {
	s.t.Helper()
	s.powerAt = 0
	want := map[string]string{formerEnv: formerProgram, newEnv: newProgram}[s.read("env")]
	if s.read("bootstrap") != want {
		part, err := os.ReadFile(s.path(".part"))
		if err != nil || string(part) != want {
			s.t.Fatalf("fetch.env wants %q; %q is in the agent's place and %q (%v) beside it: no boot without a mirror", want, s.read("bootstrap"), part, err)
		}
		if err := os.Rename(s.path(".part"), s.path("bootstrap")); err != nil {
			s.t.Fatal(err)
		}
	}
	_ = s.RestartAgent(s.t.Context()) // it is in vain where the new one is bad
	s.directory, s.restarts = s.running, nil
}

// TestNoOrder: a server without one, and one whose exchange is over, have nothing to do.
func TestNoOrder(t *testing.T) {
	s := newServer(t)
	o, err := Read(s.path("order"))
	if err != nil {
		t.Fatal(err)
	}
	o.Stage, o.Why = Returned, "it ended with 1"
	if err := o.Write(s.path("order"), plainWrite); err != nil {
		t.Fatal(err)
	}
	if err := s.exchange().Run(t.Context()); err != nil || s.restarts != nil {
		t.Errorf("%v, restarts %q", err, s.restarts)
	}
	e := s.exchange()
	e.Path = s.path("none")
	if err := e.Run(t.Context()); err != nil || s.restarts != nil {
		t.Errorf("%v, restarts %q", err, s.restarts)
	}
	s.put("order", `{"version":2}`)
	if err := s.exchange().Run(t.Context()); err == nil || !strings.Contains(err.Error(), "it has version 2, this agent knows version 1; remove it") {
		t.Errorf("an order of another version: %v", err)
	}
}
