package election

// MessageVersion is the version of the messages between electors.
const MessageVersion = 2

// MessageKind names a message.
type MessageKind string

// Messages. Every one carries what its sender knows to be decided.
const (
	Prepare  MessageKind = "prepare"
	Promise  MessageKind = "promise"
	Nack     MessageKind = "nack"
	Accept   MessageKind = "accept"
	Accepted MessageKind = "accepted"
	Tidings  MessageKind = "decided" // decisions or sealed, asking for a Tell as acknowledgement
	Ask      MessageKind = "ask"     // asks for a Tell
	Tell     MessageKind = "tell"    // what the sender knows; never answered
	Stand    MessageKind = "stand"   // does this GO stand?
	Stands   MessageKind = "stands"  // its answer
)

// Message is what electors say to each other over mutual TLS. docs/fence.md
// lists which fields belong to which kind.
type Message struct {
	Version int         `json:"v"`
	Kind    MessageKind `json:"kind"`
	SpecID  string      `json:"specID"`
	Config  string      `json:"config"` // Config.Hash of the sender
	N       int         `json:"n"`      // its expected servers, to be said when they differ
	Name    string      `json:"name"`   // its node name, for people

	Decided []Value `json:"decided,omitempty"` // decided prefix from slot 0 on
	Sealed  Sealed  `json:"sealed,omitzero"`
	Joining bool    `json:"joining,omitempty"` // booted with joining user-data: neither votes nor counts
	Lowered bool    `json:"lowered,omitempty"` // an operator lowered the quorum to a majority

	Slot     int    `json:"slot,omitempty"`
	Ballot   Ballot `json:"ballot,omitzero"`
	Promised Ballot `json:"promised,omitzero"` // Nack: the ballot that stands in the way
	Accepted Ballot `json:"accepted,omitzero"` // Promise: ballot of Value
	Value    Value  `json:"value,omitzero"`    // Promise, Accept
	Nonce    string `json:"nonce,omitempty"`   // Stand, Stands: the asker's boot
	Standing bool   `json:"standing,omitempty"`
	// Challenged goes with Stands: somebody asked to supersede this GO.
	Challenged bool `json:"challenged,omitempty"`
	// LoseCluster goes with Prepare and Accept after GO: the operator gives up a
	// cluster that is sealed.
	LoseCluster bool   `json:"loseCluster,omitempty"`
	Refusal     string `json:"refusal,omitempty"` // Tell: why Prepare or Accept after GO is refused, a sentence
}
