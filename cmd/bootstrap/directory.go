package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mustermetal/muster/pkg/directory"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/election"
	"github.com/mustermetal/muster/pkg/identity"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/systemd"
)

const directoryHelp = `bootstrap directory runs this control plane's copy of the directory: members, roles,
the order of joins. muster-directory.service starts it; the agent writes its plan.

Usage: bootstrap directory [flags]

Examples:
  systemctl status muster-directory      # whom it waits for
  journalctl -u muster-directory

Exit codes: 0 told to stop, 1 failed and may be started again, 69 the agent wrote no
plan or no keys yet, 78 it may not run as planned; a sentence says why.
`

// directoryFiles are the paths that the directory's process reads, and where its
// databases lie. root is where /etc/kubernetes lies: "/" on a server.
type directoryFiles struct {
	cluster, plan, keys, elect, data, root string
}

// directoryCommand runs the directory until it is told to stop. The plan says
// how to start but grants nothing: the right to make a directory comes from the
// election state, or from the Lease, which are read here again.
func directoryCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("directory", directoryHelp, stdout)
	files := directoryFiles{root: "/"}
	flags.StringVar(&files.cluster, "config", layout.ClusterFile, "the cluster `file` of this server")
	flags.StringVar(&files.plan, "plan", layout.DirectoryPlan, "the `file` that says whom to join; the agent writes it")
	flags.StringVar(&files.keys, "keys", layout.PKI, "the `directory` of the agent's certificate and key")
	flags.StringVar(&files.elect, "elect", layout.Elect, "the `directory` of the election state")
	flags.StringVar(&files.data, "data", layout.Directory, "the `directory` of the databases")
	socket := flags.String("socket", layout.DirectorySock, "the `path` of the socket that the agent talks to")
	if err := flags.parse(args); err != nil {
		return err
	}
	config, err := directoryConfig(ctx, files)
	if err != nil {
		return err
	}
	log := newLog(stderr, false)
	config.Log = log
	config.Socket = *socket
	config.Status = func(text string) { notifyOnce(log, systemd.Status(text)) }
	config.Ready = func() { notifyOnce(log, systemd.Ready()) }
	if err := os.MkdirAll(files.data, 0o700); err != nil {
		return fmt.Errorf("making the directory's place: %w", err)
	}
	err = directory.Run(ctx, config)
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil // told to stop while it waited
	case errors.Is(err, directory.ErrRefused), errors.Is(err, directory.ErrFalse):
		return exitError{exitConfig, err}
	}
	return err
}

// directoryConfig reads the plan, the keys and, where the plan says so, the right.
func directoryConfig(ctx context.Context, files directoryFiles) (directory.Config, error) {
	data, err := os.ReadFile(files.plan)
	if err != nil {
		return directory.Config{}, unavailable(fmt.Errorf("reading the directory's plan: %w (muster.service writes it after every boot)", err))
	}
	p, err := directory.ParsePlan(data)
	if err != nil {
		return directory.Config{}, exitError{exitConfig, fmt.Errorf("%s: %w", files.plan, err)}
	}
	ring, err := readKeyring(files.keys)
	if err != nil {
		return directory.Config{}, err
	}
	c := directory.Config{
		Dir:     directory.DataDir(files.data, p.Epoch, p.Generation),
		Address: p.Address, Peers: p.Peers, Epoch: p.Epoch, Generation: p.Generation, CAHash: p.CAHash,
	}
	c.Listen, c.Dial = ring.DirectoryConfigs()
	c.Inst = ring.Inst()
	c.PeerInst = func(cs tls.ConnectionState) (string, error) {
		inst, _, err := identity.PeerOf(cs)
		return inst, err
	}
	if !p.Bootstrap {
		return c, nil
	}
	if p.Generation == 0 {
		c.Right, err = readRight(files, ring.Inst())
		return c, err
	}
	// A database that is there needs neither right nor Kubernetes.
	if there, err := c.Complete(); err != nil || there {
		return c, err
	}
	c.Right, c.Rows, err = readLeaseRight(ctx, files, ring.Inst(), p.Generation)
	return c, err
}

// readRight reads the election state for itself. A cluster that was sealed since
// the plan was written gives no right, and needs none: its directory exists.
func readRight(files directoryFiles, inst string) (*directory.Right, error) {
	state, specID, err := readElection(files)
	if err != nil || state.IsSealed() {
		return nil, err
	}
	if state.Inst != inst {
		return nil, exitError{exitConfig, fmt.Errorf("%w: the election state is of instance %s, the agent's certificate of %s",
			directory.ErrRefused, state.Inst, inst)}
	}
	right, err := directory.RightOfGo(state, specID)
	if err != nil {
		return nil, exitError{exitConfig, err}
	}
	return &right, nil
}

// readLeaseRight asks Kubernetes whether this instance may make a generation, and
// if so with which rows. No right is no error: the directory is then joined.
func readLeaseRight(ctx context.Context, files directoryFiles, inst string, generation uint64) (*directory.Right, []member.Record, error) {
	state, specID, err := readElection(files)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // three calls of 10 s each, at most
	defer cancel()
	api, err := kubeadm.OpenAdmin(files.root)
	if err != nil {
		return nil, nil, err
	}
	lease, found, err := api.Lease(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !found || lease.Generation != generation || !lease.Mine(inst) {
		return nil, nil, nil
	}
	right, err := directory.RightOfLease(state, specID, lease)
	if err != nil {
		return nil, nil, exitError{exitConfig, err}
	}
	records, err := api.Mirrored(ctx)
	if err != nil {
		return nil, nil, err
	}
	nodes, err := api.ClusterNodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	return &right, plan.Refill(records, nodes), nil
}

// readElection reads the state of the election and the cluster that this server
// is for.
func readElection(files directoryFiles) (election.State, string, error) {
	cluster, err := readCluster(files.cluster)
	if err != nil {
		return election.State{}, "", err
	}
	found, err := durable.Read(files.elect)
	if err != nil {
		return election.State{}, "", err
	}
	if found.Origin != durable.Loaded {
		what := string(found.Origin)
		if found.Text != "" {
			what += ": " + found.Text
		}
		return election.State{}, "", exitError{exitConfig, fmt.Errorf("%w: the plan says that this server may make the directory, but its election state in %s is %s",
			directory.ErrRefused, files.elect, what)}
	}
	return *found.State, cluster.Spec.ID, nil
}

// readKeyring reads the agent CA and this server's leaf of it.
func readKeyring(dir string) (*identity.Keyring, error) {
	var pem [3][]byte
	for i, name := range []string{agentCAFile, leafFile, leafKeyFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, unavailable(fmt.Errorf("reading the agent's keys: %w (muster.service gets them when it enrols)", err))
		}
		pem[i] = data
	}
	ring, err := identity.ParseKeyring(pem[0], pem[1], pem[2])
	if err != nil {
		return nil, exitError{exitConfig, fmt.Errorf("agent's keys in %s: %w", dir, err)}
	}
	return ring, nil
}

// unavailable gives an error of a file that is not there yet its exit code.
func unavailable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return exitError{exitUnavailable, err}
	}
	return err
}
