package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// Server answers the other agents and the local socket. Its methods are called
// from the first moment on; what is not there yet answers agent.ErrNotReady.
type Server struct{ agent *Agent }

// Status is what this server says of itself.
func (s *Server) Status(context.Context) member.Status {
	a := s.agent
	status := a.board.read()
	status.Time = a.Now()
	status.Spec, _ = a.spec.read()
	if found, err := a.Network.Addresses(); err == nil {
		status.Network.ElasticIPs = found
	}
	if status.Waiting == "" && status.Phase == member.RollCall {
		status.Waiting = "the roll call"
	}
	var texts []string
	if origin := a.origin.Load(); origin != nil && status.Phase != member.Ready {
		texts = append(texts, *origin)
	}
	if a.connected.Load() {
		status.NodeCA = a.Kubernetes.NodeCA()
		texts = append(texts, a.fence.problems()...)
		texts = append(texts, a.surplus.problems(a.Now())...)
		texts = append(texts, a.searchProblems()...)
		texts = append(texts, a.eligibleProblems(status)...)
	}
	if lost := a.lost.Load(); lost != nil {
		texts = append(texts, *lost)
	}
	for _, text := range []string{agentProblem(status.Agent), a.spec.problem()} {
		if text != "" {
			texts = append(texts, text)
		}
	}
	for _, text := range texts {
		if strings.Contains(status.Waiting, text) || strings.Contains(status.Problem, text) {
			continue // said already
		}
		if status.Problem != "" {
			status.Problem += "\n"
		}
		status.Problem += text
	}
	return status
}

// Settled says that the cluster is formed as far as this server knows, so that
// looking for peers may slow down.
func (s *Server) Settled() bool {
	return s.agent.board.read().Decree.State == string(election.PhaseSealed)
}

