package election

import (
	"fmt"
	"slices"
	"strings"
)

// trace tells how a state was come to.
func (c *checker) trace(at uint32) []string {
	var path []uint32
	for i := at; i != 0; i = c.parent[i] {
		path = append(path, i)
	}
	slices.Reverse(path)
	names := make([]string, c.m)
	for i := range names {
		names[i] = fmt.Sprintf("server %d", i)
	}
	s := c.states[0]
	var out []string
	for _, i := range path {
		want, found := c.states[i], false
		c.successors(s, func(next state, m move) {
			if found {
				return
			}
			sorted := next
			labels := slices.Clone(names)
			c.canon(&sorted, labels)
			if sorted == want {
				out = append(out, fmt.Sprintf("%3d. %s %s", len(out)+1, names[m.server], c.describe(s, m, names)))
				found, names = true, labels
			}
		})
		s = want
	}
	return out
}

func (c *checker) describe(s state, m move, names []string) string {
	var text string
	switch m.kind {
	case moveAsked:
		text = "gets " + c.questions[m.arg].say()
	case moveAnswered:
		var got []string
		for k := 0; k < len(m.from); k += 2 {
			got = append(got, sayMessage(c.answers[m.from[k+1]])+" from "+names[m.from[k]])
		}
		text = "gets " + strings.Join(got, " and ")
	case moveTry:
		text = "tries"
	case moveTimer:
		text = "sees a timer fire"
	case moveCrash:
		text = "crashes and boots"
	case moveWipe:
		text = "LOSES ITS DISK and boots"
	case moveAct:
		text = fmt.Sprintf("is ordered %T", c.fence.acts[m.arg])
	}
	r := c.results[m.result]
	if m.kind != moveCrash && m.kind != moveWipe && r.seen.crashed > 0 {
		text += ", and crashes half way"
	}
	var says []string
	for _, a := range r.answers {
		says = append(says, sayMessage(c.answers[a]))
	}
	for _, q := range r.questions {
		if !c.sents[s[atSent]].set.has(q) {
			says = append(says, c.questions[q].say())
		}
	}
	if len(says) > 0 {
		text += "; says " + strings.Join(says, ", ")
	}
	return text
}

// say is for the trace.
func (q question) say() string {
	m := q.m
	switch {
	case q.fact != "":
		return q.fact
	case m.Kind == Tell:
		var out []string
		for _, v := range m.Decided {
			out = append(out, v.describe())
		}
		return "news: " + strings.Join(out, ", ") + " decided"
	case m.Kind == Stand:
		return fmt.Sprintf("stand(%s) of %s", m.Nonce, q.from.Inst)
	}
	return fmt.Sprintf("%s of %s", sayMessage(m), q.from.Inst)
}

func sayMessage(m Message) string {
	text := fmt.Sprintf("%s(slot %d, round %d of %s", m.Kind, m.Slot, m.Ballot.Round, m.Ballot.Inst)
	if m.Kind == Nack {
		text += fmt.Sprintf(", promised round %d of %s", m.Promised.Round, m.Promised.Inst)
	}
	if m.Value != (Value{}) {
		text += ", value " + m.Value.describe()
	}
	return text + ")"
}
