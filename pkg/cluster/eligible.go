package cluster

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Selects says whether a server with a hostname and tags may become a control
// plane.
func (e Eligible) Selects(hostname string, tags []string) (bool, error) {
	switch {
	case e.None:
		return false, nil
	case e.Tag != "":
		return slices.ContainsFunc(tags, func(t string) bool {
			return t == e.Tag || t == e.Tag+"=control-plane"
		}), nil
	case e.Hostname != "":
		ok, err := path.Match(e.Hostname, hostname)
		if err != nil {
			return false, fmt.Errorf("spec.servers.eligible.hostname %q: %w", e.Hostname, err)
		}
		return ok, nil
	case len(e.List) > 0:
		return slices.ContainsFunc(e.List, func(h string) bool { return strings.EqualFold(h, hostname) }), nil
	}
	return true, nil
}

// enough checks, where all servers are described, that as many as shall be control
// planes may be.
func (v *validator) enough(servers []StaticServer) {
	const at = "spec.servers.eligible"
	e, k := v.Spec.Servers.Eligible, v.Spec.Servers.ControlPlanes
	var common []string
	for _, s := range servers {
		if s.Match.All {
			common = s.Tags
		}
	}
	n := 0
	for _, s := range servers {
		tags := s.Tags
		if len(tags) == 0 {
			tags = common
		}
		may, err := e.Selects(s.Hostname, tags)
		if err != nil {
			return // the pattern has a problem of its own
		}
		if may && !s.Match.All {
			n++
		}
	}
	if n < k && v.fine("spec.servers.controlPlanes", at, "spec.static") && !v.formed {
		v.errorf(at, "select more of spec.static, or lower controlPlanes", "selects %s of those in spec.static, but controlPlanes is %d", count(n, "server"), k)
	}
}
