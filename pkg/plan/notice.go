package plan

import (
	"cmp"
	"strings"

	"github.com/mustermetal/muster/pkg/member"
)

// Notice is what listeners outside are told of a server: an event of the shape that
// Packet's user_state has.
type Notice struct {
	State   string `json:"state"` // running, succeeded or failed
	Code    int    `json:"code"`  // 1000 to 1099, one for each phase
	Message string `json:"message"`
}

// noticeCodes are part of the interface: a phase keeps its code for ever
// (docs/formats.md).
var noticeCodes = map[member.Phase]int{
	member.Identity: 1000, member.Metadata: 1001, member.RollCall: 1002, member.Deciding: 1003, member.Enrolling: 1004,
	member.Preparing: 1005, member.Initialising: 1006, member.Waiting: 1007, member.Joining: 1008, member.Ready: 1009,
	member.Leaving: 1010, member.Left: 1011,
	member.Stopped: 1099,
}

// noticeMessage bounds a message in bytes: platforms show it in one line.
const noticeMessage = 255

// NoticeOf is what is told of a server in this phase. cluster is the cluster's name.
func NoticeOf(cluster string, s member.Status) Notice {
	n := Notice{State: "running", Code: noticeCodes[s.Phase], Message: cluster + "/" + cmp.Or(s.Name, "?") + ": " + string(s.Phase)}
	switch s.Phase {
	case member.Ready, member.Left:
		n.State = "succeeded"
	case member.Stopped:
		n.State = "failed"
		n.Message += ": " + strings.Join(strings.Fields(s.Problem), " ")
	}
	if s.Phase == member.Ready && s.Role != member.NoRole {
		n.Message += " as " + string(s.Role)
	}
	const more = "…"
	if len(n.Message) > noticeMessage {
		n.Message = strings.ToValidUTF8(n.Message[:noticeMessage-len(more)], "") + more
	}
	return n
}
