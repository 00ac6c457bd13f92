package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/mustermetal/muster/pkg/plan"
)

// Timers of a session, in seconds. A silent server is noticed by its routers
// after the hold time; everything else closes the TCP connection, which they
// notice at once.
const (
	holdTime      = 9
	keepalive     = 3
	connectRetry  = 2
	idleAfterStop = 1 // GoBGP's own 30 s would keep a server out after each reset
	// multihopTTL reaches routers behind the gateway and not the Internet.
	multihopTTL = 5
	// flushTime bounds the wait for withdrawals to be written to the sessions.
	flushTime = time.Second
	// flushPoll is how often the counters of the sessions are read meanwhile.
	flushPoll = 2 * time.Millisecond
)

// speaker is one BGP instance with its sessions. It only dials, sends its own
// prefixes, and takes no route from anybody.
type speaker struct {
	server    *server.BgpServer
	dials     *dialLog
	started   time.Time
	announced []netip.Prefix
	stopWatch context.CancelFunc
}

// startSpeaker starts the instance and all sessions of p. changed is called
// after each change of a session, from another goroutine.
func startSpeaker(ctx context.Context, p plan.Announcement, log *slog.Logger, changed func()) (*speaker, error) {
	s := &speaker{started: time.Now()}
	ctx, s.stopWatch = context.WithCancel(context.WithoutCancel(ctx))
	s.dials = newDialLog(log.Handler(), readMD5Counters, s.asker(ctx, p))
	s.server = server.NewBgpServer(server.LoggerOption(slog.New(s.dials), nil))
	go s.server.Serve()
	if err := s.configure(ctx, p, log, changed); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *speaker) configure(ctx context.Context, p plan.Announcement, log *slog.Logger, changed func()) error {
	err := s.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: p.AS, RouterId: p.RouterID.String(), ListenPort: -1,
		Families: []uint32{
			uint32(oc.AFI_SAFI_TYPE_IPV4_UNICAST.ToInt()),
			uint32(oc.AFI_SAFI_TYPE_IPV6_UNICAST.ToInt()),
		},
	}})
	if err != nil {
		return fmt.Errorf("start BGP with AS %d and router id %s: %w", p.AS, p.RouterID, err)
	}
	if err := s.acceptOwnOnly(ctx); err != nil {
		return fmt.Errorf("set the import policy: %w", err)
	}
	callbacks := server.WatchEventMessageCallbacks{OnPeerUpdate: sessionLogger(ctx, log, changed)}
	if err := s.server.WatchEvent(ctx, callbacks, server.WatchPeer()); err != nil {
		return fmt.Errorf("watch the sessions: %w", err)
	}
	for _, peer := range p.Peers {
		if err := s.server.AddPeer(ctx, &api.AddPeerRequest{Peer: peerConfig(peer)}); err != nil {
			return fmt.Errorf("configure the session with %s: %w", peer.Address, err)
		}
	}
	return nil
}

// sessionLogger logs when a session comes up or goes down, the steps between at
// debug level, and calls changed after each. GoBGP calls it from one goroutine.
func sessionLogger(ctx context.Context, log *slog.Logger, changed func()) func(*apiutil.WatchEventMessage_PeerEvent, time.Time) {
	up := map[netip.Addr]bool{}
	return func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
		if e.Type != apiutil.PEER_EVENT_STATE {
			return
		}
		st := e.Peer.State
		level, now := slog.LevelDebug, st.SessionState == bgp.BGP_FSM_ESTABLISHED
		if now != up[st.NeighborAddress] {
			level = slog.LevelInfo
		}
		up[st.NeighborAddress] = now
		log.Log(ctx, level, "session changed", "peer", st.NeighborAddress, "state", stateName(st.SessionState), "why", st.DisconnectMessage)
		changed()
	}
}

// acceptOwnOnly keeps routes of the routers out of the table: this server uses
// none, and must not carry the routes of one router to the other.
func (s *speaker) acceptOwnOnly(ctx context.Context) error {
	own := &api.Policy{Name: "own", Statements: []*api.Statement{{
		Name:       "own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	}}}
	if err := s.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: own}); err != nil {
		return err
	}
	return s.server.AddPolicyAssignment(ctx, &api.AddPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
		Policies: []*api.Policy{own}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
	}})
}

func peerConfig(p plan.Peer) *api.Peer {
	family := &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	if p.Address.Is6() {
		family.Afi = api.Family_AFI_IP6
	}
	c := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: p.Address.String(), PeerAsn: p.AS, AuthPassword: p.Password.Reveal()},
		Transport: &api.Transport{LocalAddress: p.Source.String()},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: holdTime, KeepaliveInterval: keepalive,
			ConnectRetry: connectRetry, IdleHoldTimeAfterReset: idleAfterStop,
		}},
		AfiSafis: []*api.AfiSafi{{Config: &api.AfiSafiConfig{Family: family, Enabled: true}}},
	}
	if p.Multihop { // else GoBGP sets TTL 1 towards another AS
		c.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: multihopTTL}
	}
	return c
}

