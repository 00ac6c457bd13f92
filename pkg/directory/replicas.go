package directory

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/canonical/go-dqlite/client"
)

// leader connects to the node that leads.
func (n *node) leader(ctx context.Context) (*client.Client, error) {
	store := nodesFile(filepath.Join(n.config.Dir, nodesYAML))
	cli, err := client.FindLeader(ctx, store, client.WithDialFunc(dialer(n.config.dialling())), client.WithLogFunc(logFunc(n.config.Log)))
	if err != nil {
		return nil, fmt.Errorf("find the directory's leader: %w", err)
	}
	return cli, nil
}

// look lists the nodes and tries each.
func (n *node) look(ctx context.Context) ([]replica, error) {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	cli, err := n.leader(ctx)
	if err != nil {
		return nil, err
	}
	defer cli.Close() //nolint:errcheck // only read from
	leader, err := cli.Leader(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask who leads the directory: %w", err)
	}
	list, err := cli.Cluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the directory's nodes: %w", err)
	}
	out := make([]replica, len(list))
	var all sync.WaitGroup
	for i, m := range list {
		out[i] = replica{id: m.ID, address: m.Address, role: m.Role, leader: m.ID == leader.ID}
		all.Go(func() { out[i].answers = n.answers(ctx, m.Address) })
	}
	all.Wait()
	return out, nil
}

// answers says whether the process of a node speaks.
func (n *node) answers(ctx context.Context, address string) bool {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cli, err := client.New(ctx, address, client.WithDialFunc(dialer(n.config.dialling())), client.WithLogFunc(logFunc(n.config.Log)))
	if err != nil {
		return false
	}
	defer cli.Close() //nolint:errcheck // only read from
	_, err = cli.Leader(ctx)
	return err == nil
}

func (n *node) lead(ctx context.Context, id uint64) error {
	cli, err := n.leader(ctx)
	if err != nil {
		return err
	}
	defer cli.Close() //nolint:errcheck // the answer is there
	return cli.Transfer(ctx, id)
}

func (n *node) expel(ctx context.Context, id uint64) error {
	cli, err := n.leader(ctx)
	if err != nil {
		return err
	}
	defer cli.Close() //nolint:errcheck // the answer is there
	n.config.Log.InfoContext(ctx, "removing the node of a member that was removed", "id", id)
	return cli.Remove(ctx, id)
}

// addressOf is the address of a node without its port.
func addressOf(node string) (netip.Addr, error) {
	at, err := netip.ParseAddrPort(node)
	return at.Addr(), err
}
