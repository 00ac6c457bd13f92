package userdata

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// limits is the table of the page.
func limits() string {
	var b strings.Builder
	b.WriteString("| `--limit` | platform | user-data, bytes | by |\n|---|---|---|---|\n")
	for _, p := range Platforms {
		limit := fmt.Sprint(p.Limit)
		switch {
		case p.Limit == 0:
			limit = "not known"
		case p.Limit == Unlimited:
			limit = "any"
		case p.Base64:
			limit = fmt.Sprintf("%d (%d in base64)", p.Holds(), p.Limit)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Name, p.Title, limit, p.Source)
	}
	return b.String()
}

func TestLimitsOnThePage(t *testing.T) {
	const page = "../../docs/user-data.md"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "updates this table -->\n", "<!-- end of limits -->\n"
	head, rest, found := bytes.Cut(data, []byte(begin))
	table, tail, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		t.Fatalf("%s lacks %q or %q", page, begin, end)
	}
	if *update {
		if err := os.WriteFile(page, []byte(string(head)+begin+limits()+end+string(tail)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(table), limits()); diff != "" {
		t.Errorf("%s is stale; go test ./pkg/userdata -run Limits -update (-page +code):\n%s", page, diff)
	}
}

func TestPlatforms(t *testing.T) {
	last := ""
	for _, p := range Platforms[1:] {
		if p.Name <= last {
			t.Errorf("%s is out of order", p.Name)
		}
		last = p.Name
		if p.Source == "" || p.Title == "" {
			t.Errorf("%s has no source or no title", p.Name)
		}
		if p.Holds() < Any.Holds() {
			t.Errorf("%s takes less than every platform: %d", p.Name, p.Holds())
		}
	}
	for name, want := range map[string]int{"any": 16384, "ec2": 16384, "openstack": 49149, "oracle": 24000, "vultr": 16384, "nocloud": Unlimited} {
		if p, err := PlatformNamed(name); err != nil || p.Holds() != want {
			t.Errorf("%s takes %d, %v; expected %d", name, p.Holds(), err, want)
		}
	}
	if !strings.Contains(limits(), "| `openstack` | OpenStack Nova and Ironic | 49149 (65535 in base64) |") {
		t.Error(limits())
	}
}
