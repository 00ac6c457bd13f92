package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/mustermetal/muster/pkg/addons"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/plan"
)

// addOns applies the add-ons through the API server of this server.
type addOns struct {
	list       []cluster.Addon
	revision   uint64 // of the spec that has it
	kubernetes kubernetes
}

func (a addOns) Run(ctx context.Context, self bootstrap.Self, first bool, report func([]member.AddonStatus, error)) error {
	k := addons.Keeper{
		List: a.list, Revision: a.revision, Fetch: addons.Fetch, Inst: self.Inst, First: first, Now: time.Now, Store: addonState{a.kubernetes},
		Cluster: addons.Kubectl{
			Program: filepath.Join(ownPrefix().Bin(), "kubectl"), Kubeconfig: layout.AdminConf, CacheDir: layout.KubectlCache,
			Server: "https://" + netip.AddrPortFrom(self.Node.Private, plan.APIServerPort).String(),
		},
	}
	return k.Run(ctx, report)
}

// addonState keeps the state of the add-ons in a ConfigMap.
type addonState struct{ kubernetes kubernetes }

const addonStateKey = "state"

func (s addonState) Load(ctx context.Context) (text, version string, err error) {
	data, version, err := s.kubernetes.ConfigMap(ctx, addons.ConfigMap)
	return data[addonStateKey], version, err
}

func (s addonState) Save(ctx context.Context, text, version string) (next string, err error) {
	return s.kubernetes.WriteConfigMap(ctx, addons.ConfigMap, map[string]string{addonStateKey: text}, version)
}
