package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/supervise"
)

// TestLines: links, metadata and routes of each stack, with the real ToR and servers
// that are nothing but their network.
func TestLines(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if _, err := exec.LookPath("bird"); err != nil {
		t.Skip("bird is not installed: apt-get install bird2")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "rig")
	r, err := New(ctx, Options{Name: fmt.Sprintf("lines%d", os.Getpid()), Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Destroy(context.Background(), dir, nil); err != nil {
			t.Error(err)
		}
	})
	for i, stack := range []Stack{IPv4, DualStack, IPv6} {
		t.Run(string(stack), func(t *testing.T) {
			s, err := r.Add(ServerOptions{Name: fmt.Sprintf("s%d", i+1), Stack: stack})
			if err != nil {
				t.Fatal(err)
			}
			testLine(ctx, t, r, s)
		})
	}
}

func testLine(ctx context.Context, t *testing.T, r *Rig, s *Server) {
	if err := s.configure(nil); err != nil {
		t.Fatal(err)
	}
	var c supervise.Config
	data, err := os.ReadFile(s.path("supervise.json"))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, argv := range c.Wire {
		if _, err := machine.Output(ctx, argv...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, argv := range s.unwire() {
			if _, err := machine.Output(context.Background(), argv...); err != nil {
				t.Error(err)
			}
		}
	})
	out, err := machine.Output(ctx, machine.InNetns(s.machine(), "curl", "-sS", "--fail", "-m", "5", s.Stack.metadataURL()+"/metadata")...)
	if err != nil || !strings.Contains(out, `"hostname": "`+s.Name+`"`) || strings.Count(out, "customer_ip") != len(s.Lines()) {
		t.Errorf("metadata of %s: %v: %s", s.Name, err, out)
	}
	for _, l := range s.Lines() {
		hops, err := r.ToR().NextHops(ctx, l.Pods)
		if err != nil || len(hops) != 1 || hops[0] != l.Addr {
			t.Errorf("pods %s of %s are routed to %v (%v), expected %s", l.Pods, s.Name, hops, err, l.Addr)
		}
		for router := range l.Routers {
			if hops, err := r.ToR().RouterNextHops(ctx, router, l.ElasticIP); err != nil || len(hops) > 0 {
				t.Errorf("router %d sends %s, which nobody announces, to %v (%v)", router, l.ElasticIP, hops, err)
			}
		}
		if !answers(ctx, r.torName(), l.Addr) {
			t.Errorf("the ToR does not reach %s of %s", l.Addr, s.Name)
		}
	}
}

// answers says whether an address answers a TCP connection from a namespace, were it
// with a refusal, which is curl's exit status 7 within a moment.
func answers(ctx context.Context, netns string, a netip.Addr) bool {
	argv := machine.InNetns(netns, "curl", "-s", "-m", "5", "http://"+netip.AddrPortFrom(a, 9).String()+"/")
	began := time.Now()
	_, err := machine.Output(ctx, argv...)
	return err != nil && time.Since(began) < 4*time.Second
}
