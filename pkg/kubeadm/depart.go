package kubeadm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mustermetal/muster/pkg/plan"
)

// healthPatience is for one etcd member to say that it is healthy; one that has no
// leader takes longer and is not.
const healthPatience = 3 * time.Second

// etcdGateway is the JSON gateway of the etcd of this server.
type etcdGateway struct {
	client *http.Client
	base   string // https://address:port
}

func (k *Kubeadm) etcdGateway() (etcdGateway, error) {
	at, err := localServer(k.Root)
	if err != nil {
		return etcdGateway{}, err
	}
	client, err := k.etcdClient()
	return etcdGateway{client: client, base: strings.TrimSuffix(etcdURL(at), memberList)}, err
}

// EtcdMembers lists the members of etcd and asks each whether it is healthy.
func (k *Kubeadm) EtcdMembers(ctx context.Context) ([]plan.EtcdMember, error) {
	g, err := k.etcdGateway()
	if err != nil {
		return nil, err
	}
	defer g.client.CloseIdleConnections()
	return g.members(ctx)
}

// EtcdHas says whether etcd has a member of a node's name or at its address, learner
// or voter, as its majority knows at this moment: the one asked may be behind.
func (k *Kubeadm) EtcdHas(ctx context.Context, node string, address netip.Addr) (bool, error) {
	g, err := k.etcdGateway()
	if err != nil {
		return false, err
	}
	defer g.client.CloseIdleConnections()
	return g.has(ctx, node, address)
}

// RemoveEtcdMember takes a member out, unless it is gone.
func (k *Kubeadm) RemoveEtcdMember(ctx context.Context, id uint64) error {
	g, err := k.etcdGateway()
	if err != nil {
		return err
	}
	defer g.client.CloseIdleConnections()
	return g.remove(ctx, id)
}

// has asks for the list that a majority agrees on, which members does not, so that
// the list is to be had without one, too.
func (g etcdGateway) has(ctx context.Context, node string, address netip.Addr) (bool, error) {
	var list struct {
		Members []struct {
			Name     string   `json:"name"` // empty until it has started once
			PeerURLs []string `json:"peerURLs"`
		} `json:"members"`
	}
	if err := g.ask(ctx, memberList, map[string]bool{"linearizable": true}, &list); err != nil {
		return false, err
	}
	for _, x := range list.Members {
		if x.Name == node || peerAddress(x.PeerURLs) == address {
			return true, nil
		}
	}
	return false, nil
}

// peerAddress is where the other members reach one.
func peerAddress(urls []string) (at netip.Addr) {
	for _, peer := range urls {
		if u, err := url.Parse(peer); err == nil {
			at, _ = netip.ParseAddr(u.Hostname())
		}
	}
	return at
}

func (g etcdGateway) members(ctx context.Context) ([]plan.EtcdMember, error) {
	var list struct {
		Members []struct {
			ID         string   `json:"ID"`
			Name       string   `json:"name"`
			PeerURLs   []string `json:"peerURLs"`
			ClientURLs []string `json:"clientURLs"`
			IsLearner  bool     `json:"isLearner"`
		} `json:"members"`
	}
	if err := g.ask(ctx, memberList, struct{}{}, &list); err != nil {
		return nil, err
	}
	out := make([]plan.EtcdMember, 0, len(list.Members))
	for _, x := range list.Members {
		id, err := strconv.ParseUint(x.ID, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("reading etcd's members: the id %q is no number", x.ID)
		}
		m := plan.EtcdMember{ID: id, Name: x.Name, Address: peerAddress(x.PeerURLs), Learner: x.IsLearner}
		for _, at := range x.ClientURLs {
			m.Healthy = m.Healthy || g.healthy(ctx, at)
		}
		out = append(out, m)
	}
	return out, nil
}

// healthy asks a member for its health, which includes that it knows a leader.
func (g etcdGateway) healthy(ctx context.Context, at string) bool {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/health", nil)
	if err != nil {
		return false
	}
	response, err := g.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (g etcdGateway) remove(ctx context.Context, id uint64) error {
	err := g.ask(ctx, "/v3/cluster/member/remove", map[string]string{"ID": strconv.FormatUint(id, 10)}, nil)
	if err == nil {
		return nil
	}
	members, looked := g.members(ctx)
	if looked == nil {
		for _, m := range members {
			if m.ID == id {
				return err
			}
		}
		return nil // it is gone: the answer was lost
	}
	return err
}

// ask sends one question to the gateway, and decodes the answer into out.
func (g etcdGateway) ask(ctx context.Context, path string, question, out any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	response, err := g.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("reading etcd's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd answered %s to %s: %s", response.Status, path, sentence(data))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("reading etcd's answer to %s: %w", path, err)
	}
	return nil
}

// DeleteNode takes a node out of Kubernetes, unless it is gone.
func (k *Kubeadm) DeleteNode(ctx context.Context, name string) error {
	api, err := k.admin()
	if err != nil {
		return err
	}
	err = api.call(ctx, http.MethodDelete, "/api/v1/nodes/"+url.PathEscape(name), nil, nil)
	if err != nil && !hasCode(err, http.StatusNotFound) {
		return fmt.Errorf("deleting node %s: %w", name, err)
	}
	return nil
}
