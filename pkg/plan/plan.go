// Package plan decides what a server shall be: pure functions from the cluster
// file, the device, the decree and the members to plain values that the hands
// carry out.
//
// Floor 1.
package plan

import (
	"net/netip"

	"github.com/mustermetal/muster/pkg/cluster"
)

// Network is what lo and the routing table shall hold of ours.
type Network struct {
	// Addresses are the Elastic IPs that shall be on lo now, /32 or /128.
	Addresses []netip.Prefix
	Routes    []Route
}

// Route leads to one top-of-rack router through the private gateway.
type Route struct {
	Dst netip.Prefix // the router's address, /32 or /128
	Via netip.Addr   // the private gateway
	Src netip.Addr   // the private address, so that the session comes from it
}

// Announcement is the whole configuration of the BGP speaker. It is written to
// /run/muster/announce.json (0600: it holds MD5 passwords).
type Announcement struct {
	Version  int            `json:"version"`
	RouterID netip.Addr     `json:"routerID"`
	AS       uint32         `json:"as"`
	Peers    []Peer         `json:"peers"`
	Prefixes []netip.Prefix `json:"prefixes"` // announced only while on lo and healthy
	// HealthURL is the API server's own readiness, on the private address, with
	// the CA that must have signed its certificate.
	HealthURL string `json:"healthURL"`
	HealthCA  string `json:"healthCA"` // path of a PEM file
}

// Peer is one BGP session.
type Peer struct {
	Address  netip.Addr     `json:"address"`
	Source   netip.Addr     `json:"source"`
	AS       uint32         `json:"as"`
	Multihop bool           `json:"multihop"`
	Password cluster.Secret `json:"password,omitempty"`
}
