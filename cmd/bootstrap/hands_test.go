package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/announce"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/plan"
)

// The journal gets what helps a person; --debug adds what helps an engineer.
func TestLogLevel(t *testing.T) {
	for debug, want := range map[bool]string{
		false: "level=INFO msg=a\n",
		true:  "level=INFO msg=a\nlevel=DEBUG msg=b\n",
	} {
		var out strings.Builder
		log := newLog(&out, debug)
		log.Info("a")
		log.Debug("b")
		if out.String() != want {
			t.Errorf("debug %t: %q, expected %q", debug, out.String(), want)
		}
	}
}

// An instance that is bound to another key is refused on the wire, not retried as
// if the directory were away.
func TestBoundKeyIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	code := "key-taken"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, `{"code": %q, "error": "no"}`, code)
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		server.Close()
		<-done
	}()
	d := directoryUnit{client: directory.NewClient(path)}
	if err := d.BindKey(t.Context(), "inst", "hw", "key"); !errors.Is(err, agent.ErrRefused) || !errors.Is(err, directory.ErrKeyTaken) {
		t.Errorf("bound to another key: %v, expected %v", err, agent.ErrRefused)
	}
	code = "unavailable"
	if err := d.BindKey(t.Context(), "inst", "hw", "key"); err == nil || errors.Is(err, agent.ErrRefused) {
		t.Errorf("no leader of the directory: %v, expected an error that is tried again", err)
	}
}

// fakeUnit is the directory's unit: it notes what it is told.
type fakeUnit struct {
	waits bool
	told  []string
}

func (u *fakeUnit) Start(context.Context, string) error { u.told = append(u.told, "start"); return nil }
func (u *fakeUnit) Stop(context.Context, string) error  { u.told = append(u.told, "stop"); return nil }
func (u *fakeUnit) Restart(context.Context, string) error {
	u.told = append(u.told, "restart")
	return nil
}
func (u *fakeUnit) Activating(context.Context, string) (bool, error) {
	return u.waits, nil
}

// TestDirectoryFollowsItsPlan: a directory that waits for peers is started again
// when others came into sight, and one that runs another generation in any case.
func TestDirectoryFollowsItsPlan(t *testing.T) {
	dir := t.TempDir()
	unit := &fakeUnit{}
	d := directoryUnit{
		units: unit, client: directory.NewClient(filepath.Join(dir, "none.sock")), plan: filepath.Join(dir, "plan.json"), port: 9763,
		state: func() election.State { return election.State{} },
	}
	first, second := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.3")
	for _, step := range []struct {
		waits      bool
		generation uint64
		peers      []netip.Addr
		want       string
	}{
		{false, 0, []netip.Addr{first}, "start"},
		{true, 0, []netip.Addr{first}, "start"},
		{true, 0, []netip.Addr{first, second}, "restart"},
		{true, 0, []netip.Addr{second, first}, "start"},
		{false, 0, []netip.Addr{first}, "start"},
		{false, 1, []netip.Addr{first}, "restart"}, // the Lease says so
		{false, 1, []netip.Addr{first}, "start"},
	} {
		unit.waits, unit.told = step.waits, nil
		run := bootstrap.DirectoryRun{Address: netip.MustParseAddr("10.0.0.5"), Peers: step.peers}
		run.CAHash, run.Generation = "sha256:"+strings.Repeat("a", 64), step.generation
		err := d.Start(t.Context(), run)
		if err == nil || !strings.Contains(err.Error(), "none.sock") {
			t.Errorf("%v: %v, expected that nobody answers at the socket", step.peers, err)
		}
		if !slices.Equal(unit.told, []string{step.want}) {
			t.Errorf("waiting %t, peers %v: %v, expected %s", step.waits, step.peers, unit.told, step.want)
		}
	}
}

// TestSpeakerFollowsItsPlan: a speaker that runs takes another plan in place; one
// that does not know the order, from before an upgrade, starts again.
func TestSpeakerFollowsItsPlan(t *testing.T) {
	knows, reloads := true, 0
	socket := agentAt(t, func(w http.ResponseWriter, r *http.Request) {
		if !knows || r.Method != http.MethodPost || r.URL.Path != "/v1/reload" {
			http.NotFound(w, r)
			return
		}
		reloads++
		w.WriteHeader(http.StatusNoContent)
	})
	unit := &fakeUnit{}
	s := speaker{units: unit, client: announce.NewClient(socket), plan: filepath.Join(t.TempDir(), "announce.json")}
	p := plan.Announcement{Version: plan.AnnouncementVersion, RouterID: netip.MustParseAddr("10.99.14.9"), AS: 65000,
		Peers:     []plan.Peer{{Address: netip.MustParseAddr("169.254.255.1"), Source: netip.MustParseAddr("10.99.14.9"), AS: 65530}},
		HealthURL: "https://10.99.14.9:6443/readyz", HealthCA: "/etc/kubernetes/pki/ca.crt"}
	for _, tc := range []struct {
		name    string
		edit    func()
		told    []string
		reloads int
	}{
		{"the first plan", func() {}, []string{"start"}, 0},
		{"the same plan", func() {}, []string{"start"}, 0},
		{"another one", func() { p.Prefixes = []netip.Prefix{netip.MustParsePrefix("147.75.194.92/32")} }, []string{"start"}, 1},
		{"and one more, to an older speaker", func() { p.AS, knows = 65001, false }, []string{"start", "restart"}, 0},
	} {
		tc.edit()
		unit.told, reloads = nil, 0
		mustDo(t, s.Start(t.Context(), p))
		if !slices.Equal(unit.told, tc.told) || reloads != tc.reloads {
			t.Errorf("%s: the unit was told %v, the speaker to reload %d times; want %v and %d", tc.name, unit.told, reloads, tc.told, tc.reloads)
		}
		if got, err := announce.ReadPlan(s.plan); err != nil || got.AS != p.AS || !slices.Equal(got.Prefixes, p.Prefixes) {
			t.Errorf("%s: the plan on disk is %+v, %v", tc.name, got, err)
		}
	}
}

// Whatever is asked of a directory that does not answer, the answer is that it is
// not ready: commands end with 69, and other agents ask elsewhere.
func TestDirectoryAway(t *testing.T) {
	d := directoryUnit{client: directory.NewClient(filepath.Join(t.TempDir(), "sock"))}
	ctx := t.Context()
	for name, err := range map[string]error{
		"members": second(d.Members(ctx)), "records": second(d.Records(ctx)), "restore": d.Restore(ctx, nil),
		"approve": d.Approve(ctx, "hw"), "remove": second(d.Remove(ctx, "cp1", false)),
		"renew": d.RenewJoin(ctx, "inst", 1), "release": d.ReleaseJoin(ctx, "inst", 1),
	} {
		if !errors.Is(err, agent.ErrNotReady) || !errors.Is(err, directory.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestChanges(t *testing.T) {
	var got []bool
	report := changes(func(open bool) { got = append(got, open) })
	for _, one := range []struct {
		open bool
		why  string
	}{{false, "no answer"}, {false, "refused"}, {true, ""}, {true, "one probe failed"}, {true, ""}, {false, "no answer"}} {
		report(one.open, one.why)
	}
	if want := []bool{false, true, false}; !slices.Equal(got, want) {
		t.Errorf("changes are %v, want %v", got, want)
	}
}
