package main

import (
	"context"
	"errors"

	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/durable"
	"github.com/mustermetal/muster/pkg/kubeadm"
	"github.com/mustermetal/muster/pkg/plan"
	"github.com/mustermetal/muster/pkg/systemd"
)

// kubernetes is kubeadm as the flow sees it: a node that muster did not make
// ends the attempts.
type kubernetes struct{ *kubeadm.Kubeadm }

func newKubernetes(c cluster.Cluster, units *systemd.Manager, journal *durable.Journal) kubernetes {
	return kubernetes{&kubeadm.Kubeadm{Cluster: c, Units: units, Journal: journal, Write: durable.WriteFile, Flush: durable.Flush, WriteThrough: durable.WriteThrough, Root: "/"}}
}

func (k kubernetes) Init(ctx context.Context, n plan.Node) error {
	return final(k.Kubeadm.Init(ctx, n))
}

func (k kubernetes) Join(ctx context.Context, n plan.Node, j plan.Join) error {
	return final(k.Kubeadm.Join(ctx, n, j))
}

func final(err error) error {
	if errors.Is(err, kubeadm.ErrNotOurs) {
		return bootstrap.Permanent(err)
	}
	return err
}
