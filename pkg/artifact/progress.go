package artifact

import (
	"maps"
	"slices"
	"sync"

	"github.com/mustermetal/muster/pkg/member"
)

// step is how many bytes are worth a report.
const step = 8 << 20

// progress counts for all fetches at once.
type progress struct {
	mu       sync.Mutex
	now      member.Fetching
	faults   map[string]string // since the start
	failed   map[string]bool   // in this round
	reported int64
	report   func(member.Fetching)
}

func (p *progress) begin(items []item, report func(member.Fetching)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.reported, p.report = member.Fetching{Items: len(items)}, 0, report
	p.failed = map[string]bool{}
	if p.faults == nil {
		p.faults = map[string]string{}
	}
	for _, it := range items {
		p.now.Size += it.Size
	}
	p.tell()
}

// add counts bytes that came, or, negative, that were thrown away.
func (p *progress) add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Bytes += n
	if p.now.Bytes-p.reported >= step {
		p.tell()
	}
}

func (p *progress) done(_ item, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.now.Done++
	}
	p.tell()
}

// fault remembers that a source failed, by its host, so that a dead mirror is one
// line and not seven.
func (p *progress) fault(source, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[source], p.failed[source] = reason, true
	p.tell()
}

// good puts places that failed in this round behind the others: a dead mirror costs
// its time-out for the first artefacts and not for all.
func (p *progress) good(places []from) []from {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first, last []from
	for _, f := range places {
		if p.failed[f.name] {
			last = append(last, f)
		} else {
			first = append(first, f)
		}
	}
	return append(first, last...)
}

func (p *progress) tell() {
	p.reported = p.now.Bytes
	p.now.Faults = nil
	for _, source := range slices.Sorted(maps.Keys(p.faults)) {
		p.now.Faults = append(p.now.Faults, source+": "+p.faults[source])
	}
	if p.report != nil {
		now := p.now
		now.Faults = slices.Clone(p.now.Faults)
		p.report(now)
	}
}
