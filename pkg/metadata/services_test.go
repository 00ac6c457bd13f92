package metadata

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mustermetal/muster/pkg/cluster"
)

// paths is a service that has documents by path; a header that a path wants is
// before the document: "Header: value\n\n". It writes down what it was asked.
type paths struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func serve(t *testing.T, documents map[string]string) *paths {
	t.Helper()
	p := &paths{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.URL.Path)
		p.mu.Unlock()
		document, ok := documents[r.URL.Path]
		if header, body, wants := strings.Cut(document, "\n\n"); wants {
			key, value, _ := strings.Cut(header, ": ")
			if r.Header.Get(key) != value {
				http.Error(w, "no "+key, http.StatusUnauthorized)
				return
			}
			document = body
		}
		if !ok || strings.HasSuffix(r.URL.Path, "token") != (r.Method == http.MethodPut) {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(document))
	}))
	t.Cleanup(p.Close)
	return p
}

// all is what it was asked so far, each once, sorted.
func (p *paths) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(p.asked)))
}

var tootles = map[string]string{
	"/metadata":                         `{"metadata":{"instance":{}}}`,
	"/2009-04-04/meta-data/instance-id": "i-1",
	"/2009-04-04/meta-data/hostname":    "cp1",
	"/2009-04-04/meta-data/local-ipv4":  "10.99.14.9",
	"/2009-04-04/meta-data/tags":        "a\nb",
	"/2009-04-04/meta-data/public-keys": "",
}

var imds = map[string]string{
	"/latest/api/token":                          "X-aws-ec2-metadata-token-ttl-seconds: 300\n\nopen",
	"/latest/meta-data/instance-id":              "X-aws-ec2-metadata-token: open\n\ni-1",
	"/latest/meta-data/local-hostname":           "X-aws-ec2-metadata-token: open\n\ncp1",
	"/latest/meta-data/local-ipv4":               "X-aws-ec2-metadata-token: open\n\n10.99.14.9",
	"/latest/meta-data/tags":                     "instance/",
	"/latest/meta-data/tags/instance/":           "role\nrack",
	"/latest/meta-data/tags/instance/role":       "cp",
	"/latest/meta-data/tags/instance/rack":       "1",
	"/latest/meta-data/network/interfaces/macs/": "52:54:00:00:00:01/",
}

var nova = map[string]string{
	"/openstack/latest/meta_data.json":    `{"uuid":"i-1","name":"cp1","meta":{"role":"cp"}}`,
	"/openstack/latest/network_data.json": `{"links":[{"ethernet_mac_address":"52:54:00:00:00:01"}],"networks":[{"ip_address":"10.99.14.9","netmask":"255.255.255.254"}]}`,
	"/2009-04-04/meta-data/instance-id":   "i-wrong",
}

var latitudeDocs = map[string]string{
	"/metadata/v1/api/token":     "X-Metadata-Token-TTL-Seconds: 300\n\nopen",
	"/metadata/v1/metadata.json": "X-Metadata-Token: open\n\n" + `{"instance_id":"i-1","hostname":"cp1","local_ipv4":"10.99.14.9"}`,
}

var hetznerDocs = map[string]string{
	"/hetzner/v1/metadata":              "instance-id: 7\nhostname: cp1\n",
	"/2009-04-04/meta-data/instance-id": "i-wrong",
}

var vultrDocs = map[string]string{
	"/v1.json": "Metadata-Token: cloudinit\n\n" + `{"instance-v2-id":"i-1","hostname":"cp1","interfaces":[{"network-type":"private","ipv4":{"address":"10.99.14.9","netmask":"255.255.255.254","gateway":""}}]}`,
}

var packetDocs = map[string]string{
	"/metadata":                         `{"id":"i-1","hostname":"cp1","network":{"addresses":[{"address":"10.99.14.9","cidr":31,"gateway":"10.99.14.8","public":false}]}}`,
	"/2009-04-04/meta-data/instance-id": "i-wrong",
}

var webSeed = map[string]string{"/meta-data": "instance-id: i-1\nlocal-hostname: cp1\n"}

