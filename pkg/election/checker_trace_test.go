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
	s, names, out := c.states[0], slices.Clone(c.names), slices.Clone(c.fence.prologue)
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

// prologue takes the first steps, which the case tells by how they begin in a
// trace, and returns the situation after them.
func (c *checker) prologue() state {
	s := c.first()
	c.names = nil
	for i := range c.m {
		c.names = append(c.names, fmt.Sprintf("server %d", i))
	}
	for _, want := range c.fence.prologue {
		at, found := s, false
		c.successors(at, func(next state, m move) {
			if text := c.names[m.server] + " " + c.describe(at, m, c.names); !found && strings.HasPrefix(text, want) {
				found, s = true, next
			}
		})
		if !found {
			c.t.Fatalf("nothing begins with %q here", want)
		}
		c.canon(&s, c.names)
	}
	return s
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
		if c.fence.copies {
			text = "GETS AN OLD COPY OF ITS DISK and boots"
		}
	case moveStand:
		text = "asks whether its GO stands"
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
