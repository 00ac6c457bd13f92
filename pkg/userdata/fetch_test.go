package userdata

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mustermetal/muster/pkg/cluster"
)

// server is a directory that stands for a server on which muster-fetch runs.
type server struct {
	dir, script, agent, part string
	path                     string // PATH: the tools that this server has
}

// newServer lays muster-fetch down with the tools of a small Debian and one of
// curl, wget or none for downloads.
func newServer(t *testing.T, tool, machine string) server {
	t.Helper()
	dir := t.TempDir()
	s := server{dir: dir, script: filepath.Join(dir, "muster-fetch"), agent: filepath.Join(dir, "bin/bootstrap"), part: filepath.Join(dir, "bin/.bootstrap.part"), path: filepath.Join(dir, "tools")}
	for _, d := range []string{"bin", "tools"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tools := []string{"sh", "sha256sum", "cut", "wc", "sync", "sed", "chmod", "mv", "rm"}
	if tool != "" {
		tools = append(tools, tool)
	}
	for _, name := range tools {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		if err := os.Symlink(real, filepath.Join(s.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.write(t, filepath.Join(s.path, "uname"), "#!/bin/sh\necho "+machine+"\n", 0o755)
	script := strings.NewReplacer("/usr/local/bin/", filepath.Join(dir, "bin")+"/", "/etc/muster/fetch.env", s.env()).Replace(bare(fetchScript))
	s.write(t, s.script, script, 0o755)
	return s
}

func (s server) env() string { return filepath.Join(s.dir, "fetch.env") }

func (s server) write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	// A test beside this one that forks now would inherit the open file, and
	// running it would end in "text file busy".
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// run runs muster-fetch and returns its exit status and what it said.
func (s server) run(t *testing.T) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", s.script)
	cmd.Env = []string{"PATH=" + s.path}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); len(out) > 0 || err != nil && cmd.ProcessState == nil {
		t.Fatalf("stdout %q, %v", out, err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func sum(content []byte) string {
	h := sha256.Sum256(content)
	return hex.EncodeToString(h[:])
}

// mirror serves an agent in several broken ways and counts the bytes it sent.
type mirror struct {
	*httptest.Server
	content []byte
	cut     atomic.Int64 // the first responses end after so many bytes
	sent    atomic.Int64
}

func newMirror(t *testing.T, content []byte) *mirror {
	m := &mirror{content: content}
	mux := http.NewServeMux()
	mux.HandleFunc("/good/amd64", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(&counter{w, &m.sent}, r, "", time.Time{}, bytes.NewReader(m.content))
	})
	mux.HandleFunc("/norange/amd64", func(w http.ResponseWriter, r *http.Request) { w.Write(m.content) })
	mux.HandleFunc("/wrong/amd64", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>Log in to this hotspot</html>") })
	mux.HandleFunc("/redirect/amd64", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good/amd64", http.StatusFound)
	})
	mux.HandleFunc("/cut/amd64", func(w http.ResponseWriter, r *http.Request) {
		n := m.cut.Swap(0)
		if n == 0 {
			http.ServeContent(&counter{w, &m.sent}, r, "", time.Time{}, bytes.NewReader(m.content))
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(m.content)))
		w.Write(m.content[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	m.Server = httptest.NewServer(mux)
	t.Cleanup(m.Close)
	return m
}

// counter counts what a response sends.
type counter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}

func TestFetch(t *testing.T) {
	content := bytes.Repeat([]byte("agent\n"), 50_000)
	for _, tool := range []string{"curl", "wget"} {
		t.Run(tool, func(t *testing.T) {
			for _, row := range []struct {
				name   string
				urls   string // M is the mirror, DEAD one that refuses connections
				sums   map[string]string
				before string // what stands at the agent's path already
				part   []byte // what an earlier attempt left
				cut    int64
				runs   int // until the last, all fail with 1
				exit   int
				says   []string
				bytes  int64 // that the mirror sends at most, 0: any number
			}{
				{name: "good", urls: "M/good/ARCH", says: []string{"installed ", "/good/amd64\n"}},
				{name: "redirect", urls: "M/redirect/ARCH", says: []string{"installed "}},
				{name: "existing match", urls: "DEAD/ARCH", before: string(content)},
				{name: "another binary there", urls: "M/good/ARCH", before: "old", says: []string{"has sha256 ", "installed "}},
				{name: "404", urls: "M/nothing/ARCH", exit: 1, says: []string{"/nothing/amd64: ", "404", "no mirror had the agent"}},
				{name: "dead", urls: "DEAD/ARCH", exit: 1, says: []string{"/amd64: ", "onnect"}},
				{name: "wrong", urls: "M/wrong/ARCH", exit: 1, says: []string{"35 bytes with sha256 " + sum([]byte("<html>Log in to this hotspot</html>"))}},
				{name: "first mirror dead, second wrong", urls: "DEAD/ARCH M/wrong/ARCH M/good/ARCH", says: []string{"onnect", "35 bytes with", "installed "}},
				{name: "cut, then another mirror goes on", urls: "M/cut/ARCH M/good/ARCH", cut: 100_000, says: []string{"/cut/amd64: ", "installed ", "/good/amd64\n"}, bytes: 200_000},
				{name: "cut, then the next run goes on", urls: "M/cut/ARCH", cut: 100_000, runs: 2, says: []string{"installed "}, bytes: 200_000},
				{name: "power lost before the rename", urls: "DEAD/ARCH", part: content, says: []string{"installed ", "an earlier download"}},
				{name: "part of another agent", urls: "M/good/ARCH", part: bytes.Repeat([]byte("x"), 1000), says: []string{"cannot resume at 1000 bytes", "installed "}},
				{name: "part longer than the agent", urls: "M/good/ARCH", part: bytes.Repeat([]byte("x"), 400_000), says: []string{"cannot resume", "installed "}},
				{name: "mirror without ranges", urls: "M/norange/ARCH", part: content[:1000], says: []string{"installed "}},
				{name: "no sha256, baked", before: "baked", sums: map[string]string{}, says: []string{"accepting the agent of the image"}},
				{name: "no sha256, nothing baked", sums: map[string]string{}, exit: 78, says: []string{"no agent in the image", "agent.sha256.amd64"}},
				{name: "wrong one baked", before: "baked", exit: 78, says: []string{"no agent.urls"}},
				{name: "sha256 of the other architecture only", urls: "M/good/ARCH", sums: map[string]string{"arm64": sum(content)}, exit: 78, says: []string{"agent.sha256.amd64"}},
			} {
				t.Run(row.name, func(t *testing.T) {
					t.Parallel()
					s, m := newServer(t, tool, "x86_64"), newMirror(t, content)
					m.cut.Store(row.cut)
					sums := row.sums
					if sums == nil {
						sums = map[string]string{"amd64": sum(content), "arm64": sum([]byte("another"))}
					}
					urls := strings.Fields(strings.NewReplacer("M/", m.URL+"/", "DEAD", "http://127.0.0.1:1").Replace(row.urls))
					s.write(t, s.env(), cluster.AgentSource{URLs: urls, SHA256: sums}.FetchEnv(), 0o644)
					if row.before != "" {
						s.write(t, s.agent, row.before, 0o755)
					}
					if row.part != nil {
						s.write(t, s.part, string(row.part), 0o644)
					}
					for range max(row.runs, 1) - 1 {
						if code, said := s.run(t); code != 1 {
							t.Fatalf("exit %d, want 1 to be tried again\n%s", code, said)
						}
					}
					code, said := s.run(t)
					if code != row.exit {
						t.Fatalf("exit %d, want %d\n%s", code, row.exit, said)
					}
					for _, want := range row.says {
						if !strings.Contains(said, want) {
							t.Errorf("does not say %q:\n%s", want, said)
						}
					}
					if row.says == nil && said != "" {
						t.Errorf("says %q, want nothing", said)
					}
					s.checkAgent(t, row.exit == 0, row.before, content)
					if sent := m.sent.Load(); row.bytes > 0 && sent > row.bytes {
						t.Errorf("%d bytes were sent after the cut, want at most %d: it did not resume", sent, row.bytes)
					}
				})
			}
		})
	}
}

// checkAgent checks what stands at the agent's path: the whole agent, or what was
// there before, and never anything else.
func (s server) checkAgent(t *testing.T, success bool, before string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(s.agent)
	switch {
	case success && before == "baked":
		if string(got) != before {
			t.Error("the baked agent was touched")
		}
		return
	case success:
		info, _ := os.Stat(s.agent)
		if !bytes.Equal(got, content) || info.Mode().Perm() != 0o755 {
			t.Errorf("the agent has %d bytes, want %d; mode %v, %v", len(got), len(content), info.Mode(), err)
		}
		if _, err := os.Stat(s.part); err == nil {
			t.Error("the partial download is left")
		}
	case before == "" && err == nil, before != "" && string(got) != before:
		t.Errorf("a failure left %d bytes at the agent's path", len(got))
	}
}

func TestFetchCannot(t *testing.T) {
	content := []byte("agent")
	s := newServer(t, "", "x86_64")
	if code, said := s.run(t); code != 78 || !strings.Contains(said, "fetch.env is missing") {
		t.Errorf("without fetch.env: exit %d, %s", code, said)
	}
	s.write(t, s.env(), cluster.AgentSource{URLs: []string{"http://127.0.0.1:1/x"}, SHA256: map[string]string{"amd64": sum(content)}}.FetchEnv(), 0o644)
	if code, said := s.run(t); code != 1 || !strings.Contains(said, "neither curl nor wget is installed") {
		t.Errorf("without tools: exit %d, %s", code, said)
	}
	s = newServer(t, "", "riscv64")
	s.write(t, s.env(), cluster.AgentSource{}.FetchEnv(), 0o644)
	if code, said := s.run(t); code != 78 || !strings.Contains(said, "this machine is riscv64") {
		t.Errorf("riscv64: exit %d, %s", code, said)
	}
	// curl reads files too: any scheme will do, the sha256 decides.
	s = newServer(t, "curl", "aarch64")
	file := filepath.Join(s.dir, "agent-arm64")
	s.write(t, file, string(content), 0o644)
	s.write(t, s.env(), cluster.AgentSource{URLs: []string{"file://" + s.dir + "/agent-ARCH"}, SHA256: map[string]string{"arm64": sum(content)}}.FetchEnv(), 0o644)
	if code, said := s.run(t); code != 0 {
		t.Errorf("file://: exit %d, %s", code, said)
	}
}
