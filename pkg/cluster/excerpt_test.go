package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// excerptOf parses a file with one problem and returns what is shown of it.
func excerptOf(t *testing.T, file string) string {
	t.Helper()
	_, problems := Parse("c.yaml", []byte(file))
	if len(problems) != 1 {
		t.Fatalf("%d problems, want 1: %v", len(problems), problems)
	}
	return problems[0].Excerpt()
}

func TestExcerpt(t *testing.T) {
	for _, row := range []struct{ name, old, new, want string }{
		{"a key", "    expect: 5", "    expct: 5", `
    9 |     expct: 5
      |     ^~~~~
`},
		{"a word", "platform: packet", "platform: packt # or static", `
    6 |   platform: packt # or static
      |             ^~~~~
`},
		{"a quoted word", "expect: 5", `expect: "5"`, `
    9 |     expect: "5"
      |             ^~~
`},
		{"a list", "version: v1.36.3", "version: [v1, [36], 3] # why", `
   14 |     version: [v1, [36], 3] # why
      |              ^~~~~~~~~~~~~
`},
		{"in a list", "10.99.14.11]", "10.99.14.11/31]", `
   12 |     - static: [10.99.14.9, 10.99.14.11/31]
      |                            ^~~~~~~~~~~~~~
`},
		{"nothing", "version: v1.36.3", "version:", `
   14 |     version:
      |             ^
`},
		{"wide characters", "metadata: {name: k8s-bgp}", "metadata: {naïve: 1, name: k8s-bgp}", `
    3 | metadata: {naïve: 1, name: k8s-bgp}
      |            ^~~~~
`},
		{"a tab", "  id:", "  \tid:", "\n    5 |   \tid: 5b0c6d1f9e2a47b88c3d4e5f60718293\n      |   ^\n"},
		{"a secret", "metadata: {name", "secret: hunter2 # of ours\nmetadata: {name", `
    3 | secret: ******* * ** ****
      |         ^~~~~~~
`},
		{"a password in a URL", `"http://169`, `"http://me:hunter2@169`, `
    7 |   metadata: {url: "http://**********@169.254.169.254"}
      |                   ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
`},
		{"a long line", "platform: packet", "platform: packt # " + strings.Repeat("x", 1000), `
    6 |   platform: packt # ` + strings.Repeat("x", 100) + `...
      |             ^~~~~
`},
		{"far in a long line", "10.99.14.11]", strings.Repeat(" ", 1000) + "10.99.14.300]", `
   12 | ...` + strings.Repeat(" ", 107) + `10.99.14.300]
      |    ` + strings.Repeat(" ", 107) + `^~~~~~~~~~~~
`},
	} {
		t.Run(row.name, func(t *testing.T) {
			changed := strings.Replace(good, row.old, row.new, 1)
			if changed == good {
				t.Fatalf("%q is not in the file", row.old)
			}
			if diff := cmp.Diff(strings.TrimPrefix(row.want, "\n"), excerptOf(t, changed)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestExcerptsHideSecrets: whatever is wrong with a line, a secret in it is not shown.
func TestExcerptsHideSecrets(t *testing.T) {
	for _, line := range []string{
		"secret: hunter2", "secret : hunter2", `"secret": "hunter2"`, "secret:\n  hunter2", "secret: |\n  hunter2", "secret: >-\n  hunter2",
		"x: {md5: hunter2, y: 1}", "md5: 'hunter2'", "password: hunter2", "auth: {password: hunter2}", "x: http://u:hunter2@host/", "secret: [hunter2]",
		"secret: {a: hunter2}", "identitytoken: hunter2", "apiToken: hunter2", "acceptSecret: hunter2",
	} {
		_, problems := Parse("c.yaml", []byte(line+"\n: ]"))
		_, more := Parse("c.yaml", []byte(line+"\n"))
		for _, p := range append(problems, more...) {
			if strings.Contains(p.Excerpt()+p.String(), "hunter2") {
				t.Errorf("%s:\n%s\n%s", line, p, p.Excerpt())
			}
		}
	}
}
