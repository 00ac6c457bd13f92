package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/artifact"
	"github.com/mustermetal/muster/pkg/bootstrap"
	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/host"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/rpc"
)

// artefacts is the cache of this server, and where it gets what it lacks.
type artefacts struct {
	*artifact.Store                 // of Kubernetes, and archives of images
	agents          *artifact.Store // programs of the agent
	joining         bool
	linked          chan struct{} // closed when givers may be called
	givers          func() []agent.Peer
	call            *rpc.Client
}

// mirrorPatience is how long a mirror may take to answer a request, or to let a
// connection be made.
const mirrorPatience = 30 * time.Second

func newArtefacts(c cluster.Cluster, log *slog.Logger) *artefacts {
	a := &artefacts{joining: c.Spec.Join.CA != "", linked: make(chan struct{})}
	mirrors := toMirrors()
	in := func(dir string) *artifact.Store {
		return &artifact.Store{Dir: dir, Baked: ownPrefix().BakedArtifacts(), Arch: runtime.GOARCH, Peers: a.peers, Free: host.Free, Now: time.Now, Log: log, HTTP: mirrors}
	}
	a.Store, a.agents = in(layout.Artifacts), in(layout.Agents)
	return a
}

// Open opens what is here of either, for another server.
func (a *artefacts) Open(sum string) (*os.File, error) {
	f, err := a.Store.Open(sum)
	if errors.Is(err, fs.ErrNotExist) {
		return a.agents.Open(sum)
	}
	return f, err
}

// toMirrors is how mirrors are asked.
func toMirrors() *http.Client {
	return &http.Client{Transport: &http.Transport{
		// The unit's environment is where an operator sets a proxy.
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: mirrorPatience}).DialContext,
		TLSHandshakeTimeout:   mirrorPatience,
		ResponseHeaderTimeout: mirrorPatience,
		DisableCompression:    true, // a digest is of the file as it lies there
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       time.Minute,
	}}
}

// link lets other servers be asked, once this one has a certificate of theirs.
func (a *artefacts) link(call *rpc.Client, givers func() []agent.Peer) {
	a.call, a.givers = call, givers
	close(a.linked)
}

// handler answers the agents' port.
func (a *artefacts) handler(server rpc.Serving, who rpc.Identify) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/artifacts/", rpc.ArtifactHandler(a.Open, who))
	mux.Handle("/", rpc.AgentHandler(server, who))
	return mux
}

// Peers: a few are enough, the mirrors come after them. A server that joins a
// formed cluster finds it within seconds, or not at all; one that founds has nobody
// to ask yet.
const (
	askedPeers   = 3
	peerPatience = 20 * time.Second
)

// peers are the servers of the formed cluster that this one may call.
func (a *artefacts) peers(ctx context.Context) []artifact.Peer {
	found := a.asked()
	if a.joining && len(found) == 0 {
		wait, cancel := context.WithTimeout(ctx, peerPatience)
		defer cancel()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for len(found) == 0 && wait.Err() == nil {
			select {
			case <-wait.Done():
			case <-tick.C:
				found = a.asked()
			}
		}
	}
	var out []artifact.Peer
	for _, p := range found[:min(len(found), askedPeers)] {
		out = append(out, artifact.Peer{Name: "server " + p.Address.String(), Open: func(ctx context.Context, sum string, offset int64) (io.ReadCloser, error) {
			return a.call.Artifact(ctx, p, sum, offset)
		}})
	}
	return out
}

func (a *artefacts) asked() []agent.Peer {
	select {
	case <-a.linked:
		return a.givers()
	default:
		return nil
	}
}

// giversOf are the other servers that know the cluster to be sealed, in an order
// of this server's own, so that not all of a rack ask the same.
func giversOf(inst string, seen []bootstrap.Peer) []agent.Peer {
	var out []agent.Peer
	for _, p := range seen {
		if p.Inst != inst && p.Sealed {
			out = append(out, agent.Peer{Inst: p.Inst, Address: p.Address})
		}
	}
	slices.SortFunc(out, func(a, b agent.Peer) int { return a.Address.Compare(b.Address) })
	if len(out) > 0 {
		var n int
		if _, err := fmt.Sscanf(inst[:min(4, len(inst))], "%x", &n); err == nil {
			n %= len(out)
			out = append(slices.Clone(out[n:]), out[:n]...)
		}
	}
	return out
}
