package bootstrap

import (
	"context"

	"github.com/mustermetal/muster/pkg/plan"
)

// silent tells nobody.
type silent struct{}

func (silent) Tell(plan.Notice)          {}
func (silent) Aim(string)                {}
func (silent) Run(context.Context) error { return nil }

// tellOutside tells listeners outside of the phase that has begun.
func (a *Agent) tellOutside() { a.Outward.Tell(plan.NoticeOf(a.Cluster.Metadata.Name, a.board.read())) }
