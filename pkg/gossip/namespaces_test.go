package gossip

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/discovery"
)

// The roll call of real processes, each in a network namespace of its own, all on
// one bridge: make bench-gossip. It needs root.
var (
	processes = flag.Int("processes", 0, "how many processes call the roll in TestNamespaces, at most 250; 0 skips it")
	way       = flag.String("way", "static", "how they find each other in TestNamespaces: static or subnet")
)

// copyRole says what a copy of this test binary does.
const copyRole = "MUSTER_GOSSIP_TEST"

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(copyRole)); len(words) == 4 {
		var i, n int
		if _, err := fmt.Sscan(words[1]+" "+words[2], &i, &n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := callRoll(i, n, words[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// result is what one process measured.
type result struct {
	Quorum, All  time.Duration // since all were released
	RSS          int64         // KB
	CPU          time.Duration
	Sent, Got    int64 // bytes on the link, ARP too
	SentPackets  int64
	CalmCPU      time.Duration // in the rest that follows
	CalmSent     int64         // bytes
	CalmFor      time.Duration
	InSightAtEnd int
}

// asker is gossip as discovery knows it.
type asker struct{ *Group }

func (a asker) InSight() map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, p := range a.Peers() {
		out[p.Inst] = p.Address
	}
	return out
}

// callRoll is one server: it waits for the end of its input, calls the roll, and
// writes what it measured.
func callRoll(i, n int, how string) error {
	_, _ = io.Copy(io.Discard, os.Stdin)
	began := time.Now()
	g, err := Join(context.Background(), Config{Inst: inst(i), HW: hw(i), Address: addr(i), Port: testPort, Label: "0123456789abcdef", Key: testKey, Flags: Eligible})
	if err != nil {
		return err
	}
	ways := []discovery.Way{discovery.Static(first(3))}
	never := func() bool { return false }
	if how == "subnet" {
		ways = []discovery.Way{discovery.Subnet{Range: "10.77.0.0/24", Self: addr(i), Gossip: asker{g}, Settled: never}}
	}
	search := discovery.New(inst(i), addr(i), ways, asker{g}, never, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { _ = search.Run(ctx) }()
	go func() { _ = g.Run(ctx, search.Seeds, search.News()) }()
	var r result
	const patience, look = 2 * time.Minute, 10 * time.Millisecond
	tick := time.NewTicker(look)
	for r.All == 0 && time.Since(began) < patience {
		<-tick.C
		seen := g.inSight()
		if r.Quorum == 0 && seen >= n-(n-1)/3 {
			r.Quorum = time.Since(began)
		}
		if seen == n {
			r.All = time.Since(began)
		}
	}
	r.CPU, r.RSS = used()
	r.Sent, r.Got, r.SentPackets = linkBytes()
	const calm = 20 * time.Second
	<-time.After(calm)
	cpu, rss := used()
	sent, _, _ := linkBytes()
	r.CalmCPU, r.CalmSent, r.CalmFor, r.RSS, r.InSightAtEnd = cpu-r.CPU, sent-r.Sent, calm, max(rss, r.RSS), g.inSight()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// used is this process's CPU time, and its resident memory in KB.
func used() (time.Duration, int64) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	status, _ := os.ReadFile("/proc/self/status")
	var rss int64
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(text, &rss)
		}
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), rss
}

// linkBytes reads what went over eth0.
func linkBytes() (sent, got, packets int64) {
	dev, _ := os.ReadFile("/proc/self/net/dev")
	for line := range strings.Lines(string(dev)) {
		if name, text, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "eth0" {
			var skip int64
			_, _ = fmt.Sscan(text, &got, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &sent, &packets)
		}
	}
	return sent, got, packets
}

func TestNamespaces(t *testing.T) {
	n := *processes
	switch {
	case n == 0:
		t.Skip("make bench-gossip runs it")
	case os.Geteuid() != 0:
		t.Skip("network namespaces need root")
	case os.Getenv(copyRole) == "":
		raiseNeighbours(t)
		bridge := exec.Command("/proc/self/exe", os.Args[1:]...)
		bridge.Env = append(os.Environ(), copyRole+"=bridge")
		bridge.Stdout, bridge.Stderr = os.Stdout, os.Stderr
		bridge.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := bridge.Run(); err != nil {
			t.Fatal(err)
		}
		return
	}
	run(t, "", "ip", "link", "add", "hub", "type", "bridge")
	run(t, "", "ip", "link", "set", "hub", "up")
	var all []*exec.Cmd
	var inputs []io.Closer
	var outputs []*strings.Builder
	for i := 1; i <= n; i++ {
		p := exec.CommandContext(t.Context(), "/proc/self/exe")
		p.Env = append(os.Environ(), fmt.Sprintf("%s=server %d %d %s", copyRole, i, n, *way), "GOMAXPROCS=1", "GOMEMLIMIT=off")
		out := &strings.Builder{}
		p.Stdout, p.Stderr = out, os.Stderr
		p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		input, err := p.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		all, inputs, outputs = append(all, p), append(inputs, input), append(outputs, out)
		run(t, fmt.Sprintf("link add p%d type veth peer name eth0 netns %d\nlink set p%d master hub up\n", i, p.Process.Pid, i), "ip", "-batch", "-")
		run(t, fmt.Sprintf("link set lo up\naddress add %s/24 dev eth0\nlink set eth0 up\n", addr(i)), "nsenter", "-t", fmt.Sprint(p.Process.Pid), "-n", "ip", "-batch", "-")
	}
	for _, in := range inputs {
		in.Close()
	}
	var results []result
	for i, p := range all {
		if err := p.Wait(); err != nil {
			t.Errorf("server %d: %v", i+1, err)
		}
		var r result
		if err := json.Unmarshal([]byte(outputs[i].String()), &r); err != nil {
			t.Fatalf("server %d: %v: %s", i+1, err, outputs[i])
		}
		if r.Quorum == 0 {
			t.Errorf("server %d did not see a quorum: %d of %d at the end", i+1, r.InSightAtEnd, n)
		}
		results = append(results, r)
	}
	tell := func(what, unit string, per float64, of func(result) int64) {
		var values []int64
		for _, r := range results {
			values = append(values, of(r))
		}
		slices.Sort(values)
		f := func(v int64) float64 { return float64(v) / per }
		t.Logf("%d processes, %s: %-22s median %8.2f, least %8.2f, most %8.2f %s", n, *way, what, f(values[len(values)/2]), f(values[0]), f(values[len(values)-1]), unit)
	}
	tell("quorum in sight after", "s", 1e9, func(r result) int64 { return int64(r.Quorum) })
	tell("all in sight after", "s", 1e9, func(r result) int64 { return int64(r.All) })
	tell("resident memory", "MB", 1e3, func(r result) int64 { return r.RSS })
	tell("CPU until then", "s", 1e9, func(r result) int64 { return int64(r.CPU) })
	tell("sent until then", "KB", 1e3, func(r result) int64 { return r.Sent })
	tell("received until then", "KB", 1e3, func(r result) int64 { return r.Got })
	tell("packets until then", "", 1, func(r result) int64 { return r.SentPackets })
	tell("CPU at rest", "% of a core", 1e9/100*float64(results[0].CalmFor.Seconds()), func(r result) int64 { return int64(r.CalmCPU) })
	tell("sent at rest", "KB/s", 1e3*float64(results[0].CalmFor.Seconds()), func(r result) int64 { return r.CalmSent })
}

// raiseNeighbours makes room for everybody's neighbours for the length of the test:
// the kernel counts those of all namespaces together, 1,024 by default, and drops
// packets to any more.
func raiseNeighbours(t *testing.T) {
	t.Helper()
	const room = "100000"
	for _, name := range []string{"gc_thresh3", "gc_thresh2", "gc_thresh1"} {
		path := "/proc/sys/net/ipv4/neigh/default/" + name
		was, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(room), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, was, 0o644); err != nil {
				t.Error(err)
			}
		})
	}
}

func run(t *testing.T, input string, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}
