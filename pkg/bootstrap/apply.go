package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/change"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// ErrInvalid says that what was given is wrong in itself.
var ErrInvalid = errors.New("the input is wrong")

// Revision is what applying a cluster file does, or would do.
type Revision struct {
	Was     uint64          `json:"was"`               // revision of the spec that it was compared with
	Is      uint64          `json:"is"`                // revision that it becomes; the same when nothing differs
	Changes []change.Change `json:"changes"`           // from the one to the other
	Effect  change.Effect   `json:"effect"`            // the farthest; empty when nothing differs
	Refused string          `json:"refused,omitempty"` // why a running cluster does not take it
	Next    []string        `json:"next,omitempty"`    // what is left to the operator, in sentences
}

// Apply compares a spec (cluster.Shared of a cluster file) with the cluster's, and with
// yes makes it the next revision. A change that a running cluster cannot take is in the
// answer, and nothing is written then. Somebody else's apply since the expected
// revision, when one is given, or since the comparison, wraps agent.ErrRefused.
func (s *Server) Apply(ctx context.Context, yes bool, text string, expected *uint64) (Revision, error) {
	db, err := s.db()
	if err != nil {
		return Revision{}, err
	}
	now, highest, err := s.currentSpec(ctx, db, expected)
	if err != nil {
		return Revision{}, err
	}
	if expected != nil && *expected != now.Revision {
		return Revision{}, fmt.Errorf("%w: revision %d of the spec was expected, the cluster has %d: somebody else applied; look at what differs now, without --yes", agent.ErrRefused, *expected, now.Revision)
	}
	was, err := parseSpec("the spec in the directory", now.Text)
	if err != nil {
		return Revision{}, err
	}
	is, err := parseSpec("the spec", text)
	if err != nil {
		return Revision{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(is.Spec.Agent.SHA256) == 0 { // a file without its lock file names none: it stays
		is.Spec.Agent = was.Spec.Agent
	}
	rows, err := db.Members(ctx)
	if err != nil {
		return Revision{}, err
	}
	r := revise(now.Revision, was, is)
	r.Next = plan.Resize(rows, is.Spec.Servers.ControlPlanes, s.agent.fence.read().Leader.CAHash)
	lost := highest > now.Revision // its number is not given twice
	if r.Is != r.Was || lost && r.Refused == "" {
		r.Is = highest + 1
	}
	if r.Is == r.Was {
		return r, nil
	}
	if err := s.agent.Revisions.Check(text); err != nil {
		return r, fmt.Errorf("%w: this server could not run by it: %w", agent.ErrRefused, err)
	}
	if !yes {
		return r, nil
	}
	return r, s.write(ctx, db, r, is)
}

// revise compares two specs.
func revise(revision uint64, was, is cluster.Cluster) Revision {
	r := Revision{Was: revision, Is: revision, Changes: change.Between(was, is)}
	r.Effect = change.Worst(r.Changes)
	switch r.Effect {
	case "":
		r.Changes = []change.Change{}
	case change.Anew:
		n := 0
		for _, c := range r.Changes {
			if c.Effect == change.Anew {
				n++
			}
		}
		r.Refused = fmt.Sprintf("%d of %d changes cannot be made in a cluster that runs; take them back, and apply the rest", n, len(r.Changes))
	default:
		r.Is++
	}
	return r
}

func (s *Server) write(ctx context.Context, db Directory, r Revision, is cluster.Cluster) error {
	next, err := specOf(r.Is, is)
	if err != nil {
		return err
	}
	s.agent.Log.Warn("an operator's act", "act", "apply", "revision", r.Is, "changes", len(r.Changes), "effect", r.Effect)
	if err := db.WriteSpec(ctx, next, r.Was); err != nil {
		return err
	}
	s.agent.spec.saw(next)
	if err := s.agent.mirrorSpec(ctx, next); err != nil { // the holder of the Lease does it, too
		s.agent.Log.Warn("keeping the spec in Kubernetes", "error", err)
	}
	return nil
}

// currentSpec is the revision in the directory. A directory that was made again gets
// it back from a control plane that keeps it; until then nothing is applied, unless the
// operator expects the revision that is there. highest is the highest number that was
// given: servers may keep what it stood for.
func (s *Server) currentSpec(ctx context.Context, db Directory, expected *uint64) (now member.Spec, highest uint64, err error) {
	if err := s.directoryStands(ctx); err != nil {
		return now, 0, err
	}
	data, _, err := s.agent.Authority.ConfigMap(ctx, specMap)
	if err != nil {
		return now, 0, fmt.Errorf("%w: %w", err, agent.ErrNotReady)
	}
	mirrored, _ := strconv.ParseUint(data["revision"], 10, 64) // none, or one that a person wrote there, counts as 0
	found, err := db.Spec(ctx, -1)
	switch {
	case err != nil:
		return now, 0, err
	case found == nil:
		return now, 0, fmt.Errorf("the directory has no spec yet; a control plane writes it within %s: %w", specEvery, agent.ErrNotReady)
	case found.Revision < mirrored && (expected == nil || *expected != found.Revision):
		return now, 0, fmt.Errorf("the directory has revision %d of the spec, and Kubernetes knows of %d (ConfigMap kube-system/%s): it was lost and made again, and a control plane that keeps revision %d brings it back within %s. "+
			"If none does, apply with --revision %d: what you apply becomes revision %d, over whatever a server still keeps: %w",
			found.Revision, mirrored, specMap, mirrored, specEvery, found.Revision, mirrored+1, agent.ErrNotReady)
	}
	return *found, max(found.Revision, mirrored), nil
}

func parseSpec(name, text string) (cluster.Cluster, error) {
	c, problems := cluster.ParseSpec(name, []byte(text), cluster.Beside{})
	return c, cluster.Err(problems)
}

// specMap is the ConfigMap in kube-system that shows the spec.
const specMap = "muster-spec"

// mirrorSpec shows the spec in Kubernetes, without passwords: whoever reads the
// ConfigMaps of kube-system may see it. Nor is there a sum of the text that has them,
// by which a weak one could be guessed. It is no source: the servers keep theirs.
func (a *Agent) mirrorSpec(ctx context.Context, s member.Spec) error {
	c, err := parseSpec("the spec", s.Text)
	if err != nil {
		return err
	}
	text, err := cluster.Marshal(cluster.Shown(c))
	if err != nil {
		return err
	}
	want := map[string]string{"revision": strconv.FormatUint(s.Revision, 10), "cluster.yaml": string(text)}
	data, version, err := a.Authority.ConfigMap(ctx, specMap)
	if err != nil {
		return err
	}
	if there, _ := strconv.ParseUint(data["revision"], 10, 64); version != "" && (there > s.Revision || maps.Equal(data, want)) {
		return nil
	}
	_, err = a.Authority.WriteConfigMap(ctx, specMap, want, version) // another that was faster wrote the same, or a higher one
	return err
}
