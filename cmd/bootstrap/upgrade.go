package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/host"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/systemd"
	"github.com/mustermetal/muster/pkg/upgrade"
)

const upgradeHelp = `bootstrap upgrade goes on with an exchange of this server's agent for another one, which
the agent began when it was this server's turn. muster-upgrade.service runs it from the
former program; there is nothing to type. The new agent has to be ready within three
minutes, and the directory has to start from it; else the former one takes its place back.

Usage: bootstrap upgrade [flags]

Examples:
  bootstrap status                       # what each server waits for, or why one went back
  journalctl -u muster-upgrade           # how an exchange went

Exit codes: 0 nothing is left to do, 1 failed and may be started again, 77 not root.
`

func upgradeCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("upgrade", upgradeHelp, stdout)
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	if err := flags.parse(args); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	units, err := systemd.Open(ctx, layout.UnitDir, durable.WriteFile)
	if err != nil {
		return err
	}
	defer units.Close()
	prefix := ownPrefix()
	e := upgrade.Exchange{
		Path: layout.Upgrade, Program: prefix.Agent(), Former: prefix.FormerAgent(), Part: prefix.AgentPart(), Env: layout.FetchEnv,
		Candidates: layout.Agents, Write: durable.WriteFile, Units: upgradeUnits{units}, Now: time.Now, Log: newLog(stderr, false),
		Agent: func(ctx context.Context) (string, bool, error) { return askAgent(ctx, *socket) },
		Try: func(ctx context.Context, program string) error {
			// What the kubelet's unit asks of it: it reads the state of this server.
			_, err := host.Run(ctx, program, "fence", "check-kubelet")
			return err
		},
	}
	return e.Run(ctx)
}

// agentVersion is the version of what GET /v1/agent says: the former program reads it
// of the new one, and the other way round.
const agentVersion = 1

// agentAnswer is the answer (docs/formats.md).
type agentAnswer struct {
	Version int    `json:"version"`
	SHA256  string `json:"sha256"` // of the program that answers
	Ready   bool   `json:"ready"`
}

func handleAgent(mux *http.ServeMux, server *bootstrap.Server) {
	mux.HandleFunc("GET /v1/agent", func(w http.ResponseWriter, _ *http.Request) {
		sum, ready, err := server.AgentAnswer()
		if err != nil {
			localReply(w, http.StatusServiceUnavailable, actProblem{"not-ready", err.Error()})
			return
		}
		localReply(w, http.StatusOK, agentAnswer{Version: agentVersion, SHA256: sum, Ready: ready})
	})
}

func askAgent(ctx context.Context, socket string) (sum string, ready bool, err error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := askLocal(ctx, socket, http.MethodGet, "/v1/agent", nil)
	if err != nil {
		return "", false, err
	}
	defer response.Body.Close()
	var a agentAnswer
	if response.StatusCode != http.StatusOK {
		return "", false, actFailure(socket, response)
	}
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return "", false, fmt.Errorf("reading the agent's answer: %w", err)
	}
	if a.Version != agentVersion {
		return "", false, fmt.Errorf("the agent's answer has version %d, this program knows version %d", a.Version, agentVersion)
	}
	return a.SHA256, a.Ready, nil
}

// upgradeUnits are the units that run from the agent's program. The speaker is none of
// them: it goes on from the former program, so that no route moves.
type upgradeUnits struct{ *systemd.Manager }

func (u upgradeUnits) RestartAgent(ctx context.Context) error {
	return u.Restart(ctx, layout.UnitAgent)
}

func (u upgradeUnits) Run(ctx context.Context) (invocation string, failed bool, err error) {
	o, err := u.State(ctx, layout.UnitAgent)
	return o.Invocation, o.ActiveState == "failed", err
}

func (u upgradeUnits) RestartDirectory(ctx context.Context) error {
	o, err := u.State(ctx, layout.UnitDirectory)
	if err != nil || o.ActiveState == "inactive" { // workers have none
		return err
	}
	return u.Restart(ctx, layout.UnitDirectory)
}

// program is the agent's own, for the flow.
type program struct {
	source func() cluster.AgentSource // of the cluster file in force
	store  interface {
		Fetch(ctx context.Context, pins []cluster.Pin, report func(member.Fetching)) error
		Keep(sums ...string) error
	}
	units interface {
		Start(ctx context.Context, unit string) error
	}
	own func() (string, error)
}

func newProgram(c cluster.Cluster, have *artefacts, units *systemd.Manager) program {
	return program{
		source: func() cluster.AgentSource { return c.Spec.Agent }, store: have.agents, units: units,
		// The file may be another one by now; this is the one that runs.
		own: sync.OnceValues(func() (string, error) {
			sum, err := upgrade.Sum("/proc/self/exe")
			if err != nil {
				return "", fmt.Errorf("reading the agent's own program: %w", err)
			}
			return sum, nil
		}),
	}
}

// Running implements bootstrap.Program.
func (p program) Running() (string, error) { return p.own() }

// Pinned implements bootstrap.Program.
func (p program) Pinned() string { return p.source().SHA256[runtime.GOARCH] }

// Last implements bootstrap.Program.
func (p program) Last() (bootstrap.Exchange, error) {
	o, err := upgrade.Read(layout.Upgrade)
	if err != nil || o == nil {
		return bootstrap.Exchange{}, err
	}
	last := bootstrap.Exchange{To: o.To, UnderWay: !o.Stage.Over()}
	if o.Stage == upgrade.Returned {
		last.Returned = o.Why
	}
	return last, nil
}

// Fetch implements bootstrap.Program.
func (p program) Fetch(ctx context.Context, sum string) error {
	digest := cluster.Digest{SHA256: sum}
	pin := cluster.Pin{Name: cluster.AgentArtifact, URLs: p.source().URLs, AMD64: digest, ARM64: digest}
	return p.store.Fetch(ctx, []cluster.Pin{pin}, func(member.Fetching) {})
}

// Keep implements bootstrap.Program.
func (p program) Keep(sums ...string) error { return p.store.Keep(sums...) }

// Exchange implements bootstrap.Program: it keeps this program beside its place, and
// has it carry the order out, in a unit of its own.
func (p program) Exchange(ctx context.Context, sum string) error {
	own, err := p.own()
	if err != nil {
		return err
	}
	source := p.source()
	if source.SHA256[runtime.GOARCH] != sum {
		return errors.New("another one is pinned by now")
	}
	if len(source.URLs) == 0 {
		return errors.New("spec.agent.urls is empty: muster-fetch could not get it at a boot")
	}
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("keeping the agent that runs: %w", err)
	}
	env, err := os.ReadFile(layout.FetchEnv)
	if err != nil {
		return fmt.Errorf("what muster-fetch accepts at a boot: %w", err)
	}
	if err := durable.WriteFile(ownPrefix().FormerAgent(), data, 0o755); err != nil {
		return err
	}
	order := upgrade.Order{From: own, To: sum, Stage: upgrade.Lay, Since: time.Now(), FormerEnv: string(env), Env: source.FetchEnv()}
	if err := order.Write(layout.Upgrade, durable.WriteFile); err != nil {
		return err
	}
	return p.units.Start(ctx, layout.UnitUpgrade)
}

// GoOn implements bootstrap.Program.
func (p program) GoOn(ctx context.Context) error { return p.units.Start(ctx, layout.UnitUpgrade) }
