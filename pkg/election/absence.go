package election

// Answer says whether something happens whichever servers are absent.
type Answer string

// Answers.
const (
	Always  Answer = "always"
	Depends Answer = "depends" // on which they are
	Never   Answer = "never"
)

// Absence is what becomes of a cluster that has not formed when some of its
// servers never boot.
type Absence struct {
	Absent int // servers that never boot
	// Forms says whether the cluster forms without anybody's doing, ByMajority whether
	// it does after `bootstrap quorum --majority`.
	Forms, ByMajority Answer
	// Missing is how many more voters must boot until it forms, at worst.
	Missing int
	// ControlPlanes is how many it has at least and at most once it has formed.
	ControlPlanes [2]int
}

// Absences tells for every number of absent servers, from none to all, what
// becomes of a cluster of expect servers that shall have controlPlanes control
// planes. eligible is how many of the servers may become one. It holds for servers
// that keep their disks.
func Absences(c Config, expect, controlPlanes, eligible int) []Absence {
	others := expect - c.N // servers that do not vote, because electors are listed
	var out []Absence
	for k := range expect + 1 {
		// The voters among the absent are between these, as are those who may lead.
		voters := [2]int{c.N - min(k, c.N), c.N - max(0, k-others)}
		leaders := [2]int{max(0, eligible-k), min(eligible, expect-k)}
		a := Absence{
			Absent:        k,
			Forms:         both(reaches(voters, c.Q), reaches(leaders, 1)),
			ByMajority:    both(reaches(voters, Majority(c.N)), reaches(leaders, 1)),
			Missing:       max(0, c.Q-voters[0]),
			ControlPlanes: [2]int{min(leaders[0], controlPlanes), min(leaders[1], controlPlanes)},
		}
		out = append(out, a)
	}
	return out
}

// reaches says whether a number between two bounds is at least n.
func reaches(bounds [2]int, n int) Answer {
	switch {
	case bounds[0] >= n:
		return Always
	case bounds[1] >= n:
		return Depends
	}
	return Never
}

// both is the answer when two things are needed.
func both(a, b Answer) Answer {
	switch {
	case a == Never || b == Never:
		return Never
	case a == Always && b == Always:
		return Always
	}
	return Depends
}