// Fence hands a fence message in and returns the replies for the caller.
func (s *Server) Fence(ctx context.Context, from agent.Caller, message []byte) ([][]byte, error) {
	if !s.agent.connected.Load() {
		return nil, fmt.Errorf("this server's fence still starts: %w", agent.ErrNotReady)
	}
	m, err := election.DecodeMessage(message)
	if err != nil {
		return nil, err
	}
	answers, err := s.agent.fence.ask(ctx, election.Sender{Inst: from.Inst, HW: from.HW}, m)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, answer := range answers {
		data, err := election.EncodeMessage(answer)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

// Enrol signs the caller's request with the agent CA, once GO is decided. The
// caller's certificate is of the enrolment CA, which proves the secret and nothing
// else, so the first key of an instance is the only one that is signed.
func (s *Server) Enrol(ctx context.Context, from agent.Caller, request agent.EnrolRequest) (agent.Enrolment, error) {
	a := s.agent
	if !a.connected.Load() || !a.fabric.Trust.CanSign() {
		return agent.Enrolment{}, fmt.Errorf("this server does not hold the agent CA: %w", agent.ErrNotReady)
	}
	d := a.fence.read()
	if d.Phase != election.PhaseGo && d.Phase != election.PhaseSealed {
		return agent.Enrolment{}, fmt.Errorf("GO is not decided: %w", agent.ErrNotReady)
	}
	if err := s.bindKey(ctx, d, from, request.CSR); err != nil {
		if errors.Is(err, agent.ErrRefused) { // said here too: the caller may be the one who poses
			a.Log.Warn("enrolment refused", "inst", from.Inst, "hw", from.HW, "address", from.Address, "error", err)
		}
		return agent.Enrolment{}, err
	}
	a.Log.Info("enrolling", "inst", from.Inst, "hw", from.HW)
	return a.fabric.Trust.Sign(from, request.CSR)
}

// bindKey refuses a caller that shows another key than its instance did before.
func (s *Server) bindKey(ctx context.Context, d election.Decree, from agent.Caller, csr []byte) error {
	if from.Inst == d.Leader.Inst {
		// Its key is bound only when its directory is there; until then anybody
		// with the secret could be first.
		return fmt.Errorf("instance %s holds GO and signs for itself; somebody who has the user-data poses as it: %w", from.Inst, agent.ErrRefused)
	}
	db, err := s.db()
	if err != nil {
		return err
	}
	key, err := s.agent.fabric.Trust.KeyOf(csr)
	if err != nil {
		return err
	}
	err = db.BindKey(ctx, from.Inst, from.HW, key)
	if errors.Is(err, agent.ErrRefused) {
		return fmt.Errorf("instance %s enrolled before with another key: either its disk was restored without /var/lib/muster/pki, "+
			"or somebody who has the user-data poses as it; if the server is yours, reinstall it: %w", from.Inst, err)
	}
	return err
}

// db is the directory of this server, if it answers.
func (s *Server) db() (Directory, error) {
	if !s.agent.directory.Load() {
		return nil, fmt.Errorf("the directory of this server does not answer: %w", agent.ErrNotReady)
	}
	return s.agent.Directory, nil
}

// Members reads the directory.
func (s *Server) Members(ctx context.Context) ([]member.Member, error) {
	db, err := s.db()
	if err != nil {
		return nil, err
	}
	return db.Members(ctx)
}

// ClaimRole inserts the caller's row, unless it is there.
func (s *Server) ClaimRole(ctx context.Context, from agent.Caller, r agent.RoleRequest) (agent.RoleReply, error) {
	db, err := s.db()
	if err != nil {
		return agent.RoleReply{}, err
	}
	d := s.agent.fence.read()
	m := member.Member{Inst: from.Inst, HW: from.HW, Name: r.Name, Address: r.Address, Epoch: d.Epoch}
	spec := s.agent.Cluster.Spec.Servers
	expect := spec.Expect
	if r.Joining {
		expect = 0
	}
	if r.Eligible && !r.Joining {
		s.agent.spread.Lock() // who is given a place must be seen by the next
		defer s.agent.spread.Unlock()
		rows, err := db.Members(ctx)
		if err == nil {
			err = s.agent.giveWay(m, rows)
		}
		if err != nil {
			return agent.RoleReply{}, err
		}
	}
	claim := func() (member.Role, error) {
		return db.ClaimRole(ctx, m, r.Eligible, false, spec.ControlPlanes, expect)
	}
	role, err := claim()
	if err != nil {
		switch found, kept := s.succeed(ctx, db, from, r); {
		case found && kept == nil:
			role, err = claim()
		case found:
			err = fmt.Errorf("%w; %w", err, kept)
		}
	}
	s.agent.surplus.note(m, err, s.agent.Now())
	if err == nil {
		s.agent.Log.Info("role given", "name", r.Name, "role", role, "address", r.Address)
	}
	return agent.RoleReply{Role: role, Generation: s.agent.running.Load()}, err
}

// ReportPhase keeps the caller's row.
func (s *Server) ReportPhase(ctx context.Context, from agent.Caller, r agent.PhaseReport) error {
	db, err := s.db()
	if err != nil {
		return err
	}
	return db.SetPhase(ctx, from.Inst, r.Phase, r.Detail)
}

// Authorities seals the CAs to the caller's key, if the directory calls it a
// control plane.
func (s *Server) Authorities(ctx context.Context, from agent.Caller, r agent.AuthoritiesRequest) (agent.AuthoritiesReply, error) {
	var reply agent.AuthoritiesReply
	row, err := s.row(ctx, from)
	if err != nil {
		return reply, err
	}
	if row.Role != member.ControlPlane {
		return reply, fmt.Errorf("the directory says that %s is a %s; CA keys go to control planes only: %w", row.Name, row.Role, agent.ErrRefused)
	}
	if err := s.directoryStands(ctx); err != nil { // a directory that was given up may call others so
		return reply, err
	}
	b := bundle{Version: bundleVersion}
	if b.Authorities, err = s.agent.Kubernetes.Authorities(); err != nil {
		return reply, err
	}
	if b.AgentCA, err = s.agent.fabric.Trust.AgentCA(); err != nil {
		return reply, err
	}
	plain, err := json.Marshal(b)
	if err != nil {
		return reply, fmt.Errorf("encoding the CAs: %w", err)
	}
	reply.Sealed, err = s.agent.fabric.Trust.Seal(r.PublicKey, plain)
	if err == nil {
		s.agent.Log.Info("CAs handed over", "to", row.Name)
	}
	return reply, err
}

// row is the caller's row in the directory.
func (s *Server) row(ctx context.Context, from agent.Caller) (member.Member, error) {
	rows, err := s.Members(ctx)
	if err != nil {
		return member.Member{}, err
	}
	for _, m := range rows {
		if m.Inst == from.Inst {
			return m, nil
		}
	}
	return member.Member{}, fmt.Errorf("instance %s has no row in the directory: ask for a role first: %w", from.Inst, agent.ErrRefused)
}

// AcquireJoin gives the turn to join to one control plane at a time.
func (s *Server) AcquireJoin(ctx context.Context, from agent.Caller) (agent.JoinTurn, error) {
	db, err := s.db()
	if err != nil {
		return agent.JoinTurn{}, err
	}
	row, err := s.row(ctx, from)
	if err != nil {
		return agent.JoinTurn{}, err
	}
	if row.Role != member.ControlPlane {
		return agent.JoinTurn{}, fmt.Errorf("%s is a %s; only control planes take turns: %w", row.Name, row.Role, agent.ErrRefused)
	}
	turn, err := db.AcquireJoin(ctx, from.Inst)
	if err == nil && turn.Granted {
		err = s.dropLearners(ctx, row)
	}
	turn.Holder = s.nameOf(ctx, turn.Holder)
	return turn, err
}

// dropLearners makes room in etcd for the one whose turn it is: a server that died
// for good while it joined would hold the learner's place for ever.
func (s *Server) dropLearners(ctx context.Context, turn member.Member) error {
	k := s.agent.Kubernetes
	members, err := k.EtcdMembers(ctx)
	if err == nil && len(plan.OtherLearners(members, turn.Name, turn.Address)) > 0 {
		// The etcd here may not have heard yet that the learner got its vote. It has
		// when it has answered a question to the majority.
		if _, err = k.EtcdHas(ctx, turn.Name, turn.Address); err == nil {
			members, err = k.EtcdMembers(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("the members of etcd are not known here: %w: %w", err, agent.ErrNotReady)
	}
	for _, x := range plan.OtherLearners(members, turn.Name, turn.Address) {
		s.agent.Log.Warn("an etcd learner leaves: its server lost the turn to join", "name", x.Name, "address", x.Address, "turn", turn.Name)
		if err := k.RemoveEtcdMember(ctx, x.ID); err != nil {
			return fmt.Errorf("taking out the etcd learner of %s (%s), which lost its turn to join: %w: %w", x.Name, x.Address, err, agent.ErrNotReady)
		}
	}
	return nil
}

// nameOf is the node name of an instance, or the instance.
func (s *Server) nameOf(ctx context.Context, inst string) string {
	if inst == "" {
		return ""
	}
	if row, err := s.row(ctx, agent.Caller{Inst: inst}); err == nil {
		return row.Name
	}
	return inst
}

// RenewJoin shows that the holder is alive.
func (s *Server) RenewJoin(ctx context.Context, from agent.Caller, turn agent.JoinTurn) error {
	db, err := s.db()
	if err != nil {
		return err
	}
	return db.RenewJoin(ctx, from.Inst, turn.Token)
}

// ReleaseJoin gives the turn back.
func (s *Server) ReleaseJoin(ctx context.Context, from agent.Caller, turn agent.JoinTurn) error {
	db, err := s.db()
	if err != nil {
		return err
	}
	return db.ReleaseJoin(ctx, from.Inst, turn.Token)
}

// JoinMaterial makes a bootstrap token for a server with a row.
func (s *Server) JoinMaterial(ctx context.Context, from agent.Caller) (agent.JoinMaterial, error) {
	var out agent.JoinMaterial
	row, err := s.row(ctx, from)
	if err != nil {
		return out, err
	}
	const patience = 5 * time.Second
	probe, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.agent.Kubernetes.Healthy(probe); err != nil {
		return out, fmt.Errorf("the API server of %s: %w: %w", s.agent.self.Node.Name, err, agent.ErrNotReady)
	}
	if err := s.vouch(ctx, s.agent.Directory, from.Inst); err != nil {
		return out, err
	}
	if row.Role == member.ControlPlane {
		has, err := s.agent.Kubernetes.EtcdHas(ctx, row.Name, row.Address)
		if err != nil {
			return out, fmt.Errorf("whether etcd has a member at %s is not known here: %w: %w", row.Address, err, agent.ErrNotReady)
		}
		out.EtcdGone = !has
	}
	if out.CA, err = s.agent.Kubernetes.CA(); err != nil {
		return out, err
	}
	out.Token, err = s.agent.Kubernetes.BootstrapToken(ctx)
	if err == nil {
		s.agent.Log.Info("join material given", "to", row.Name)
	}
	return out, err
}

// Alive feeds systemd's watchdog: the flow is alive as long as its locks are not
// held for ever; what it waits for may take hours and is in status.
func (s *Server) Alive() error {
	s.agent.board.read()
	if s.agent.connected.Load() {
		s.agent.fence.read()
	}
	return nil
}
