package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/metadata"
)

// metadataService gives a document, or breaks.
type metadataService struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
}

func newMetadataService(t *testing.T) *metadataService {
	t.Helper()
	m := &metadataService{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*m.answer.Load())(w, r) }))
	t.Cleanup(m.Close)
	return m
}

func (m *metadataService) give(answer http.HandlerFunc) { m.answer.Store(&answer) }

// owner is the server that the document describes.
func owner() metadata.Machine {
	return metadata.Machine{Facts: func() (metadata.Facts, error) {
		return metadata.Facts{
			Hardware: device.Hardware{MACs: []string{"68:05:ca:b8:f1:f8"}},
			Links:    []device.Link{{Name: "bond0", Own: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.66.142.17/31")}}},
		}, nil
	}}
}

func document(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../../pkg/shape/testdata/packet/equinix-ibx-ny5-2021-bgp-eip.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPlatform: the first boot asks until the document is good; a later one
// takes the copy when the service is down, slow, or says less than before.
func TestPlatform(t *testing.T) {
	service := newMetadataService(t)
	whole := document(t)
	good := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole) }
	requireBGP := true
	var logged bytes.Buffer
	p := platform{file: filepath.Join(t.TempDir(), "device.json"), patience: time.Second, machine: owner(), log: slog.New(slog.NewTextHandler(&logged, nil))}
	p.cluster.Spec = cluster.Spec{Platform: cluster.PlatformPacket,
		MetadataSource: cluster.MetadataSource{URL: service.URL, RequireBGP: &requireBGP, Deadline: 30 * time.Second}}

	// Nothing yet: every attempt is reported, then the document comes.
	asked := 0
	service.give(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 1 {
			http.Error(w, "not yet", http.StatusInternalServerError)
			return
		}
		good(w, r)
	})
	var reported []error
	first, err := p.Device(t.Context(), func(err error) { reported = append(reported, err) })
	if err != nil || first.ID == "" || len(first.BGPNeighbors) == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if len(reported) != 1 || !strings.Contains(reported[0].Error(), "500") {
		t.Errorf("reported %v, expected the failed attempt", reported)
	}
	info, err := os.Stat(p.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy holds MD5 passwords: mode %v, %v", info.Mode(), err)
	}

	for name, answer := range map[string]http.HandlerFunc{
		"down":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusBadGateway) },
		"truncated": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole[:len(whole)/2]) },
		"without BGP": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Replace(whole, []byte(`"bgp_neighbors"`), []byte(`"was_bgp_neighbors"`), 1))
		},
		"of another server": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.ReplaceAll(whole, []byte("68:05:ca:"), []byte("68:05:cb:")))
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			silent := newMetadataService(t)
			silent.give(answer)
			q := p
			q.cluster.Spec.MetadataSource.URL = silent.URL
			q.log = slog.New(slog.DiscardHandler)
			began := time.Now()
			d, err := q.Device(t.Context(), func(error) {})
			if err != nil || d.ID != first.ID || len(d.BGPNeighbors) == 0 {
				t.Errorf("%+v, %v; expected the copy", d, err)
			}
			if took := time.Since(began); took > p.patience+5*time.Second {
				t.Errorf("a formed node waited %s for metadata", took)
			}
		})
	}
}

// TestPlatformDamagedCopy: a copy that cannot be read is no copy; one that is told to
// stop does not pretend to have a device.
func TestPlatformDamagedCopy(t *testing.T) {
	service := newMetadataService(t)
	whole := document(t)
	service.give(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole) })
	var logged bytes.Buffer
	p := platform{file: filepath.Join(t.TempDir(), "device.json"), patience: time.Second, machine: owner(), log: slog.New(slog.NewTextHandler(&logged, nil))}
	p.cluster.Spec = cluster.Spec{Platform: cluster.PlatformPacket, MetadataSource: cluster.MetadataSource{URL: service.URL, Deadline: 20 * time.Second}}
	if err := os.WriteFile(p.file, []byte("zeros"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := p.Device(t.Context(), func(error) {})
	if err != nil || d.ID == "" {
		t.Errorf("%+v, %v", d, err)
	}
	if !strings.Contains(logged.String(), "delete it, the metadata service has the original") {
		t.Errorf("the log does not say that the copy was damaged: %s", &logged)
	}
	if again, err := p.stored(); err != nil || again == nil || again.ID != d.ID {
		t.Errorf("the copy was not written anew: %v, %v", again, err)
	}

	service.give(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := p.Device(ctx, func(error) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("told to stop: %v", err)
	}
}

// TestPlatformClone: a disk that was copied to another machine brings the copy of the
// metadata along, and the service is down.
func TestPlatformClone(t *testing.T) {
	service := newMetadataService(t)
	whole := document(t)
	service.give(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole) })
	p := platform{file: filepath.Join(t.TempDir(), "device.json"), patience: time.Second, machine: owner(), log: slog.New(slog.DiscardHandler)}
	p.cluster.Spec = cluster.Spec{Platform: cluster.PlatformPacket, MetadataSource: cluster.MetadataSource{URL: service.URL, Deadline: time.Second}}
	if _, err := p.Device(t.Context(), func(error) {}); err != nil {
		t.Fatal(err)
	}
	service.give(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusBadGateway) })
	p.machine.Facts = func() (metadata.Facts, error) {
		return metadata.Facts{Hardware: device.Hardware{MACs: []string{"68:05:ca:00:00:01"}}}, nil
	}
	if d, err := p.Device(t.Context(), func(error) {}); err == nil || !strings.Contains(err.Error(), "no usable metadata within") {
		t.Errorf("another machine is taken for %s: %v", d.Hostname, err)
	}
}

// TestPlatformFullDisk: a formed node comes back although no newer copy can be
// kept; the first boot says that it cannot.
func TestPlatformFullDisk(t *testing.T) {
	service := newMetadataService(t)
	whole := document(t)
	service.give(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(whole) })
	var logged bytes.Buffer
	// A name that leaves no room for the one of the temporary file.
	p := platform{file: filepath.Join(t.TempDir(), strings.Repeat("d", 250)), patience: time.Second, machine: owner(), log: slog.New(slog.NewTextHandler(&logged, nil))}
	p.cluster.Spec = cluster.Spec{Platform: cluster.PlatformPacket, MetadataSource: cluster.MetadataSource{URL: service.URL, Deadline: 20 * time.Second}}
	d, err := p.Device(t.Context(), func(error) {})
	if err == nil || !strings.Contains(err.Error(), "write "+p.file) {
		t.Errorf("the first boot: %v", err)
	}
	data, err := metadata.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := p.Device(t.Context(), func(error) {}); err != nil || again.ID != d.ID || !strings.Contains(logged.String(), "the copy from an earlier boot stays as it is") {
		t.Errorf("%+v, %v; logged %s", again, err, &logged)
	}
}

// TestMachineFacts: what this machine knows of itself.
func TestMachineFacts(t *testing.T) {
	f, err := machineFacts()
	if err != nil {
		t.Fatal(err)
	}
	lo := slices.IndexFunc(f.Links, func(l device.Link) bool { return l.Name == "lo" })
	if f.Hostname == "" || lo < 0 || f.Links[lo].Own {
		t.Errorf("%+v, expected a hostname, and lo as no link of its own", f)
	}
}
