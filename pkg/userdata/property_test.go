package userdata

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/mustermetal/muster/pkg/cluster"
)

// same compares clusters; an empty list means the same as none.
var same = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// readsBack renders a cluster and parses what came of it.
func readsBack(t interface {
	Fatalf(string, ...any)
}, c cluster.Cluster, format Format) {
	data, err := Render(c, Options{Format: format, Platform: AtMost(Unlimited)})
	if err != nil {
		t.Fatalf("%s: %v", format, err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatalf("%s: rendered, but cannot be read: %v\n%s", format, err, data)
	}
	if diff := cmp.Diff(c, got, same); diff != "" {
		t.Fatalf("%s: reads back otherwise (-rendered +read):\n%s", format, diff)
	}
}

// TestReadsBack: Parse(Render(x)) = x, for every format and cluster files of all
// kinds of things.
func TestReadsBack(t *testing.T) {
	kinds := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		file := anyFile(t)
		c, problems := cluster.Parse("cluster.yaml", []byte(file))
		if err := cluster.Err(problems); err != nil {
			t.Fatalf("the generator made a bad file: %v\n%s", err, file)
		}
		c.Secret = cluster.Secret(base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret")))
		if rapid.Bool().Draw(t, "join") {
			c.Spec.Join.CA = "sha256:" + rapid.StringMatching("[0-9a-f]{64}").Draw(t, "ca")
		}
		kinds[c.Spec.Platform]++
		for _, format := range Formats {
			readsBack(t, c, format)
		}
	})
	if len(kinds) < 2 {
		t.Errorf("only %v were tried", kinds)
	}
}

// anyFile writes a cluster file without problems.
func anyFile(t *rapid.T) string {
	label := rapid.StringMatching("[a-z][a-z0-9-]{0,20}[a-z0-9]")
	// Text that YAML, a shell or an installer may take for something else.
	word := rapid.OneOf(rapid.StringMatching(`[ -~]{0,40}`), rapid.SampledFrom([]string{
		"yes", "0x10", "1e3", "~", "null", "", " x", "x ", "- a", "a: b", "#c", "'", `"`, "`id`", "$(id)", "$HOME", "END_OF_FILE", "\nEND_OF_FILE\n", "image_repo=x",
		"{{ v1.local_hostname }}", "é", "日本", "a\nb\n", "\ttab", "EOF", "%s", `\n`, "2026-11-26", "MIME-Version: 1.0\n", "--muster-part--", "!!str", "&a", "*a", "|", ">",
	}))
	strange := rapid.OneOf(word, rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(word, 2, 5).Draw(t, "lines"), "\n")
	}))
	n := rapid.IntRange(1, 12).Draw(t, "n")
	k := rapid.SampledFrom([]int{1, 3}).Draw(t, "k")
	k = min(k, n)
	if k == 2 {
		k = 1
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: muster/v1alpha1\nkind: Cluster\nmetadata: {name: %q}\nspec:\n  id: %q\n", label.Draw(t, "name"), rapid.StringMatching("[0-9a-f]{32}").Draw(t, "id"))
	fmt.Fprintf(&b, "  servers: {expect: %d, controlPlanes: %d, quorum: %s", n, k, rapid.SampledFrom([]string{"safe", "majority"}).Draw(t, "quorum"))
	static := rapid.Bool().Draw(t, "static")
	if !static && rapid.Bool().Draw(t, "tag") {
		fmt.Fprintf(&b, ", eligible: {tag: %q}", "x"+strange.Draw(t, "tag text"))
	}
	b.WriteString("}\n  discovery: [{static: [10.99.14.9, 10.99.14.11]}]\n")
	if static {
		b.WriteString("  platform: static\n  static:\n")
		for i := range n {
			fmt.Fprintf(&b, "    - {match: {hostname: s%d}, id: %q, hostname: s%d, addresses: [{address: 10.99.%d.1/31, gateway: 10.99.%d.0}], bgpNeighbors: [{customerAS: 65000, peerAS: %d, peerIPs: [169.254.255.1], md5: %q}]}\n",
				i, fmt.Sprint(i, strange.Draw(t, "id text")), i, 100+i, 100+i, rapid.Uint32Range(1, 1<<31-1).Draw(t, "as"), "x"+strange.Draw(t, "md5"))
		}
	} else {
		b.WriteString("  platform: packet\n  metadata: {url: \"http://169.254.169.254\"}\n")
	}
	b.WriteString("  kubernetes:\n    version: v1.36.3\n    endpoint: 147.75.194.92:6443\n    kubelet:\n")
	for i := range rapid.IntRange(1, 4).Draw(t, "keys") {
		fmt.Fprintf(&b, "      k%d: %q\n", i, strange.Draw(t, "value"))
	}
	b.WriteString("  network: {elasticIPs: [{address: 147.75.194.92/32, on: control-planes}]}\n")
	if rapid.Bool().Draw(t, "extra") {
		fmt.Fprintf(&b, "  containerd: {extra: {io.x: {a: [1, 2.5, true, null, %q], %q: {}}}}\n", strange.Draw(t, "extra text"), label.Draw(t, "extra key"))
	}
	return b.String()
}

// TestReadsBackRefusesOthers: what is like ours but damaged is an error, and says
// what it is.
func TestReadsBackRefusesOthers(t *testing.T) {
	c := load(t, clusterFile)
	for _, format := range Formats {
		data := mustRender(t, c, format)
		for _, cut := range []int{1, 30, len(data) / 2, len(data) - 200} {
			if _, err := Parse(data[:cut]); err == nil && format != CloudConfig && format != Script {
				t.Errorf("%s: cut off after %d bytes, and accepted", format, cut)
			}
		}
		if _, err := Parse(nil); err == nil || errors.Unwrap(err) != nil {
			t.Errorf("nothing: %v", err)
		}
	}
}
