package cluster

// Policies of spec.time.require.
const (
	TimeSync  = "sync"  // NTP must have synchronised the clock
	TimePeers = "peers" // the clock must agree with those of the peers
	TimeAuto  = "auto"  // NTP, or after a minute the peers
)
