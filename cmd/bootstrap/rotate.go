package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/rpc"
	"github.com/mustermetal/muster/pkg/systemd"
)

const rotateHelp = `bootstrap rotate changes the secret of the cluster on this server, in three steps. Each is
done on every server before the next begins on any:

  accept   it takes the new secret from others, and uses the old one itself
  use      it uses the new one, and takes the old one from others
  forget   it takes the new one alone

So all servers hear and enrol each other at every moment. A step rewrites
/etc/muster/cluster.yaml and starts muster.service anew; Kubernetes, addresses and routes
go on. userdata rotate makes the new secret, which is read from standard input.

use refuses while a server in sight does not take the new secret, forget while one uses
the old one. Who is off takes its steps when it is back; after forget the others do not
hear it before.

Without --yes it only says what would happen.

Usage: bootstrap rotate accept|use|forget [--secret FILE] [--yes]

Examples:
  for s in cp1 cp2 cp3 w1 w2; do ssh root@$s bootstrap rotate accept --yes < k8s-bgp.secret; done
  for s in cp1 cp2 cp3 w1 w2; do ssh root@$s bootstrap rotate use --yes < k8s-bgp.secret; done
  for s in cp1 cp2 cp3 w1 w2; do ssh root@$s bootstrap rotate forget --yes < k8s-bgp.secret; done

Exit codes: 0 done, or there was nothing to do, 64 wrong command line, 65 what was read is
no secret, 69 the agent does not answer, 77 refused, and a sentence says why, or not root.
`

// Steps of a rotation.
const (
	rotateAccept = "accept"
	rotateUse    = "use"
	rotateForget = "forget"
)

func rotateCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("rotate", rotateHelp, stdout)
	from := flags.String("secret", "-", "the `file` with the new secret; - reads standard input")
	yes := flags.Bool("yes", false, "do it")
	config := flags.String("config", layout.ClusterFile, "the cluster `file` of this server")
	socket := flags.String("socket", layout.Socket, "the `path` of the agent's socket")
	step, err := flags.parseOperand(args)
	if err != nil {
		return err
	}
	if step != rotateAccept && step != rotateUse && step != rotateForget {
		return flags.wrong(fmt.Errorf("which step? expected accept, use or forget, got %q", step))
	}
	c, err := readCluster(*config)
	if err != nil {
		return err
	}
	secret, err := readNewSecret(*from)
	if err != nil {
		return err
	}
	r := rotation{
		step: step, secret: secret, yes: *yes, out: stdout,
		servers: func(ctx context.Context) ([]member.Status, error) {
			list, err := readStatus(ctx, *socket)
			return list.Servers, err
		},
		ask: askByRing,
		write: func(ctx context.Context, c cluster.Cluster) error {
			return rewrite(ctx, filepath.Clean(*config), c)
		},
	}
	if found, err := durable.Read(layout.Elect); err == nil && found.State != nil {
		r.inst = found.State.Inst
	}
	return r.run(ctx, c)
}

func readNewSecret(path string) (cluster.Secret, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(os.Stdin, 64<<10))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return "", exitError{exitData, fmt.Errorf("reading the new secret: %w", err)}
	}
	secret, err := cluster.ParseSecret(data)
	if err != nil {
		return "", exitError{exitData, fmt.Errorf("the new secret: %w", err)}
	}
	return secret, nil
}

// rotation is one run of the command.
type rotation struct {
	step    string
	secret  cluster.Secret // the new one
	yes     bool
	inst    string // of this server
	out     io.Writer
	servers func(ctx context.Context) ([]member.Status, error)
	// ask calls a server's enrolment port with the certificate of a keyring.
	ask   func(ctx context.Context, c cluster.Cluster, ring *identity.Keyring, s member.Status) error
	write func(ctx context.Context, c cluster.Cluster) error
}

func (r rotation) run(ctx context.Context, c cluster.Cluster) error {
	next, err := rotated(c, r.step, r.secret)
	if err != nil {
		return exitError{exitPermission, err}
	}
	if next.Secret == c.Secret && next.AcceptSecret == c.AcceptSecret {
		fmt.Fprintf(r.out, "Nothing to do: this server has taken the step %s.\n", r.step)
		return nil
	}
	if r.step != rotateAccept {
		if err := r.ready(ctx, c); err != nil {
			return err
		}
	}
	fmt.Fprintln(r.out, map[string]string{
		rotateAccept: "The new secret is taken from other servers; the old one is used here.",
		rotateUse:    "The new secret is used here; the old one is taken from other servers.",
		rotateForget: "The old secret is forgotten here.",
	}[r.step])
	if !r.yes {
		fmt.Fprintln(r.out, "Nothing was done: add --yes to do it.")
		return nil
	}
	return r.write(ctx, next)
}

