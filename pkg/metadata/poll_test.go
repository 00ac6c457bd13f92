package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/device"
)

// script is a source whose answers are given beforehand; the last one stays.
type script struct {
	answers []func(context.Context) (device.Device, error)
	asked   int
}

func (s *script) Device(ctx context.Context) (device.Device, error) {
	answer := s.answers[min(s.asked, len(s.answers)-1)]
	s.asked++
	return answer(ctx)
}

func fails(text string) func(context.Context) (device.Device, error) {
	return func(context.Context) (device.Device, error) { return device.Device{}, errors.New(text) }
}

func gives(d device.Device) func(context.Context) (device.Device, error) {
	return func(context.Context) (device.Device, error) { return d, nil }
}

func hangs(ctx context.Context) (device.Device, error) {
	<-ctx.Done()
	return device.Device{}, ctx.Err()
}

func TestPoll(t *testing.T) {
	bare := device.Device{ID: "i1"}
	complete := device.Device{ID: "i1", BGPNeighbors: []device.Neighbor{{Family: 4}}}
	type answers = []func(context.Context) (device.Device, error)
	tests := []struct {
		name    string
		answers answers
		policy  Policy
		reports []string
		err     string
	}{
		{name: "at once", answers: answers{gives(bare)}, policy: Policy{Deadline: time.Minute}},
		{name: "late", answers: answers{fails("404"), fails("500"), gives(bare)}, policy: Policy{Deadline: time.Minute}, reports: []string{"1 404", "2 500"}},
		{name: "neighbours come late", answers: answers{gives(bare), gives(bare), gives(complete)}, policy: Policy{Deadline: time.Minute, RequireBGP: true},
			reports: []string{"1 " + errNoBGP.Error(), "2 " + errNoBGP.Error()}},
		{name: "never", answers: answers{fails("404")}, policy: Policy{Deadline: 2 * time.Second}, reports: []string{"1 404", "2 404", "3 404"}, err: "no usable metadata within 2s, in 3 attempts; the last said: 404"},
		{name: "the deadline cuts an attempt short", answers: answers{fails("404"), hangs}, policy: Policy{Deadline: 20 * time.Second}, reports: []string{"1 404", "2 context deadline exceeded"}, err: "in 2 attempts; the last said: 404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports []string
				var last time.Duration
				d, err := Poll(t.Context(), &script{answers: tt.answers}, tt.policy, func(err error, attempt int, since time.Duration) {
					if since < last {
						t.Errorf("time runs backwards: %v after %v", since, last)
					}
					last = since
					reports = append(reports, fmt.Sprint(attempt, " ", err))
				})
				if diff := cmp.Diff(tt.reports, reports); diff != "" {
					t.Errorf("reports (-want +got):\n%s", diff)
				}
				if tt.err == "" && (err != nil || d.ID != "i1") || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("device %q, error %v; want error %q", d.ID, err, tt.err)
				}
			})
		})
	}
}

// Over a long outage a server asks about every ten seconds, not faster.
func TestPollBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(context.Context) (device.Device, error){fails("404")}}
		if _, err := Poll(t.Context(), s, Policy{Deadline: 10 * time.Minute}, nil); err == nil {
			t.Fatal("no error")
		}
		if s.asked < 50 || s.asked > 85 {
			t.Errorf("asked %d times in ten minutes", s.asked)
		}
	})
}

func TestPollStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]func(context.Context) (device.Device, error){"in an attempt": hangs, "between attempts": fails("404")} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			began := time.Now()
			_, err := Poll(ctx, &script{answers: []func(context.Context) (device.Device, error){answer}}, Policy{Deadline: time.Minute}, nil)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 100*time.Millisecond {
				t.Errorf("%s: after %v: %v", name, time.Since(began), err)
			}
			cancel()
		}
	})
}
