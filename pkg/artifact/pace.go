package artifact

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// A place must bring this much within each window, or it is left for the next one:
// below it the 300 MB of a server take hours. The last place that is left need only
// bring something.
const (
	window = 15 * time.Second
	least  = 32 << 10 * int64(window/time.Second) // 32 KiB/s
)

// pace watches one transfer.
type pace struct {
	bytes atomic.Int64
	done  chan struct{}
}

// watch cancels a transfer that does not keep up, from its first request on.
func watch(ctx context.Context, cancel context.CancelCauseFunc, patient bool) *pace {
	w := &pace{done: make(chan struct{})}
	floor := int64(least)
	if patient {
		floor = 1
	}
	go func() {
		tick := time.NewTicker(window)
		defer tick.Stop()
		for {
			select {
			case <-w.done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				if n := w.bytes.Swap(0); n < floor {
					cancel(fmt.Errorf("%w: %d bytes in %s, expected at least %d", errSlow, n, window, floor))
					return
				}
			}
		}
	}()
	return w
}

func (w *pace) add(n int64) { w.bytes.Add(n) }

func (w *pace) stop() { close(w.done) }
