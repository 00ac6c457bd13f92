// Package rpc carries the calls between agents: JSON over HTTP over mutual TLS,
// on two ports of the private address. The enrolment port takes any holder of
// the cluster's secret and can only vote, enrol and read status; the agent port
// takes only certificates of the agent CA. Who is calling is read from the
// certificate, never from the body.
//
// Floor 2. It holds no decision: servers call the interfaces given to them.
// docs/formats.md describes the wire format, whose version is in every path.
package rpc

// maxBody bounds a request or reply. The largest is a members list: 1,000
// servers make about 300 KiB.
const maxBody = 2 << 20

type none struct{}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}