// rotated is the cluster file of a server after a step; the same when it has taken
// it.
func rotated(c cluster.Cluster, step string, secret cluster.Secret) (cluster.Cluster, error) {
	uses, accepts := c.Secret == secret, c.AcceptSecret == secret
	switch {
	case step == rotateAccept && (uses || accepts), step == rotateUse && uses, step == rotateForget && uses && c.AcceptSecret == "":
	case step == rotateAccept && c.AcceptSecret != "":
		return c, errors.New("another change of the secret has begun here, to or from a third one: end it first, on every server, with the secret that it is about (use, then forget)")
	case step == rotateAccept:
		c.AcceptSecret = secret
	case step == rotateUse && !accepts:
		return c, errors.New("this server does not take the new secret yet: bootstrap rotate accept comes first, on every server")
	case step == rotateUse:
		c.Secret, c.AcceptSecret = secret, c.Secret
	case !uses:
		return c, errors.New("this server does not use the new secret yet: bootstrap rotate use comes first, on every server")
	default:
		c.AcceptSecret = ""
	}
	return c, nil
}

// ready asks every other server in sight whether it is as far as the step needs, in
// the way that counts: by a handshake with the new secret.
func (r rotation) ready(ctx context.Context, c cluster.Cluster) error {
	servers, err := r.servers(ctx)
	if err != nil {
		return err
	}
	var behind []string
	self := identity.Subject{Inst: r.inst}
	for _, s := range servers {
		if s.Inst == r.inst {
			self.HW = s.HW
		}
	}
	for _, s := range servers {
		if s.Inst == r.inst || s.Inst == "" || !s.Address.IsValid() {
			continue
		}
		if s.Time.IsZero() {
			fmt.Fprintf(r.out, "%s does not answer: it takes its steps when it is back.\n", s.Name)
			continue
		}
		ring, err := r.ring(c, self)
		if err != nil {
			return err
		}
		if err := r.ask(ctx, c, ring, s); err != nil {
			behind = append(behind, fmt.Sprintf("%s (%v)", s.Name, err))
		}
	}
	if len(behind) == 0 {
		return nil
	}
	err = fmt.Errorf("these do not take the new secret yet: bootstrap rotate accept comes first, on every server: %s", strings.Join(behind, "; "))
	if r.step == rotateForget {
		err = fmt.Errorf("these do not use the new secret yet: bootstrap rotate use comes first, on every server: %s", strings.Join(behind, "; "))
	}
	return exitError{exitPermission, err}
}

// ring shows a certificate by the new secret. Before use the other side may show one
// by either, before forget by the new one only.
func (r rotation) ring(c cluster.Cluster, self identity.Subject) (*identity.Keyring, error) {
	secrets := []cluster.Secret{r.secret}
	if r.step == rotateUse {
		secrets = append(secrets, c.Secret)
	}
	var roots []identity.Keys
	for _, s := range secrets {
		keys, err := identity.Derive(s, c.Spec.ID)
		if err != nil {
			return nil, err
		}
		roots = append(roots, keys)
	}
	return enrolmentRing(roots[0], roots, self)
}

func askByRing(ctx context.Context, c cluster.Cluster, ring *identity.Keyring, s member.Status) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := rpc.NewClient(c.Spec.Ports.Enrolment, func(inst string) *tls.Config { return ring.ClientConfig(inst) }, identify)
	_, err := client.Status(ctx, agent.Peer{Inst: s.Inst, Address: s.Address})
	return err
}

// rewrite replaces the cluster file and starts the agent anew, which reads it once.
func rewrite(ctx context.Context, path string, c cluster.Cluster) error {
	data, err := cluster.Marshal(c)
	if err != nil {
		return err
	}
	units, err := systemd.Open(ctx, layout.UnitDir, durable.WriteFile)
	if err != nil {
		return err
	}
	defer units.Close()
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing the cluster file: %w", err)
	}
	if err := units.Restart(ctx, layout.UnitAgent); err != nil {
		return fmt.Errorf("the cluster file is written, but the agent was not started anew: %w (systemctl restart muster)", err)
	}
	return nil
}
