package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/member"
)

const (
	oldSecret   = cluster.Secret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	newSecret   = cluster.Secret("BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	thirdSecret = cluster.Secret("CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
)

// TestRotated: each step from each state. A step that was taken is no error, so that
// a loop over servers can be run again.
func TestRotated(t *testing.T) {
	before, accepting := cluster.Cluster{Secret: oldSecret}, cluster.Cluster{Secret: oldSecret, AcceptSecret: newSecret}
	using, after := cluster.Cluster{Secret: newSecret, AcceptSecret: oldSecret}, cluster.Cluster{Secret: newSecret}
	third := cluster.Cluster{Secret: oldSecret, AcceptSecret: thirdSecret}
	for _, row := range []struct {
		step       string
		from, want cluster.Cluster
		refused    string
	}{
		{rotateAccept, before, accepting, ""},
		{rotateAccept, accepting, accepting, ""},
		{rotateAccept, using, using, ""},
		{rotateAccept, after, after, ""},
		{rotateAccept, third, third, "another change of the secret has begun here"},
		{rotateUse, before, before, "bootstrap rotate accept comes first"},
		{rotateUse, accepting, using, ""},
		{rotateUse, using, using, ""},
		{rotateUse, after, after, ""},
		{rotateUse, third, third, "bootstrap rotate accept comes first"},
		{rotateForget, before, before, "bootstrap rotate use comes first"},
		{rotateForget, accepting, accepting, "bootstrap rotate use comes first"},
		{rotateForget, using, after, ""},
		{rotateForget, after, after, ""},
	} {
		got, err := rotated(row.from, row.step, newSecret)
		if got.Secret != row.want.Secret || got.AcceptSecret != row.want.AcceptSecret {
			t.Errorf("%s from %s/%s: %s/%s", row.step, row.from.Secret.Reveal(), row.from.AcceptSecret.Reveal(), got.Secret.Reveal(), got.AcceptSecret.Reveal())
		}
		if (err == nil) != (row.refused == "") || err != nil && !strings.Contains(err.Error(), row.refused) {
			t.Errorf("%s: %v, want %q", row.step, err, row.refused)
		}
	}
}

// enrolmentPort serves status as a server with these secrets does.
func enrolmentPort(t *testing.T, c cluster.Cluster, inst string) netip.AddrPort {
	t.Helper()
	keys, accept, err := deriveKeys(c)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := openTrust(t.TempDir(), keys, accept, c.Spec.ID, identity.Subject{Inst: inst, HW: id("d")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", tr.enrolment.ServerConfig())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(member.Status{})
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// TestRotationAsksTheOthers: with real handshakes, a step is taken only when the
// server beside this one is as far as the step needs.
func TestRotationAsksTheOthers(t *testing.T) {
	spec := cluster.Spec{ID: trustSpec}
	before, accepting := cluster.Cluster{Spec: spec, Secret: oldSecret}, cluster.Cluster{Spec: spec, Secret: oldSecret, AcceptSecret: newSecret}
	using, after := cluster.Cluster{Spec: spec, Secret: newSecret, AcceptSecret: oldSecret}, cluster.Cluster{Spec: spec, Secret: newSecret}
	for _, row := range []struct {
		name, step  string
		own, others cluster.Cluster
		refused     string
	}{
		{"accept asks nobody", rotateAccept, before, before, ""},
		{"use while one does not accept", rotateUse, accepting, before, "these do not take the new secret yet: bootstrap rotate accept comes first, on every server: w1 ("},
		{"use while all accept", rotateUse, accepting, accepting, ""},
		{"use after the other", rotateUse, accepting, using, ""},
		{"forget while one does not use", rotateForget, using, accepting, "these do not use the new secret yet: bootstrap rotate use comes first, on every server: w1 ("},
		{"forget while all use", rotateForget, using, using, ""},
		{"forget after the other", rotateForget, using, after, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			at := enrolmentPort(t, row.others, id("c"))
			row.own.Spec.Ports.Enrolment = at.Port()
			var wrote *cluster.Cluster
			var out bytes.Buffer
			now := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
			r := rotation{
				step: row.step, secret: newSecret, yes: true, inst: id("a"), out: &out, ask: askByRing,
				servers: func(context.Context) ([]member.Status, error) {
					return []member.Status{
						{Member: member.Member{Inst: id("a"), HW: id("b"), Name: "cp1", Address: at.Addr()}, Time: now},
						{Member: member.Member{Inst: id("c"), HW: id("d"), Name: "w1", Address: at.Addr()}, Time: now},
						{Member: member.Member{Inst: id("e"), HW: id("f"), Name: "w2", Address: at.Addr()}}, // off
					}, nil
				},
				write: func(_ context.Context, c cluster.Cluster) error { wrote = &c; return nil },
			}
			err := r.run(t.Context(), row.own)
			if row.refused != "" {
				var coded exitError
				if !errors.As(err, &coded) || coded.code != exitPermission || !strings.Contains(err.Error(), row.refused) || wrote != nil {
					t.Errorf("%v, wrote %v", err, wrote)
				}
				return
			}
			want, _ := rotated(row.own, row.step, newSecret)
			if err != nil || wrote == nil || wrote.Secret != want.Secret || wrote.AcceptSecret != want.AcceptSecret {
				t.Errorf("%v, wrote %v", err, wrote)
			}
			if off := strings.Contains(out.String(), "w2 does not answer"); off != (row.step != rotateAccept) {
				t.Errorf("of the server that is off: %s", &out)
			}
			for _, secret := range []cluster.Secret{oldSecret, newSecret} {
				if strings.Contains(out.String(), secret.Reveal()) {
					t.Errorf("a secret is shown: %s", &out)
				}
			}
			// Again, and without --yes: nothing is written.
			r.yes, wrote = false, nil
			if err := errors.Join(r.run(t.Context(), row.own), r.run(t.Context(), want)); err != nil || wrote != nil || !strings.Contains(out.String(), "Nothing was done") || !strings.Contains(out.String(), "Nothing to do") {
				t.Errorf("%v, %v, %s", err, wrote, &out)
			}
		})
	}
}

// TestRotateCommandLine: what is said of a wrong one, and of what is no secret.
func TestRotateCommandLine(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "secret")
	if err := os.WriteFile(bad, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "cluster.yaml")
	c, problems := cluster.Parse("template", cluster.Template("demo", trustSpec, 5, 3))
	if err := cluster.Err(problems); err != nil {
		t.Fatal(err)
	}
	c.Secret = oldSecret
	data, err := cluster.Marshal(c)
	if err = errors.Join(err, os.WriteFile(config, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "which step? expected accept, use or forget"},
		{[]string{"begin"}, exitUsage, `got "begin"`},
		{[]string{"accept", "use"}, exitUsage, "unexpected argument"},
		{[]string{"accept", "--config", "missing"}, exitConfig, "reading the cluster file"},
		{[]string{"accept", "--config", config, "--secret", bad}, exitData, "the secret is not base64"},
		{[]string{"accept", "--config", config, "--secret", filepath.Join(dir, "none")}, exitData, "reading the new secret"},
	} {
		var out, talk bytes.Buffer
		if code := run(t.Context(), append([]string{"rotate"}, row.args...), &out, &talk); code != row.code || !strings.Contains(talk.String(), row.want) || strings.Contains(talk.String(), "hunter2") {
			t.Errorf("%v: exit code %d, want %d: %s", row.args, code, row.code, &talk)
		}
	}
}
