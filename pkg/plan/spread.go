package plan

// Seekers are the servers that may become control planes and have no place yet, as
// the one that gives places sees them: switches, empty where unknown.
type Seekers struct {
	Asking string   // the switch of the server that asks now
	Others []string // those of the others in sight
}

// GivesWay says whether a server that asks for a place among the control planes
// should wait for one behind another switch, so that the loss of a switch takes as
// few control planes as possible. taken are the switches of those that have a place,
// free is how many places are left.
//
// The places are given as if all asked at once, each to a switch with the fewest;
// among equals the one that asks comes first. Servers behind unknown switches neither
// give way nor are waited for.
func GivesWay(s Seekers, taken []string, free int) bool {
	if s.Asking == "" || free <= 0 {
		return false
	}
	load, waiting := map[string]int{}, map[string]int{s.Asking: 1}
	for _, t := range taken {
		load[t]++
	}
	for _, o := range s.Others {
		if o != "" {
			waiting[o]++
		}
	}
	for ; free > 0; free-- {
		best := s.Asking
		for candidate, n := range waiting {
			if n > 0 && load[candidate] < load[best] {
				best = candidate
			}
		}
		if best == s.Asking {
			return false
		}
		load[best]++
		waiting[best]--
	}
	return true
}
