package userdata

import (
	"fmt"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/member"
)

// Server is whom user-data is for. The zero value is every server: that is the
// default, and where the platform's metadata tell servers apart there is no need
// for more.
type Server struct {
	Name string      // its hostname
	Role member.Role // what it may become; empty: as spec.servers.eligible says
}

// Of is the cluster as this server's user-data carries it. Two things may differ
// from server to server: spec.servers.eligible, by the role, and spec.static,
// of which a server needs its own entry only. Neither is part of what the servers
// vote by, so servers with any of these count each other's votes.
func (s Server) Of(c cluster.Cluster) (cluster.Cluster, error) {
	switch s.Role {
	case member.NoRole:
	case member.ControlPlane:
		c.Spec.Servers.Eligible = cluster.Eligible{All: true}
	case member.Worker:
		c.Spec.Servers.Eligible = cluster.Eligible{None: true}
	default:
		return c, fmt.Errorf("there is no role %q; there are %s and %s", s.Role, member.ControlPlane, member.Worker)
	}
	if s.Name == "" || c.Spec.Platform != cluster.PlatformStatic {
		return c, nil
	}
	isOther := func(d cluster.StaticServer) bool { return !d.Match.All && !strings.EqualFold(d.Hostname, s.Name) }
	var own []cluster.StaticServer
	found := false
	for _, d := range c.Spec.Static {
		if !isOther(d) {
			own = append(own, d)
			found = found || !d.Match.All
		}
	}
	if !found {
		return c, fmt.Errorf("spec.static describes no server with hostname %q", s.Name)
	}
	if othersArePrivate(c.Spec.Static) {
		c.Spec.Static = own
	}
	return c, nil
}

// othersArePrivate says that a server's packet filter does without the list: it
// lets private ranges in anyway (RFC 1918, RFC 4193), and others by spec.static.
func othersArePrivate(servers []cluster.StaticServer) bool {
	for _, s := range servers {
		for _, a := range s.Addresses {
			if !a.Public && !a.Address.Addr().IsPrivate() {
				return false
			}
		}
	}
	return true
}