// TestServices: each service is read by its platform, and auto finds out which it
// is, with a bounded number of requests of which each comes once.
func TestServices(t *testing.T) {
	for _, tt := range []struct {
		platform  string
		documents map[string]string
		tags      []string
		id        string
	}{
		{"packet", packetDocs, nil, "i-1"},
		{"ec2", tootles, []string{"a", "b"}, "i-1"},
		{"ec2", imds, []string{"rack=1", "role=cp"}, "i-1"},
		{"openstack", nova, []string{"role=cp"}, "i-1"},
		{"vultr", vultrDocs, nil, "i-1"},
		{"hetzner", hetznerDocs, nil, "7"},
		{"latitude", latitudeDocs, nil, "i-1"},
		{"nocloud", webSeed, nil, "i-1"},
	} {
		for _, platform := range []string{tt.platform, cluster.PlatformAuto} {
			service := serve(t, tt.documents)
			spec := cluster.Spec{Platform: platform, MetadataSource: cluster.MetadataSource{URL: service.URL}}
			r, err := NewReader(spec, machine(nil, "x", []string{"52:54:00:00:00:01"}, link("bond0", "10.99.14.9/31", "via=10.99.14.8")))
			if err != nil {
				t.Fatal(err)
			}
			f, err := r.Read(t.Context())
			if err != nil {
				t.Errorf("%s as %s: %v", tt.platform, platform, err)
				continue
			}
			private, _ := f.Device.Private(4)
			if f.Platform != tt.platform || f.Device.ID != tt.id || f.Device.Hostname != "cp1" || private.Prefix.String() != "10.99.14.9/31" || private.Gateway.String() != "10.99.14.8" {
				t.Errorf("%s as %s: %+v", tt.platform, platform, f)
			}
			if diff := cmp.Diff(tt.tags, f.Device.Tags); diff != "" {
				t.Errorf("%s as %s: tags (-want +got):\n%s", tt.platform, platform, diff)
			}
			if platform == cluster.PlatformAuto && (!strings.Contains(f.Why, service.URL+" answers as "+tt.platform) || len(service.asked) > 30) {
				t.Errorf("%s: why %q, after %d requests %v", tt.platform, f.Why, len(service.asked), service.all())
			}
			before := len(service.asked)
			if _, err := r.Read(t.Context()); err != nil || len(service.asked)-before > 14 {
				t.Errorf("%s as %s: asked again: %v, %d requests", tt.platform, platform, err, len(service.asked)-before)
			}
		}
	}
}