// announce makes want the announced prefixes. When it withdraws some it returns
// after the withdrawals were written to every session that is up, or after a
// second.
func (s *speaker) announce(ctx context.Context, want []netip.Prefix) error {
	var add, gone []*apiutil.Path
	var errs []error
	families := map[bool]bool{} // is IPv6 -> something of it is withdrawn
	for _, p := range want {
		if !slices.Contains(s.announced, p) {
			path, err := pathOf(p)
			add, errs = append(add, path), append(errs, err)
		}
	}
	for _, p := range s.announced {
		if !slices.Contains(want, p) {
			path, err := pathOf(p)
			gone, errs = append(gone, path), append(errs, err)
			families[p.Addr().Is6()] = true
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(gone) > 0 {
		before := s.updatesSent(ctx, families)
		if err := s.server.DeletePath(apiutil.DeletePathRequest{Paths: gone}); err != nil {
			return fmt.Errorf("withdraw: %w", err)
		}
		s.flush(ctx, before, families)
	}
	if len(add) > 0 {
		if _, err := s.server.AddPath(apiutil.AddPathRequest{Paths: add}); err != nil {
			return fmt.Errorf("announce: %w", err)
		}
	}
	s.announced = slices.Clone(want)
	return nil
}

// pathOf describes an announcement. The next hop stays open: GoBGP puts each
// session's own address there.
func pathOf(p netip.Prefix) (*apiutil.Path, error) {
	family, hop := bgp.RF_IPv4_UC, netip.IPv4Unspecified()
	if p.Addr().Is6() {
		family, hop = bgp.RF_IPv6_UC, netip.IPv6Unspecified()
	}
	nlri, err := bgp.NewIPAddrPrefix(p)
	if err != nil {
		return nil, fmt.Errorf("prefix %s: %w", p, err)
	}
	var next bgp.PathAttributeInterface
	if p.Addr().Is6() {
		next, err = bgp.NewPathAttributeMpReachNLRI(family, []bgp.PathNLRI{{NLRI: nlri}}, hop)
	} else {
		next, err = bgp.NewPathAttributeNextHop(hop)
	}
	if err != nil {
		return nil, fmt.Errorf("prefix %s: %w", p, err)
	}
	return &apiutil.Path{
		Family: family, Nlri: nlri, Age: time.Now().Unix(),
		Attrs: []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), next}, // 0: from inside this AS
	}, nil
}

// session is what GoBGP says of one.
type session struct {
	peer    netip.Addr
	state   string
	since   time.Time // it is up, or down
	updates uint64    // UPDATE messages sent
}

// sessions lists all, sorted by address.
func (s *speaker) sessions(ctx context.Context) ([]session, error) {
	var out []session
	err := s.server.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		addr, err := netip.ParseAddr(p.GetConf().GetNeighborAddress())
		if err != nil {
			return
		}
		state := stateName(p.GetState().GetSessionState())
		out = append(out, session{
			peer: addr, state: state, since: s.since(state, p.GetTimers().GetState()),
			updates: p.GetState().GetMessages().GetSent().GetUpdate(),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list the sessions: %w", err)
	}
	slices.SortFunc(out, func(a, b session) int { return a.peer.Compare(b.peer) })
	return out, nil
}

// since is when a session came up or, when it is down, went down. One that never
// was up is down since the speaker started: the states that it goes through while
// it dials are no news.
func (s *speaker) since(state string, timers *api.TimersState) time.Time {
	at := timers.GetDowntime()
	if state == established {
		at = timers.GetUptime()
	}
	if at == nil {
		return s.started.UTC().Truncate(time.Second)
	}
	return at.AsTime()
}

// updatesSent counts the UPDATE messages of each session of the families that is
// up: an IPv4 prefix goes to IPv4 sessions only, an IPv6 one to IPv6 sessions.
func (s *speaker) updatesSent(ctx context.Context, families map[bool]bool) map[netip.Addr]uint64 {
	all, err := s.sessions(ctx)
	if err != nil {
		return nil // then flush waits for nothing
	}
	sent := map[netip.Addr]uint64{}
	for _, one := range all {
		if one.state == established && families[one.peer.Is6()] {
			sent[one.peer] = one.updates
		}
	}
	return sent
}

// flush waits until every session of before has sent an UPDATE since, or is
// down, or a second has passed: GoBGP queues messages and tells nobody when
// they are written. A session of the other address family sends none, so its
// wait is the price of a prefix of one family on sessions of both.
func (s *speaker) flush(ctx context.Context, before map[netip.Addr]uint64, families map[bool]bool) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	tick := time.NewTicker(flushPoll)
	defer tick.Stop()
	for {
		now := s.updatesSent(ctx, families)
		waiting := false
		for peer, sent := range before {
			if n, up := now[peer]; up && n == sent {
				waiting = true
			}
		}
		if !waiting {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// established is the state of a session that is up.
const established = "established"

// stateName turns GoBGP's names of a state into the usual one, such as active.
func stateName(state fmt.Stringer) string {
	name := strings.TrimPrefix(strings.TrimPrefix(state.String(), "SESSION_STATE_"), "BGP_FSM_")
	return strings.ToLower(name)
}

// stop closes all sessions with a notification, at which the routers drop what
// was announced.
func (s *speaker) stop() {
	s.stopWatch()
	s.server.Stop()
}
