package member

import (
	"net/netip"
	"time"
)

// Discovery is how the search for other servers stands, as one server sees it.
type Discovery struct {
	Ways  []Way   `json:"ways"`  // in the order of the cluster file
	Found []Found `json:"found"` // by address
}

// Way is one element of spec.discovery.
type Way struct {
	Name string `json:"name"` // such as "dns k8s.example.net"
	// Tried is when the last attempt ended; zero before the first one has.
	Tried   time.Time `json:"tried,omitzero"`
	Problem string    `json:"problem,omitempty"` // why the last attempt failed, a sentence
	// Resting is why it makes no further attempt now, a sentence.
	Resting string `json:"resting,omitempty"`
	Found   int    `json:"found"` // addresses that it found so far
}

// Found is one address that discovery found, or that gossip has as a member's.
type Found struct {
	Address netip.Addr `json:"address"`
	By      []string   `json:"by"`             // names of the ways; "gossip" when members told of it
	At      time.Time  `json:"at,omitzero"`    // when it was found first
	Asked   time.Time  `json:"asked,omitzero"` // when it was asked last whether a server of this cluster is there
	// Answered is set when one is.
	Answered bool `json:"answered"`
	// Of the server there, once it is in sight.
	Inst string `json:"inst,omitempty"`
	HW   string `json:"hw,omitempty"`
	Name string `json:"name,omitempty"`
}

// ByGossip is the way of an address that no element of spec.discovery found.
const ByGossip = "gossip"
