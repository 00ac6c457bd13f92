package discovery

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// What a copy of this test binary does, in a network namespace of its own.
const copyRole = "MUSTER_DISCOVERY_TEST"

func TestMain(m *testing.M) {
	address, answers := strings.CutPrefix(os.Getenv(copyRole), "answer ")
	switch {
	case answers:
		answerAs(address)
	case os.Getenv(copyRole) != "":
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %s", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	cmd := namespaced("tests", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a network namespace:", err)
		os.Exit(1)
	}
}

// namespaced is a copy of this test binary in a new network namespace.
func namespaced(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), copyRole+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// answerAs waits until its link is there, which the end of its input tells, and
// answers until it is interrupted.
func answerAs(address string) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := Multicast{Self: netip.MustParseAddr(address), Label: "ours", Inst: strings.Repeat("a", 32), Port: 9760}.Answer(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Two servers on one link, in namespaces with real multicast.
func TestMulticast(t *testing.T) {
	if os.Getenv(copyRole) == "" {
		t.Skip("multicast is tested as root only, in network namespaces")
	}
	ip := func(lines string) {
		t.Helper()
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(lines)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip: %v: %s", err, out)
		}
	}
	find := func(self, label string) (found []netip.Addr, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err = Multicast{Self: at(self), Label: label}.Find(ctx, func(a netip.Addr) { found = append(found, a) })
		return found, err
	}
	for i, row := range []struct{ near, far string }{{"10.99.14.9/24", "10.99.14.11/24"}, {"fd00::9/64", "fd00::b/64"}} {
		t.Run(row.far, func(t *testing.T) {
			self, there := netip.MustParsePrefix(row.near).Addr().String(), netip.MustParsePrefix(row.far).Addr().String()
			other := namespaced("answer " + there)
			var said strings.Builder
			other.Stderr = &said
			input, err := other.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			ip(strings.ReplaceAll(fmt.Sprintf("link add nearI type veth peer name farI netns %d\nlink set nearI up", other.Process.Pid), "I", fmt.Sprint(i)))
			inside := strings.ReplaceAll("ip link set farI up && ip address add "+row.far+" dev farI nodad", "I", fmt.Sprint(i))
			if out, err := exec.Command("nsenter", "-t", fmt.Sprint(other.Process.Pid), "-n", "sh", "-c", inside).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			ip(fmt.Sprintf("address add %s dev near%d nodad", row.near, i))
			input.Close()
			var found []netip.Addr
			for began := time.Now(); len(found) == 0 && time.Since(began) < 10*time.Second; { // link and process start
				found, err = find(self, "ours")
			}
			if err != nil || !slices.Equal(found, addrs(there)) {
				t.Errorf("found %v, %v; want %s", found, err, there)
			}
			if found, err := find(self, "theirs"); err != nil || found != nil {
				t.Errorf("found %v of another cluster, %v", found, err)
			}
			_ = other.Process.Signal(os.Interrupt)
			if err := other.Wait(); err != nil {
				t.Errorf("who answered ended with %v: %s", err, said.String())
			}
		})
	}
	if err := (Multicast{Self: at("10.0.0.1")}).Find(t.Context(), nil); err == nil || err.Error() != "no link has the private address 10.0.0.1" {
		t.Errorf("without a link: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	answer := new(dns.Msg)
	for _, text := range []string{`x.local. 1 IN TXT "ours"`, "x.local. 1 IN A 10.99.14.11", "x.local. 1 IN AAAA fd00::b"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		answer.Answer = append(answer.Answer, rr)
	}
	packet, err := answer.Pack()
	if err != nil {
		f.Fatal(err)
	}
	m := Multicast{Self: at("10.99.14.9"), Label: "ours"}
	if got := m.read(packet); !slices.Equal(got, addrs("10.99.14.11", "fd00::b")) {
		f.Errorf("read %v", got)
	}
	f.Add(packet)
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, a := range m.read(packet) {
			if !a.IsValid() {
				t.Error("an invalid address")
			}
		}
	})
}
