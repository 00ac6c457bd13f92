package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/userdata"
)

// fromSpec is the list of servers that the cluster file has itself.
const fromSpec = "spec"

// hostname is what a server may be called: also the name of a file.
var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// readServers reads the list that --per-server names.
func readServers(s streams, list string, c cluster.Cluster) ([]userdata.Server, error) {
	var out []userdata.Server
	switch list {
	case fromSpec:
		for _, d := range c.Spec.Static {
			if d.Hostname != "" { // an overlay may leave it to the platform
				out = append(out, userdata.Server{Name: d.Hostname})
			}
		}
		if len(out) == 0 {
			return nil, exitError{exitData, errors.New("--per-server spec takes the servers of spec.static, and this cluster file has none; name a file with one hostname a line")}
		}
		return out, nil
	case "-":
		return parseServers("<stdin>", s.in)
	}
	f, err := os.Open(list)
	if err != nil {
		return nil, exitError{exitData, fmt.Errorf("--per-server: %w", err)}
	}
	defer f.Close()
	return parseServers(list, f)
}

// parseServers reads one server a line: HOSTNAME [ROLE]; # begins a comment.
func parseServers(name string, r io.Reader) ([]userdata.Server, error) {
	var out []userdata.Server
	seen := map[string]int{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		wrong := func(format string, args ...any) error {
			return exitError{exitData, fmt.Errorf("%s:%d: "+format, append([]any{name, n}, args...)...)}
		}
		key := strings.ToLower(words[0])
		server := userdata.Server{Name: words[0]}
		if len(words) > 1 {
			server.Role = member.Role(words[1])
		}
		switch {
		case len(words) > 2 || server.Role != member.NoRole && !isRole(server.Role):
			return nil, wrong("%q: expected HOSTNAME, or HOSTNAME and control-plane or worker", strings.Join(words, " "))
		case !hostname.MatchString(words[0]):
			return nil, wrong("%q is no hostname: letters, digits, hyphens and dots", words[0])
		case seen[key] > 0:
			return nil, wrong("%s stands in line %d already", words[0], seen[key])
		}
		seen[key] = n
		out = append(out, server)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(out) == 0 {
		return nil, exitError{exitData, fmt.Errorf("%s names no server; write one hostname a line", name)}
	}
	return out, nil
}

func isRole(r member.Role) bool { return r == member.ControlPlane || r == member.Worker }

// noteServers says what the number of servers comes to, where it is not what the
// cluster expects.
func noteServers(w io.Writer, servers []userdata.Server, spec cluster.Spec) {
	if spec.Join.CA != "" {
		return
	}
	if n := len(servers); n != spec.Servers.Expect {
		fmt.Fprintf(w, "userdata render: warning: %s in the list, and the cluster expects %d (spec.servers.expect)\n", count(n, "server"), spec.Servers.Expect)
	}
	planes, open := 0, 0
	for _, s := range servers {
		switch s.Role {
		case member.ControlPlane:
			planes++
		case member.NoRole:
			open++
		}
	}
	if open == 0 && planes < spec.Servers.ControlPlanes {
		fmt.Fprintf(w, "userdata render: warning: %s may become control planes, and the cluster waits for %d (spec.servers.controlPlanes)\n", count(planes, "server"), spec.Servers.ControlPlanes)
	}
}

// line is the user-data of one server, for programs.
type line struct {
	Server   string          `json:"server"`
	Role     member.Role     `json:"role,omitempty"`
	Format   userdata.Format `json:"format"`
	UserData string          `json:"userData"`
}

// renderEach gives every server's user-data to take, in the order of the list. What two servers
// have in common is rendered once.
func renderEach(c cluster.Cluster, servers []userdata.Server, o userdata.Options, take func(userdata.Server, []byte) error) error {
	same := map[member.Role][]byte{}
	for _, server := range servers {
		data := same[server.Role]
		if data == nil || c.Spec.Platform == cluster.PlatformStatic {
			var err error
			if data, err = renderOne(c, server, o); err != nil {
				return err
			}
			same[server.Role] = data
		}
		if err := take(server, data); err != nil {
			return err
		}
	}
	return nil
}

// renderOne renders for one server, or for all of them.
func renderOne(c cluster.Cluster, server userdata.Server, o userdata.Options) ([]byte, error) {
	own, err := server.Of(c)
	if err != nil {
		return nil, exitError{exitData, err}
	}
	data, err := userdata.Render(own, o)
	var size *userdata.SizeError
	if errors.As(err, &size) {
		return nil, exitError{exitData, err}
	}
	return data, err
}

// writeLines prints one JSON object for each server.
func writeLines(w io.Writer, c cluster.Cluster, servers []userdata.Server, o userdata.Options) error {
	out := bufio.NewWriter(w)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	err := renderEach(c, servers, o, func(s userdata.Server, data []byte) error {
		return e.Encode(line{s.Name, s.Role, o.Format, string(data)})
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// writeFiles writes the user-data of each server to a file of its name.
func writeFiles(dir string, c cluster.Cluster, servers []userdata.Server, o userdata.Options) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return renderEach(c, servers, o, func(s userdata.Server, data []byte) error {
		return replaceFile(filepath.Join(dir, s.Name), data, 0o600)
	})
}

// replaceFile writes a file whole; whoever has the old one open keeps it.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return os.Chmod(path, mode)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Chmod(f.Name(), mode)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// writeTree writes the tree of a server's files.
func writeTree(dir string, c cluster.Cluster, server userdata.Server, p layout.Prefix) error {
	own, err := server.Of(c)
	if err != nil {
		return exitError{exitData, err}
	}
	contents, err := userdata.NewContents(own, p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, n := range contents.Tree() {
		at := filepath.Join(dir, filepath.FromSlash(n.Path))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if n.Target == "" {
			err = replaceFile(at, []byte(n.Content), n.Mode)
		} else if to, no := os.Readlink(at); no != nil || to != n.Target {
			err = os.Symlink(n.Target, at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
