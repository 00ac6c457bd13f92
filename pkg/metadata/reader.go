package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/shape"
)

// Machine is what a server knows of itself.
type Machine struct {
	// Root is its file system: seeds, and what firmware and cloud-init say.
	Root fs.FS
	// Facts is asked at every attempt, as addresses may come late.
	Facts func() (Facts, error)
	// Last is the platform at an earlier boot, "" where none is known.
	Last string
	// Drive, if set, has a labelled disk read that nobody mounted: what it says is in
	// layout.Drive then.
	Drive func(context.Context) error
	// HTTP, if set, is the client for services.
	HTTP *http.Client
}

// Facts are what the kernel says of a server.
type Facts struct {
	Hostname string
	Hardware device.Hardware
	Links    []device.Link
}

// found are the documents of a platform and where they came from.
type found struct {
	platform, why string
	docs          shape.Documents
	from          []string
}

// fetcher reads the documents once.
type fetcher func(context.Context) (found, error)

// Finding is one reading: what was read from where, and what comes of it.
type Finding struct {
	Platform string `json:"platform"`
	// Why is the reason for the platform, where it was not written down.
	Why  string   `json:"why,omitempty"`
	From []string `json:"from"`
	// Notes are sentences on what was not told and taken from elsewhere.
	Notes   []string      `json:"notes,omitempty"`
	Missing []string      `json:"missing,omitempty"`
	Device  device.Device `json:"device"`
}

// Reader reads what this server is: documents of the platform, spec.static over
// them, and the kernel's answers for the rest.
type Reader struct {
	spec    cluster.Spec
	machine Machine
	fetch   fetcher
	latest  Finding
}

// Latest is the last reading that succeeded.
func (r *Reader) Latest() Finding { return r.latest }

// NewReader returns the reader that a cluster file asks for.
func NewReader(spec cluster.Spec, machine Machine) (*Reader, error) {
	r := &Reader{spec: spec, machine: machine}
	if r.fetch = r.fetcher(spec.Platform); r.fetch == nil {
		return nil, fmt.Errorf("spec.platform is %q, which this release does not read", spec.Platform)
	}
	return r, nil
}

// fetcher is how a platform is read; nil when it is none.
func (r *Reader) fetcher(platform string) fetcher {
	url := r.spec.MetadataSource.URL
	switch platform {
	case cluster.PlatformAuto:
		return (&auto{reader: r}).fetch
	case cluster.PlatformStatic:
		return func(context.Context) (found, error) { return found{from: []string{"spec.static"}}, nil }
	case cluster.PlatformCloudInit:
		return cloudInit(r.machine.Root)
	case cluster.PlatformOpenStack:
		if url == "" {
			return openStack(r.machine)
		}
	case cluster.PlatformNoCloud:
		if url == "" {
			return noCloud(r.machine)
		}
	}
	if url == "" {
		url = linkLocal
	}
	return serviceOf(platform, url, r.machine.HTTP)
}

// serviceOf is the HTTP service of a platform at a URL; nil when it has none.
func serviceOf(platform, url string, client *http.Client) fetcher {
	services := map[string]func(string) service{
		cluster.PlatformPacket: packetService, cluster.PlatformOpenStack: openStackService, cluster.PlatformVultr: vultrService,
		cluster.PlatformHetzner: hetznerService, cluster.PlatformLatitude: latitudeService, cluster.PlatformNoCloud: noCloudService,
	}
	if platform == cluster.PlatformEC2 {
		s := newEC2(url)
		s.http = client
		return s.fetch
	}
	of, ok := services[platform]
	if !ok {
		return nil
	}
	s := of(url)
	s.http = client
	return s.fetch
}

// Device is one attempt. Its error is a sentence for status, and trying again always
// makes sense.
func (r *Reader) Device(ctx context.Context) (device.Device, error) {
	f, err := r.Read(ctx)
	if err == nil && len(f.Missing) > 0 {
		err = fmt.Errorf("metadata: %s has no %s, nor does the kernel tell: write it into spec.static", listed(f.From), strings.Join(f.Missing, ", no "))
	}
	return f.Device, err
}

// Read is one attempt with its origins. What is missing is no error here.
func (r *Reader) Read(ctx context.Context) (Finding, error) {
	docs, err := r.fetch(ctx)
	finding := Finding{Platform: docs.platform, Why: docs.why, From: docs.from}
	if finding.Platform == "" {
		finding.Platform = r.spec.Platform
		docs.platform = r.spec.Platform
	}
	if err != nil {
		return finding, err
	}
	d, err := docs.device()
	if err != nil {
		return finding, fmt.Errorf("metadata: %s: %w", listed(docs.from), err)
	}
	facts, err := r.machine.Facts()
	if err != nil {
		return finding, fmt.Errorf("metadata: %w", err)
	}
	return r.conclude(finding, d, facts)
}

// conclude makes the device of what the platform told and what the server knows.
func (r *Reader) conclude(f Finding, d device.Device, facts Facts) (Finding, error) {
	if err := d.Describes(facts.Hardware); err != nil {
		return f, fmt.Errorf("metadata: %w", err)
	}
	d, entries, err := overlay(d, r.spec.Static, facts, f.Platform == cluster.PlatformStatic)
	if err != nil {
		return f, err
	}
	f.noteOverlay(entries)
	if d.Hostname == "" {
		d.Hostname = facts.Hostname
		f.Notes = append(f.Notes, "hostname from the kernel")
	}
	d, notes, err := d.Complete(facts.Links, r.elasticIPs())
	if err != nil {
		return f, fmt.Errorf("metadata: %w", err)
	}
	d.Platform = f.Platform
	f.Device, f.Notes, f.Missing = d, append(f.Notes, notes...), d.Missing()
	r.latest = f
	return f, nil
}

func (r *Reader) elasticIPs() []netip.Prefix {
	var out []netip.Prefix
	for _, e := range r.spec.Network.ElasticIPs {
		out = append(out, e.Address)
	}
	return out
}

// device reads the documents by their shape; static has none.
func (f found) device() (device.Device, error) {
	if f.platform == cluster.PlatformStatic {
		return device.Device{}, nil
	}
	s, ok := shape.Of(f.platform)
	if !ok {
		return device.Device{}, errors.New("no form of metadata is called " + f.platform)
	}
	return s.Device(f.docs)
}

// Conclude makes the finding of documents that were read elsewhere. Nothing of this
// machine is looked at, so that what the kernel would tell is missing.
func Conclude(spec cluster.Spec, platform string, docs shape.Documents, from []string) (Finding, error) {
	f := Finding{Platform: platform, From: from}
	d, err := found{platform: platform, docs: docs}.device()
	if err != nil {
		return f, fmt.Errorf("metadata: %s: %w", listed(from), err)
	}
	facts := Facts{Hostname: d.Hostname, Hardware: device.Hardware{MACs: d.MACs}}
	d, entries, err := overlay(d, spec.Static, facts, false)
	if err != nil {
		return f, err
	}
	f.noteOverlay(entries)
	d.Platform = platform
	f.Device, f.Missing = d, d.Missing()
	return f, nil
}

func (f *Finding) noteOverlay(entries []int) {
	for _, i := range entries {
		f.Notes = append(f.Notes, fmt.Sprintf("spec.static[%d] was laid over it", i))
	}
}
