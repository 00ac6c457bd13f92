package announce

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// TestConverse: what a router says to an OPEN message, and that ours is a good one for
// AS numbers of two octets and of four, in both families.
func TestConverse(t *testing.T) {
	open, err := bgp.NewBGPOpenMessage(65530, 9, netip.MustParseAddr("169.254.255.1"), nil)
	must(t, err)
	keepalive := bgp.NewBGPKeepAliveMessage()
	refused := bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS, nil)
	badAS := notification{code: 2, subcode: 2}
	for _, tc := range []struct {
		name, peer string
		as         uint32
		answer     []*bgp.BGPMessage
		raw        string
		want       notification
		fails      string
	}{
		{"refused at once", "169.254.255.1", 65000, []*bgp.BGPMessage{refused}, "", badAS, ""},
		{"refused after its own", "fc00::e", 4200000000, []*bgp.BGPMessage{open, refused}, "", badAS, ""},
		{"taken", "169.254.255.1", 65000, []*bgp.BGPMessage{open, keepalive}, "", notification{}, errTaken.Error()},
		{"closed", "169.254.255.1", 65000, nil, "", notification{}, io.EOF.Error()},
		{"no BGP", "169.254.255.1", 65000, nil, "HTTP/1.1 400 Bad Re", notification{}, "bytes, expected 19 to 4096"},
	} {
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() {
			defer there.Close()
			if err := there.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				done <- err
				return
			}
			m, err := hear(there)
			if err == nil {
				_, err = bgp.ValidateOpenMsg(m.Body.(*bgp.BGPOpen), tc.as, 65530, netip.MustParseAddr("169.254.255.1"))
			}
			for _, a := range tc.answer {
				err = errors.Join(err, say(there, a))
			}
			if tc.raw != "" {
				_, broken := io.WriteString(there, tc.raw)
				err = errors.Join(err, broken)
			}
			if tc.fails == errTaken.Error() { // it is told that nothing comes of it
				last, broken := hear(there)
				if err = errors.Join(err, broken); err == nil && last.Header.Type != bgp.BGP_MSG_NOTIFICATION {
					err = errors.New("the session was not ended by a notification")
				}
			}
			done <- err
		}()
		p := goodPlan().Peers[0]
		p.Address = netip.MustParseAddr(tc.peer)
		got, err := converse(here, p, tc.as, netip.MustParseAddr("10.70.1.1"))
		here.Close()
		if got != tc.want || (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
			t.Errorf("%s: %+v, %v; want %+v and %q", tc.name, got, err, tc.want, tc.fails)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: at the router: %v", tc.name, err)
		}
	}
}
