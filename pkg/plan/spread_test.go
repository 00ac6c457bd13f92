package plan

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestGivesWay(t *testing.T) {
	// Switches are letters, - is unknown.
	list := func(text string) []string {
		out := strings.Fields(text)
		for i := range out {
			out[i] = strings.Trim(out[i], "-")
		}
		return out
	}
	for _, row := range []struct {
		name, asking, others, taken string
		free                        int
		want                        bool
	}{
		{"nobody else", "a", "", "a", 2, false},
		{"one behind another switch, two places", "a", "b", "a", 2, false},
		{"one behind another switch, one place", "a", "b", "a", 1, true},
		{"two behind another switch: one is as good", "a", "b b", "a", 2, false},
		{"behind two other switches", "a", "b c", "a", 2, true},
		{"itself behind another switch", "b", "a a c", "a", 2, false},
		{"equals: who asks comes first", "b", "c", "a", 1, false},
		{"all behind one switch", "a", "a a a", "a", 2, false},
		{"its own is unknown", "-", "b c", "a", 2, false},
		{"theirs are unknown", "a", "- -", "a", 2, false},
		{"holders are unknown", "a", "b", "- -", 1, false},
		{"no place left", "a", "b", "a a a", 0, false},
		{"five places over three switches", "a", "b b c", "a a", 3, true},
		{"five places, four switches", "a", "b c d", "a", 4, false},
	} {
		asking := strings.Trim(row.asking, "-")
		if got := GivesWay(Seekers{asking, list(row.others)}, list(row.taken), row.free); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

// Whatever the order in which servers ask: all places are given, and no switch has
// two more control planes than another one with a server left.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		switches := rapid.SampledFrom([]string{"a", "b", "c"})
		waiting := rapid.SliceOfN(switches, 1, 9).Draw(t, "eligible")
		places := rapid.SampledFrom([]int{1, 3, 5}).Draw(t, "places")
		var taken []string
		for turns := 0; len(taken) < places && len(waiting) > 0; turns++ {
			i := rapid.IntRange(0, len(waiting)-1).Draw(t, "asks")
			if turns < 1000 && GivesWay(Seekers{waiting[i], slices.Delete(slices.Clone(waiting), i, i+1)}, taken, places-len(taken)) {
				continue
			}
			taken = append(taken, waiting[i])
			waiting = slices.Delete(waiting, i, i+1)
		}
		load := map[string]int{}
		for _, s := range taken {
			load[s]++
		}
		for _, left := range waiting {
			for s, n := range load {
				if n > load[left]+1 {
					t.Fatalf("%s has %d control planes, %s has %d and a server left", s, n, left, load[left])
				}
			}
		}
	})
}
