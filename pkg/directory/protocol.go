package directory

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
)

// protocol is the application protocol (ALPN) of the nodes of one directory. It
// names epoch, generation and cluster CA, so that nodes of two directories never
// speak to each other. They must not: all first nodes have the same id, and raft
// follows whoever has the higher term, so the older directory would overwrite the
// newer one at the same address and be believed meanwhile.
func (d decree) protocol() string {
	return fmt.Sprintf("muster-directory/1 epoch %d generation %d %s", d.epoch, d.generation, d.caHash)
}

// listening and dialling are the two TLS configurations with the protocol.
func (c Config) listening() *tls.Config { return speaking(c.Listen, c.decree().protocol()) }
func (c Config) dialling() *tls.Config  { return speaking(c.Dial, c.decree().protocol()) }

// speaking returns a configuration that speaks one protocol and nothing else. A
// server would let a client in that names none, so the outcome is checked too.
func speaking(config *tls.Config, protocol string) *tls.Config {
	out := config.Clone()
	out.NextProtos = []string{protocol}
	before := config.VerifyConnection
	out.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != protocol {
			return fmt.Errorf("%w: the other side speaks %q, expected %q", ErrFalse, cs.NegotiatedProtocol, protocol)
		}
		if before != nil {
			return before(cs)
		}
		return nil
	}
	return out
}

// noProtocol is what crypto/tls says of the alert no_application_protocol (120)
// that the other side sent; the alert's type is not exported.
const noProtocol = "no application protocol"

// isOther says whether a handshake failed because the other side is a node of
// another directory.
func isOther(err error) bool {
	var alert *net.OpError
	return errors.Is(err, ErrFalse) ||
		errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Err.Error(), noProtocol)
}
