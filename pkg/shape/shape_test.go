package shape

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/mustermetal/muster/pkg/device"
)

var update = flag.Bool("update", false, "write the golden files")

// pair is a set of documents with what shall come of it.
type pair struct {
	shape Shape
	docs  Documents
	want  string
	write func(got string) error
}

// pairs reads testdata: NAME.json with NAME.device beside it, or NAME.txtar with
// the documents and the device in it.
func pairs(t testing.TB) map[string]pair {
	t.Helper()
	out := map[string]pair{}
	for _, s := range All {
		files, err := filepath.Glob("testdata/" + s.Name + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, kind, _ := strings.Cut(filepath.Base(file), ".")
			p := pair{shape: s, docs: Documents{}}
			switch kind {
			case "json":
				p.docs[s.Documents[0]] = data
				golden := strings.TrimSuffix(file, "json") + "device"
				want, _ := os.ReadFile(golden) // missing is different
				p.want = string(want)
				p.write = func(got string) error { return os.WriteFile(golden, []byte(got), 0o644) }
			case "txtar":
				archive := txtar.Parse(data)
				var documents []txtar.File
				for _, f := range archive.Files {
					if f.Name == "device" {
						p.want = string(f.Data)
						continue
					}
					p.docs[f.Name] = f.Data
					documents = append(documents, f)
				}
				p.write = func(got string) error {
					archive.Files = append(documents, txtar.File{Name: "device", Data: []byte(got)})
					return os.WriteFile(file, txtar.Format(archive), 0o644)
				}
			default:
				continue
			}
			out[s.Name+"/"+name] = p
		}
	}
	return out
}

func TestGolden(t *testing.T) {
	all := pairs(t)
	seen := map[string]bool{}
	for name, p := range all {
		seen[p.shape.Name] = true
		t.Run(name, func(t *testing.T) {
			var got string
			if d, err := p.shape.Device(p.docs); err != nil {
				got = "error: " + err.Error() + "\n"
			} else {
				b, err := json.MarshalIndent(d, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = string(b) + "\n"
			}
			if *update {
				if err := p.write(got); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(p.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, s := range All {
		if !seen[s.Name] {
			t.Errorf("shape %s has no golden pair", s.Name)
		}
	}
}

func TestCutOffAnywhere(t *testing.T) {
	raw, err := os.ReadFile("testdata/packet/equinix-ibx-ny5-2021-bgp-eip.json")
	if err != nil {
		t.Fatal(err)
	}
	packet, _ := Of("packet")
	whole := strings.TrimSpace(string(raw))
	for n := 1; n < len(whole); n += 7 {
		if _, err := packet.Device(Documents{"metadata": []byte(whole[:n])}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v; want io.ErrUnexpectedEOF", n, err)
		}
	}
}

// FuzzShapes: no document makes a shape panic, and what it accepts survives the
// cache.
func FuzzShapes(f *testing.F) {
	for _, p := range pairs(f) {
		at := -1
		for i, s := range All {
			if s.Name == p.shape.Name {
				at = i
			}
		}
		second := ""
		if len(p.shape.Documents) > 1 {
			second = string(p.docs[p.shape.Documents[1]])
		}
		f.Add(uint8(at), string(p.docs[p.shape.Documents[0]]), second)
	}
	f.Fuzz(func(t *testing.T, which uint8, first, second string) {
		s := All[int(which)%len(All)]
		docs := Documents{s.Documents[0]: []byte(first)}
		if len(s.Documents) > 1 {
			docs[s.Documents[1]] = []byte(second)
		}
		if s.Name == "ec2" {
			docs = Documents{"instance-id": []byte("i"), "local-ipv4": []byte(first), "tags": []byte(second)}
		}
		d, err := s.Device(docs)
		if err != nil {
			return
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("accepted documents make a device that cannot be stored: %v", err)
		}
		var again device.Device
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("stored device cannot be read: %v\n%s", err, b)
		}
	})
}

func compact(t *testing.T, document string) string {
	t.Helper()
	s, _ := Of("packet")
	d, err := s.Device(Documents{"metadata": []byte(document)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
