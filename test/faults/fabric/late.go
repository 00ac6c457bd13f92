package fabric

import (
	"container/heap"
	"time"
)

// due is a frame that is on its way.
type due struct {
	at    time.Time
	port  string
	frame []byte
}

// delayed is a heap by time.
type delayed []due

func (d delayed) Len() int           { return len(d) }
func (d delayed) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d delayed) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push is for package heap.
func (d *delayed) Push(x any) { *d = append(*d, x.(due)) } //nolint:forcetypeassert // of apply alone

// Pop is for package heap.
func (d *delayed) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// deliverLate sends every delayed frame in its time.
func (s *Switch) deliverLate() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		for len(s.late) > 0 && !s.late[0].at.After(time.Now()) {
			d := heap.Pop(&s.late).(due) //nolint:forcetypeassert // of apply alone
			s.send(d.port, d.frame)
		}
		next := time.Hour
		if len(s.late) > 0 {
			next = time.Until(s.late[0].at)
		}
		s.mu.Unlock()
		timer.Reset(next)
		select {
		case <-s.closed:
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}
