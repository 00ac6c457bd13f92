package faults

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mustermetal/muster/test/faults/fabric"
	"github.com/mustermetal/muster/test/rig/machine"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// metadataStore serves the documents of a store at the load balancer's address until
// the trial ends.
func (r *trial) metadataStore() metadata.Store {
	r.Helper()
	store := metadata.Store{Dir: r.TempDir()}
	var listener net.Listener
	r.must(fabric.In(machine.NetnsPath(balancerNamespace), func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(balancerIP, 80).String())
		return err
	}))
	service := &metadata.Service{Inventory: store.Dir}
	go func() { _ = service.Serve(listener) }() // ends with the listener
	r.Cleanup(func() { _ = listener.Close() })
	return store
}

// metadataURL is where a metadata service answers.
var metadataURL = "http://" + balancerIP.String()

// tell gives a metadata service the documents of a trial's servers.
func (r *trial) tell(store metadata.Store) {
	r.Helper()
	for _, name := range r.plan.Names {
		s := r.by[name]
		var tags []string
		if tag := r.plan.Tags[name]; tag != "" {
			tags = append(tags, tag)
		}
		r.must(store.Put(metadata.Server{
			ID: name, Hostname: name, Tags: tags, MACs: []string{s.Hardware}, Addresses: []metadata.Address{{Address: netip.PrefixFrom(s.Address, subnet.Bits())}},
			BGP: []metadata.Neighbor{{CustomerAS: 65000, CustomerIP: s.Address, PeerAS: 65530, PeerIPs: []netip.Addr{balancerIP}}},
		}))
	}
}

// beginTold makes servers that learn from a metadata service what they are.
func beginTold(t *testing.T, platform string, controlPlanes int, names ...string) (*trial, metadata.Store) {
	t.Helper()
	plan, err := NewPlan(len(names), controlPlanes, names...)
	if err != nil {
		t.Fatal(err)
	}
	plan.Metadata, plan.Platform = metadataURL, platform
	r := beginPlan(t, newSeed(t), plan)
	return r, r.store
}

// TestMetadata: the service does to each of five servers something else. One gets
// another's documents, as after an address was used again: it refuses and names both
// MAC addresses, and the rest form the cluster without it.
func TestMetadata(t *testing.T) {
	down, late := time.Minute, 45*time.Second
	if testing.Short() {
		down, late = 8*time.Second, 6*time.Second
	}
	r, store := beginTold(t, "packet", 3, "cp1", "cp2", "cp3", "w1", "w2")
	for name, fault := range map[string]metadata.Fault{
		"cp1": {Kind: metadata.Refused, For: down}, "w1": {Kind: metadata.Broken, For: down},
		"cp2": {Kind: metadata.NoBGP, For: late}, "cp3": {Kind: metadata.Flaky}, "w2": {Kind: metadata.Swapped, Of: "cp3"},
	} {
		r.must(store.Fail(name, fault))
	}
	began := time.Now()
	r.on()
	r.said("cp1", "the platform's metadata of this server", "the metadata service hung up")
	r.said("w1", "is in trouble: it answers 500")
	r.said("cp2", "the document has no BGP neighbours")
	foreign := []string{"the metadata describes another server: cp3 (cp3) has MAC " + r.by["cp3"].Hardware, "this machine has " + r.by["w2"].Hardware}
	r.said("w2", foreign...)
	r.formed("cp1", "cp2", "cp3", "w1")
	r.Logf("four formed without the fifth after %s, of which the service was down for %s", time.Since(began).Round(time.Second), down)
	if took := time.Since(began); took < down {
		t.Errorf("formed after %s, while a server that is needed was told nothing before %s: the fault was none", took, down)
	}
	r.said("w2", foreign...)

	// The entry is corrected, and the fifth comes as if nothing had been.
	r.must(store.Fail("w2", metadata.Fault{}))
	r.formed()

	// With the service gone for good a reboot goes by the copy.
	for _, name := range r.plan.Names {
		r.must(store.Fail(name, metadata.Fault{Kind: metadata.Refused}))
	}
	r.must(r.by["w1"].PowerLoss(r.ctx))
	r.must(r.by["w1"].On(r.ctx))
	r.formed()
	if !r.journalHas("w1", "metadata: the copy from an earlier boot is used") {
		t.Error("w1 came back by something else than the copy")
	}
}

// TestVendors forms a cluster of servers of which each is told in the form of another
// vendor what it is; the agents find out which.
func TestVendors(t *testing.T) {
	variation(t)
	forms := map[string]string{"cp1": metadata.Vultr, "w1": metadata.Hetzner, "w2": metadata.Latitude}
	r, store := beginTold(t, "auto", 1, "cp1", "w1", "w2")
	for name, form := range forms {
		server, _, err := store.Get(name)
		r.must(err)
		server.Forms = []string{form}
		r.must(store.Put(server))
	}
	r.on()
	r.formed()
	for name, form := range forms {
		if want := "msg=metadata platform=" + form + " why=\"" + r.plan.Metadata + " answers as " + form + "\""; !r.journalHas(name, want) {
			t.Errorf("%s: the journal lacks %s", name, want)
		}
	}
}

// TestPlansOfMetadata: what the trials above boot with is user-data that check takes.
func TestPlansOfMetadata(t *testing.T) {
	for _, platform := range []string{"packet", "auto"} {
		p, err := NewPlan(3, 1, "cp1", "w1", "w2")
		if err != nil {
			t.Fatal(err)
		}
		p.Metadata, p.Platform = "http://"+balancerIP.String(), platform
		if _, err := p.Render(); err != nil {
			t.Errorf("%s: %v", platform, err)
		}
	}
}
