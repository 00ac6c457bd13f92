package election

import "net/netip"

// Self is this server as its peers shall see it.
type Self struct {
	Name     string
	Address  netip.Addr // private
	Eligible bool       // may become a control plane
}
