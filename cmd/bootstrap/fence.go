package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/plan"
)

const fenceHelp = `bootstrap fence is the last check before a unit starts. The units call it; you may too.

Usage: bootstrap fence check-init|check-kubelet|check-announce

Examples:
  bootstrap fence check-init      # may kubeadm init run on this server? if not, why

Exit codes: 0 it may start, 78 it may not, and a sentence says why.
`

func fenceCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("fence", fenceHelp, stdout)
	check := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		check, args = args[0], args[1:]
	}
	config := flags.String("config", layout.ClusterFile, "the cluster `file` of this server")
	if err := flags.parse(args); err != nil {
		return err
	}
	checks := map[string]func(bootstrap.Traces) error{
		"check-init":     bootstrap.CheckInit,
		"check-kubelet":  bootstrap.CheckStart,
		"check-announce": bootstrap.CheckStart,
	}
	may, ok := checks[check]
	if !ok {
		return flags.wrong(fmt.Errorf("unknown check %q: expected check-init, check-kubelet or check-announce", check))
	}
	traces, err := readTraces(serverPaths())
	readCards(readHardware, &traces)
	if err == nil && check == "check-init" {
		var c cluster.Cluster
		if c, err = readCluster(*config); err != nil {
			return err
		}
		err = readInitTraces(ctx, serverPaths(), c, &traces)
	}
	if err != nil {
		return exitError{exitConfig, err}
	}
	if err := may(traces); err != nil {
		return exitError{exitConfig, err}
	}
	return nil
}

// tracePaths are where the traces lie.
type tracePaths struct {
	elect, goStands, ca, adminConf, journal, buried string
}

func serverPaths() tracePaths {
	return tracePaths{
		elect: layout.Elect, goStands: layout.GoStands, ca: filepath.Join(layout.KubernetesPKI, "ca.crt"),
		adminConf: layout.AdminConf, journal: layout.Journal, buried: layout.Buried,
	}
}

// readTraces collects what every check decides on. What cannot be read is an
// error, never the same as not there: the checks would permit what they must not.
// Nothing else is read: a formed node must not stay down for a file that has no
// part in the decision. The journal has one where the state knows of no decree.
func readTraces(at tracePaths) (bootstrap.Traces, error) {
	var t bootstrap.Traces
	found, err := durable.Read(at.elect)
	if err != nil {
		return t, err
	}
	t.State = found.State
	if t.Buried, err = readBuried(at.buried); err != nil {
		return t, err
	}
	stands, err := readGoStands(at.goStands)
	if err != nil {
		return t, err
	}
	if stands != nil && t.State != nil && stands.Inst == t.State.Inst {
		t.Stands, t.StandsEpoch = true, stands.Epoch
	}
	ca, err := os.ReadFile(at.ca)
	if err == nil {
		if t.CAHash, err = plan.CAHash(ca); err != nil {
			return t, fmt.Errorf("%s: %w", at.ca, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return t, fmt.Errorf("reading the cluster CA: %w", err)
	}
	if s := t.State; s == nil || !s.IsSealed() && !s.HoldsGo() {
		return t, readHistory(at.journal, &t)
	}
	return t, nil
}

// readCards adds the network cards. Where they cannot be read the check does without:
// no formed node stays down for that, and the agent, which asks again until it knows,
// stops what must not run.
func readCards(hardware func() (device.Hardware, error), t *bootstrap.Traces) {
	if h, err := hardware(); err == nil {
		t.Cards = h.MACs
	}
}

// readBuried returns the mark that a disk carries another server's node, "" without.
func readBuried(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading whether this disk carries another server's node: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// readHistory adds what the journal remembers of kubeadm here. Who joins, joins a
// sealed cluster.
func readHistory(journal string, t *bootstrap.Traces) error {
	entries, err := durable.ReadJournal(journal)
	if err != nil {
		return err
	}
	t.InitStarted = durable.Last(entries, kubeadm.StepInit) != ""
	t.WasSealed = durable.Last(entries, bootstrap.StepSealed) == durable.Done || durable.Last(entries, kubeadm.StepJoin) != ""
	return nil
}

// readInitTraces adds what kubeadm init needs beside: the cluster file, what an
// earlier run left, and whether another cluster answers at the endpoint.
func readInitTraces(ctx context.Context, at tracePaths, c cluster.Cluster, t *bootstrap.Traces) error {
	t.SpecID, t.Endpoint = c.Spec.ID, c.Spec.Kubernetes.Endpoint.Address
	if _, err := os.Stat(at.adminConf); err == nil {
		t.AdminConf = true
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("looking for admin.conf: %w", err)
	}
	if err := readHistory(at.journal, t); err != nil {
		return err
	}
	ca, err := os.ReadFile(at.ca)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the cluster CA: %w", err)
	}
	t.OtherCA = otherCA(ctx, t.Endpoint, ca)
	return nil
}

// otherCA says whether the endpoint answers TLS with a certificate that the CA
// here did not sign. An Elastic IP on this server's own lo is not asked: it would
// answer for itself.
func otherCA(ctx context.Context, endpoint string, ca []byte) bool {
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil || onLo(host) {
		return false
	}
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	other := false
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The verdict is ours: which CA signed, not whether the name fits.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf := cs.PeerCertificates[0]
			_, err := leaf.Verify(x509.VerifyOptions{
				Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
				CurrentTime: leaf.NotBefore, // nor whether this server's clock is right
			})
			other = err != nil
			return nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", endpoint)
	if err == nil {
		_ = conn.Close()
	}
	return other
}

// onLo says whether an address is on this server's own lo.
func onLo(host string) bool {
	link, err := net.InterfaceByName("lo")
	if err != nil {
		return false
	}
	addrs, err := link.Addrs()
	if err != nil {
		return false
	}
	want, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == want
	})
}
