package directory

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func key(digit string) string { return "sha256:" + hex32(digit) + hex32(digit) }

// The first key of an instance stays, through whichever node the next one comes.
func TestBindKey(t *testing.T) {
	hosts := form(t, 3)
	bind := func(h, n int, k string) error { return hosts[h].client.BindKey(deadline(t), inst(n), inst(1000+n), k) }
	for _, step := range []struct {
		host, inst int
		key        string
		want       error
	}{
		{0, 7, key("a"), nil},
		{1, 7, key("a"), nil}, // the answer was lost
		{2, 7, key("b"), ErrKeyTaken},
		{1, 8, key("b"), nil},
		{0, 7, key("a"), nil}, // the refused one changed nothing
		{0, 9, "sha256:00", ErrInvalid},
		{0, 9, "", ErrInvalid},
	} {
		if err := bind(step.host, step.inst, step.key); !errors.Is(err, step.want) {
			t.Errorf("BindKey(%d, %.12s) through node %d: %v, want %v", step.inst, step.key, step.host, err, step.want)
		}
	}
	// Two keys at once: one of them.
	var won atomic.Int32
	var wg sync.WaitGroup
	for i, k := range []string{key("c"), key("d"), key("e")} {
		wg.Go(func() {
			switch err := bind(i, 10, k); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrKeyTaken):
				t.Errorf("BindKey at once with others: %v, want %v", err, ErrKeyTaken)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of three keys were bound, want 1", won.Load())
	}
}
