package userdata

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/units"
)

// File is one file that user-data lays down. root owns it.
type File struct {
	Path    string
	Mode    fs.FileMode // permission bits only
	Content string
}

// Contents is what user-data does to a server. Every format is written from it,
// so that all of them leave the same server behind.
//
// Nothing here may fail and have to be tried again (the download, the metadata,
// the roll call): cloud-init runs a command once and never again. That is what
// the units are for.
type Contents struct {
	Title  string   // what the user-data is for, one line of ASCII
	Files  []File   // in this order, units last
	Enable []string // units that start at every boot; the last needs the others and is started at once
}

// NewContents says what a cluster's servers with a prefix get. The cluster has its secret.
func NewContents(c cluster.Cluster, p layout.Prefix) (Contents, error) {
	text, ok := ownText()[p]
	if !ok {
		return Contents{}, fmt.Errorf("rendering user-data: there is no prefix %q; there are %v", p, layout.Prefixes)
	}
	return newContents(c, p, text)
}

// ownText is what is the same for each of a thousand servers, by prefix: the script that
// gets the agent and the units, without comments, by their names.
var ownText = sync.OnceValue(func() map[layout.Prefix]map[string]string {
	out := map[layout.Prefix]map[string]string{}
	for _, p := range layout.Prefixes {
		out[p] = map[string]string{fetchName: bare(p.Move(fetchScript))}
		for name, text := range units.For(p.Move) {
			out[p][name] = bare(string(text))
		}
	}
	return out
})

const fetchName = "muster-fetch"

func newContents(c cluster.Cluster, p layout.Prefix, text map[string]string) (Contents, error) {
	if c.Secret == "" {
		return Contents{}, errors.New("rendering user-data: the cluster has no secret; it is read from the file that `userdata init` wrote beside the cluster file")
	}
	spec, err := cluster.Marshal(c)
	if err != nil {
		return Contents{}, err
	}
	out := Contents{
		Title: c.Metadata.Name + ": " + purpose(c.Spec),
		Files: []File{
			{layout.ClusterFile, 0o600, string(spec)},
			{layout.FetchEnv, 0o644, c.Spec.Agent.FetchEnv()},
			{p.Fetch(), 0o755, text[fetchName]},
		},
		Enable: []string{layout.UnitFetch, layout.UnitAgent},
	}
	for _, name := range out.Enable {
		out.Files = append(out.Files, File{unitPath(name), 0o644, text[name]})
	}
	return out, nil
}

func unitPath(name string) string { return layout.UnitDir + "/" + name }

// purpose says which servers the user-data is for.
func purpose(s cluster.Spec) string {
	if s.Join.CA != "" {
		return "user-data for servers that join the formed cluster"
	}
	return fmt.Sprintf("founding user-data for %d servers, %d of them control planes", s.Servers.Expect, s.Servers.ControlPlanes)
}

// comment is the title with a warning, for the head of a text.
func (c Contents) comment() string {
	return "# " + c.Title + ". It holds the cluster's\n" +
		"# secret. Made by `userdata render`; change the cluster file and render again.\n"
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

// installerWords are what the operating system installer of the Packet platform
// looks for anywhere in user-data; it would install another image
// (osie, docker/scripts/osie.sh and frosie.sh).
var installerWords = []string{"image_repo=", "image_tag=", "image_uri=", "image_url=", "cpr_url=", "verbose_logging="}

// isPlain says that text may stand in user-data as it is, in a block of YAML and
// between the lines of a shell: printable ASCII and tabs, lines that end, no
// blanks where YAML looks for the indentation, and nothing that somebody on the
// way takes for himself.
func isPlain(text string) bool {
	strange := func(r rune) bool { return r != '\n' && r != '\t' && (r < ' ' || r > '~') }
	for _, word := range installerWords {
		if strings.Contains(text, word) {
			return false
		}
	}
	return text != "" && !strings.ContainsAny(text[:1], " \t\n") && !strings.ContainsFunc(text, strange) &&
		strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\n\n") && !strings.Contains("\n"+text, "\n"+endOfFile+"\n")
}
