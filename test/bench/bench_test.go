package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	missed := table(&b, []result{{"size", 29.2, 30, "MB"}, {"ratio", 1.04, 1, ""}})
	want := "WHAT   MEASURED  BUDGET    \nsize   29.20 MB  <= 30 MB  \nratio  1.04      <= 1      MISSED\n"
	if got := b.String(); got != want || missed != 1 {
		t.Errorf("%d missed, table:\n%swant:\n%s", missed, got, want)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v; want %v", c.values, got, c.want)
		}
	}
}

// The script's user-data is cloud-config; keys go to control planes only.
func TestScriptedUserData(t *testing.T) {
	pki, ca, err := authorities(filepath.Join(t.TempDir(), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pki) < 8 || len(ca) == 0 || len(pki["etcd/ca.key"]) == 0 {
		t.Fatalf("authorities have %d files", len(pki))
	}
	first := known{
		Token: "abcdef.0123456789abcdef", Endpoint: netip.MustParseAddrPort("10.66.0.3:6443"), Name: "cp1", Address: netip.MustParseAddr("10.66.0.3"),
		First: true, Control: true, Pods: netip.MustParsePrefix("10.244.0.0/16"), Services: netip.MustParsePrefix("10.96.0.0/16"), pki: pki,
	}
	control, worker := first, first
	control.First, control.Name = false, "cp2"
	worker.First, worker.Control, worker.Name = false, false, "w1"
	for _, k := range []known{first, control, worker} {
		data, err := k.userData()
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Files []struct{ Path string } `yaml:"write_files"`
			Run   [][]string              `yaml:"runcmd"`
		}
		if err := yaml.Unmarshal(data, &c); err != nil {
			t.Fatalf("%s: %v", k.Name, err)
		}
		keys := 0
		for _, f := range c.Files {
			if strings.HasPrefix(f.Path, "/etc/kubernetes/pki/") {
				keys++
			}
		}
		if (keys == len(pki)) != k.Control || (c.Run[0][2] == "init") != k.First {
			t.Errorf("%s gets %d of %d keys and runs %q", k.Name, keys, len(pki), c.Run)
		}
		var config strings.Builder
		if err := kubeadmTemplate.Execute(&config, k); err != nil {
			t.Fatal(err)
		}
		if err := yaml.NewDecoder(strings.NewReader(config.String())).Decode(new(any)); err != nil {
			t.Errorf("%s: %v in\n%s", k.Name, err, config.String())
		}
	}
}

// What systemctl prints of a server that ran kubeadm join, and of one that is at it.
func TestOverlap(t *testing.T) {
	runs, err := kubeadmRuns("ExecMainStartTimestamp=\nExecMainExitTimestamp=\n\nExecMainStartTimestamp=Thu 2026-11-26 23:10:09.500000 UTC\nExecMainExitTimestamp=Thu 2026-11-26 23:10:29.500000 UTC\n")
	if err != nil || len(runs) != 1 || runs[0].ended.Sub(runs[0].began) != 20*time.Second {
		t.Errorf("%v, %v", runs, err)
	}
	if runs, err := kubeadmRuns("ExecMainStartTimestamp=Thu 2026-11-26 23:10:09.500000 UTC\nExecMainExitTimestamp=\n"); err != nil || len(runs) != 0 {
		t.Errorf("one that runs: %v, %v", runs, err)
	}
	if _, err := kubeadmRuns("ExecMainStartTimestamp=yesterday\n"); err == nil {
		t.Error("yesterday is no time")
	}
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	// init, then three joins: two at once, the last while one of them ends.
	sum, span, most := overlap([]kubeadmRun{{at(0), at(10)}, {at(10), at(30)}, {at(11), at(25)}, {at(25), at(40)}})
	if sum != 59*time.Second || span != 40*time.Second || most != 2 {
		t.Errorf("%v in all, within %v, up to %d at once", sum, span, most)
	}
	if sum, span, most := overlap(nil); sum != 0 || span != 0 || most != 0 {
		t.Errorf("of nothing: %v, %v, %d", sum, span, most)
	}
}