// TestAutoStops: a service that is in trouble is not taken for another kind, and one
// that nobody answers for is asked once a round.
func TestAutoStops(t *testing.T) {
	spec := func(url string) cluster.Spec {
		return cluster.Spec{Platform: cluster.PlatformAuto, MetadataSource: cluster.MetadataSource{URL: url}}
	}
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/metadata") {
			http.Error(w, "restarting", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("i-1"))
	}))
	defer sick.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	empty := serve(t, nil)
	for url, want := range map[string]string{
		sick.URL:  "platform auto: metadata: GET " + sick.URL + "/metadata: the metadata service is in trouble",
		gone.URL:  "platform auto: metadata: GET " + gone.URL + "/metadata: the metadata service is not there yet",
		empty.URL: "platform auto: " + empty.URL + " speaks none of the forms that are known; set spec.platform: packet: ",
	} {
		r, err := NewReader(spec(url), machine(nil, "x", nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Device(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
	if n := len(empty.asked); n > len(probed)+3 {
		t.Errorf("one round took %d requests: %v", n, empty.all())
	}
}

const instance = `{"v1":{"platform":"%p","subplatform":"%s","instance_id":"i-1","local_hostname":"cp1"},"ds":{"meta_data":{"instance-id":"i-1","uuid":"i-1","name":"cp1","local-hostname":"cp1"}}}`

// TestAutoHints: firmware, kernel arguments, labels and cloud-init tell without the
// network, and a person's word is before theirs.
func TestAutoHints(t *testing.T) {
	said := func(platform, sub string) string {
		return strings.NewReplacer("%p", platform, "%s", sub).Replace(instance)
	}
	seed := map[string]string{"var/lib/cloud/seed/nocloud/meta-data": "instance-id: i-1\nlocal-hostname: cp1\n"}
	with := func(name, content string) map[string]string {
		files := maps.Clone(seed)
		files[name] = content
		return files
	}
	private := link("bond0", "10.99.14.9/31")
	tests := []struct {
		name     string
		machine  Machine
		platform string
		why      string
	}{
		{"kernel argument", machine(with("proc/cmdline", "ro ds=nocloud;i=1 quiet"), "x", nil, private), "nocloud", "kernel argument ds=nocloud;i=1"},
		{"label", machine(with("run/udev/data/b11:0", "N:sr0\nE:ID_FS_LABEL=cidata\n"), "x", nil, private), "nocloud", "a disk is labelled cidata"},
		{"cloud-init, seed", machine(with(instanceData, said("nocloud", "seed-dir (/var/lib/cloud/seed/nocloud)")), "x", nil, private), "nocloud", "cloud-init found nocloud: seed-dir (/var/lib/cloud/seed/nocloud)"},
		{"cloud-init, config drive", machine(map[string]string{instanceData: said("configdrive", "config-disk (/dev/sr0)")}, "x", nil, private), "openstack", "cloud-init found configdrive: config-disk (/dev/sr0)"},
		{"label of a config drive", machine(map[string]string{"run/udev/data/b11:0": "E:ID_FS_LABEL=config-2\n", "media/configdrive/openstack/latest/meta_data.json": `{"uuid":"i-1","name":"cp1"}`}, "x", nil, private), "openstack", "a disk is labelled config-2"},
		{"DMI", machine(map[string]string{"sys/class/dmi/id/product_name": "OpenStack Nova\n", "var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json": `{"uuid":"i-1","name":"cp1"}`}, "x", nil, private), "openstack", "DMI product_name is OpenStack Nova"},
		{"cloud-init, unknown here", machine(map[string]string{instanceData: said("maas", "x")}, "x", nil, private), "cloudinit", "cloud-init found maas: x"},
		{"described", machine(with(instanceData, said("nocloud", "x")), "known", nil, private), "static", "spec.static describes this server"},
	}
	spec := cluster.Spec{Platform: cluster.PlatformAuto, Static: []cluster.StaticServer{{
		Match: cluster.StaticMatch{Hostname: "known"}, ID: "i-1", Hostname: "cp1", Addresses: []cluster.StaticAddress{{Address: private.Addresses[0]}}}}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := NewReader(spec, tt.machine)
			if err != nil {
				t.Fatal(err)
			}
			f, err := r.Read(t.Context())
			if err != nil || f.Platform != tt.platform || f.Why != tt.why || f.Device.ID != "i-1" || f.Device.Platform != tt.platform {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
}

// TestAutoLastBoot: a server stays what it was at an earlier boot, when cloud-init
// has not said anything yet.
func TestAutoLastBoot(t *testing.T) {
	m := machine(map[string]string{"var/lib/cloud/seed/nocloud/meta-data": "instance-id: i-1\n"}, "cp1", nil, link("bond0", "10.99.14.9/31"))
	m.Last = "nocloud"
	r, err := NewReader(cluster.Spec{Platform: cluster.PlatformAuto}, m)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Read(t.Context())
	if err != nil || f.Why != "it was so at an earlier boot" || f.Device.Hostname != "cp1" {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestAutoEC2: where cloud-init read an EC2 tree, the Packet document of the same
// service comes first, since it says more; Tootles has none.
func TestAutoEC2(t *testing.T) {
	for platform, documents := range map[string]map[string]string{"packet": packetDocs, "ec2": tootles} {
		service := serve(t, documents)
		files := map[string]string{instanceData: strings.NewReplacer("%p", "ec2", "%s", "metadata ("+service.URL+")").Replace(instance)}
		r, err := NewReader(cluster.Spec{Platform: cluster.PlatformAuto}, machine(files, "x", nil, link("bond0", "10.99.14.9/31", "via=10.99.14.8")))
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again := machine(files, "x", nil, link("bond0", "10.99.14.9/31", "via=10.99.14.8"))
		again.Last = platform
		if r, err = NewReader(cluster.Spec{Platform: cluster.PlatformAuto}, again); err != nil {
			t.Fatal(err)
		}
		if g, err := r.Read(t.Context()); err != nil || g.Platform != platform || g.Device.ID != f.Device.ID {
			t.Errorf("at the next boot: %+v, %v", g, err)
		}
		if want := "cloud-init found ec2: metadata (" + service.URL + "), and " + service.URL + " answers as " + platform; f.Platform != platform || f.Why != want {
			t.Errorf("%+v, %v; want why %q", f, err, want)
		}
	}
}
