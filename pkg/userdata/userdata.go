// Package userdata turns a cluster into the user-data that its servers boot with,
// and user-data back into the cluster. It never asks anything of the machine it
// runs on.
//
// Floor 1.
package userdata

import (
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/units"
)

// Limit is the largest user-data that every platform takes, in bytes before any
// encoding. Source: EC2's instance user data, the smallest limit of all.
const Limit = 16_384

// Options say how user-data is rendered. The zero value is the default.
type Options struct {
	// Limit is the largest size in bytes; 0 means Limit. Raise it only for a
	// platform whose limit is known.
	Limit int
}

// header opens every cloud-config; cloud-init takes nothing else for one.
const header = "#cloud-config\n"

//go:embed fetch.sh
var fetchScript string

// file is one file that cloud-init lays down.
type file struct {
	Path        string `yaml:"path"`
	Owner       string `yaml:"owner"`
	Permissions string `yaml:"permissions"`
	Encoding    string `yaml:"encoding"`
	Content     string `yaml:"content"`
}

// Render makes the #cloud-config of a cluster that Parse of package cluster
// accepted, with its secret. The result is ASCII, the same in every run, without
// templates, and at most Options.Limit bytes; a *SizeError says what is too big.
//
// cloud-init only lays files down and starts a unit: what may fail and must be
// tried again (the download, the metadata, the roll call) lives in systemd units,
// because cloud-init runs a command once and never again.
func Render(c cluster.Cluster, o Options) ([]byte, error) {
	return render(c, o, units.FS)
}

func render(c cluster.Cluster, o Options, units fs.FS) ([]byte, error) {
	files, err := filesOf(c, units)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(header)
	fmt.Fprintf(&b, "# %s: %s. It holds the cluster's\n"+
		"# secret. Made by `userdata render`; change the cluster file and render again.\n", c.Metadata.Name, purpose(c.Spec))
	// The node's own name must resolve; kubeadm warns otherwise. The host name itself
	// is left to the platform.
	b.WriteString("manage_etc_hosts: localhost\nwrite_files:\n")
	parts := map[string]int{}
	for _, f := range files {
		before := b.Len()
		f.write(&b)
		parts[f.Path] = b.Len() - before
	}
	fmt.Fprintf(&b, `runcmd:
- [systemctl, daemon-reload]
- [systemctl, enable, %[1]s, %[2]s]
- [systemctl, start, --no-block, %[2]s]
`, layout.UnitFetch, layout.UnitAgent)
	limit := o.Limit
	if limit == 0 {
		limit = Limit
	}
	if b.Len() > limit {
		return nil, &SizeError{Size: b.Len(), Limit: limit, Parts: parts}
	}
	return []byte(b.String()), nil
}

// purpose says which servers the user-data is for.
func purpose(s cluster.Spec) string {
	if s.Join.CA != "" {
		return "user-data for servers that join the formed cluster"
	}
	return fmt.Sprintf("founding user-data for %d servers, %d of them control planes", s.Servers.Expect, s.Servers.ControlPlanes)
}

// filesOf lists the files of a cluster in the order of the user-data.
func filesOf(c cluster.Cluster, units fs.FS) ([]file, error) {
	if c.Secret == "" {
		return nil, errors.New("rendering user-data: the cluster has no secret; it is read from the file that `userdata init` wrote beside the cluster file")
	}
	spec, err := cluster.Marshal(c)
	if err != nil {
		return nil, err
	}
	files := []file{
		{Path: layout.ClusterFile, Permissions: "0600", Content: string(spec)},
		{Path: layout.FetchEnv, Permissions: "0644", Content: fetchEnv(c.Spec.Agent)},
		{Path: layout.Fetch, Permissions: "0755", Content: bare(fetchScript)},
	}
	for _, name := range []string{layout.UnitFetch, layout.UnitAgent} {
		unit, err := fs.ReadFile(units, name)
		if err != nil {
			return nil, fmt.Errorf("rendering user-data: reading the embedded unit %s: %w", name, err)
		}
		files = append(files, file{Path: layout.UnitDir + "/" + name, Permissions: "0644", Content: bare(string(unit))})
	}
	return files, nil
}

// FetchScript is muster-fetch as it is written to layout.Fetch, for images that
// are baked.
func FetchScript() []byte { return []byte(fetchScript) }

// fetchEnv is what muster-fetch sources. The cluster file's validation lets no
// character through that ends a quoted word of a shell.
func fetchEnv(a cluster.AgentSource) string {
	return fmt.Sprintf("MUSTER_URLS='%s'\nMUSTER_SHA256_amd64='%s'\nMUSTER_SHA256_arm64='%s'\n",
		strings.Join(a.URLs, " "), a.SHA256["amd64"], a.SHA256["arm64"])
}

// bare drops comments and empty lines from a script or a unit, whose reasons are
// for the reader of the source and would fill a third of the size limit.
func bare(text string) string {
	var b strings.Builder
	for i, line := range strings.SplitAfter(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if i == 0 && strings.HasPrefix(trimmed, "#!") || trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// write appends an element of write_files. Permissions are quoted: as a number
// they would be read in decimal.
func (f file) write(b *strings.Builder) {
	fmt.Fprintf(b, "- path: %s\n  permissions: '%s'\n", f.Path, f.Permissions)
	if !isLiteral(f.Content) {
		fmt.Fprintf(b, "  encoding: b64\n  content: %s\n", base64.StdEncoding.EncodeToString([]byte(f.Content)))
		return
	}
	b.WriteString("  content: |\n")
	for line := range strings.Lines(f.Content) {
		if line != "\n" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
}

// isLiteral says that text survives as a YAML block: printable ASCII and tabs,
// lines that end, no blanks where YAML looks for the indentation.
func isLiteral(text string) bool {
	strange := func(r rune) bool { return r != '\n' && r != '\t' && (r < ' ' || r > '~') }
	return text != "" && !strings.ContainsAny(text[:1], " \t\n") && !strings.ContainsFunc(text, strange) &&
		strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\n\n")
}

// Parse reads the cluster back from user-data that Render made.
func Parse(data []byte) (cluster.Cluster, error) {
	if !strings.HasPrefix(string(data), header) {
		return cluster.Cluster{}, errors.New("this is no user-data of muster: its first line is not #cloud-config; `userdata render` writes it")
	}
	var doc struct {
		Files []file `yaml:"write_files"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return cluster.Cluster{}, fmt.Errorf("reading user-data: %w", err)
	}
	i := slices.IndexFunc(doc.Files, func(f file) bool { return f.Path == layout.ClusterFile })
	if i < 0 {
		return cluster.Cluster{}, fmt.Errorf("this user-data writes no %s; `userdata render` makes one that does", layout.ClusterFile)
	}
	f := doc.Files[i]
	content := []byte(f.Content)
	switch f.Encoding {
	case "":
	case "b64":
		var err error
		if content, err = base64.StdEncoding.DecodeString(f.Content); err != nil {
			return cluster.Cluster{}, fmt.Errorf("reading %s in user-data: %w", layout.ClusterFile, err)
		}
	default:
		return cluster.Cluster{}, fmt.Errorf("%s in user-data has encoding %q, expected none or b64", layout.ClusterFile, f.Encoding)
	}
	c, problems := cluster.ParseServer("user-data:"+layout.ClusterFile, content)
	return c, cluster.Err(problems)
}
