package announce

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestGate(t *testing.T) {
	const period = 500 * time.Millisecond
	n := func(v Verdict, times int) []Verdict {
		var out []Verdict
		for range times {
			out = append(out, v)
		}
		return out
	}
	join := func(parts ...[]Verdict) []Verdict {
		var out []Verdict
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	ready, failed, etcd := []Verdict{Ready}, []Verdict{Failed}, []Verdict{EtcdOnly}
	for _, tc := range []struct {
		name     string
		verdicts []Verdict // one every 500 ms
		want     bool
	}{
		{"shut at first", nil, false},
		{"one 200 opens it", ready, true},
		{"etcd alone does not open it", n(EtcdOnly, 3), false},
		{"one failure is borne", join(ready, failed), true},
		{"two in a row are not", join(ready, failed, failed), false},
		{"a 200 between two failures", join(ready, failed, ready, failed), true},
		{"open again after one 200", join(ready, n(Failed, 9), ready), true},
		{"etcd alone is borne", join(ready, n(EtcdOnly, 20)), true},
		{"for ten seconds", join(ready, n(EtcdOnly, 21)), false},
		{"etcd back in time", join(ready, n(EtcdOnly, 20), ready, n(EtcdOnly, 20)), true},
		{"shut by etcd, it opens with a 200 only", join(ready, n(EtcdOnly, 30), n(EtcdOnly, 5)), false},
		{"failures count through etcd's", join(ready, failed, etcd, failed), false},
		{"one failure among etcd's", join(ready, n(EtcdOnly, 5), failed, n(EtcdOnly, 5)), true},
		{"after etcd failed, a dead API server shuts it at once", join(ready, n(EtcdOnly, 5), failed, failed), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var g Gate
			now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
			open := false
			for _, v := range tc.verdicts {
				open = g.Next(v, now)
				now = now.Add(period)
			}
			if open != tc.want {
				t.Errorf("open %t after %v, want %t", open, tc.verdicts, tc.want)
			}
		})
	}
}

// TestGateProperties holds for every sequence: only a 200 opens, two failures
// without a 200 between them shut, and nothing holds it open for longer than
// ten seconds without a 200 once etcd was reported.
func TestGateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g Gate
		now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
		was, failures, etcdSince := false, 0, time.Time{}
		for range rapid.IntRange(0, 60).Draw(t, "length") {
			now = now.Add(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
			v := rapid.SampledFrom([]Verdict{Ready, Failed, EtcdOnly}).Draw(t, "verdict")
			open := g.Next(v, now)
			switch v {
			case Ready:
				failures, etcdSince = 0, time.Time{}
			case Failed:
				failures++
			case EtcdOnly:
				if etcdSince.IsZero() {
					etcdSince = now
				}
			}
			if open && !was && v != Ready {
				t.Fatalf("opened by %d", v)
			}
			if open && failures >= 2 {
				t.Fatal("open after two failures")
			}
			if open && v == EtcdOnly && now.Sub(etcdSince) >= 10*time.Second {
				t.Fatal("held open for more than ten seconds")
			}
			if was && !open && failures < 2 && now.Sub(etcdSince) < 10*time.Second {
				t.Fatal("shut without reason")
			}
			was = open
		}
	})
}
