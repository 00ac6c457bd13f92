package rig

import (
	"context"

	"github.com/mustermetal/muster/test/rig/machine"
)

// Unplug pulls the server's cable. It stays out until Plug, over reboots too.
func (s *Server) Unplug(ctx context.Context) error { return s.cable(ctx, true) }

// Plug puts the cable back in.
func (s *Server) Plug(ctx context.Context) error { return s.cable(ctx, false) }

func (s *Server) cable(ctx context.Context, out bool) error {
	if err := s.rig.updateServer(s.Name, func(st *serverState) { st.Unplugged = out }); err != nil {
		return err
	}
	if !s.Running() {
		return nil
	}
	cgroups, err := machine.MakeCgroups(s.machine())
	if err != nil {
		return err
	}
	if err := s.configure(cgroups); err != nil {
		return err
	}
	tor, veth := s.rig.torName(), "v-"+s.Name
	if out {
		_, err := machine.Output(ctx, "ip", "-n", tor, "link", "set", veth, "down")
		return err
	}
	if _, err := machine.Output(ctx, "ip", "-n", tor, "link", "set", veth, "up"); err != nil {
		return err
	}
	for _, l := range s.Lines() { // IPv6 addresses went with the link, too
		for _, argv := range s.wireLine(l)[1:] {
			if _, err := machine.Output(ctx, argv...); err != nil {
				return err
			}
		}
	}
	return nil
}
