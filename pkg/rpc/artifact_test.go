package rpc_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/agent"
	"github.com/mustermetal/muster/pkg/rpc"
)

func TestArtifact(t *testing.T) {
	ca := newCA(t)
	ring := keyring(t, ca, serverInst, serverHW)
	body := bytes.Repeat([]byte("kubelet"), 1000)
	sum := strings.Repeat("ab", 32)
	path := filepath.Join(t.TempDir(), sum)
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, ring.ServerConfig(), rpc.ArtifactHandler(func(asked string) (*os.File, error) {
		if asked != sum {
			return nil, fs.ErrNotExist
		}
		return os.Open(path)
	}, who))
	to := agent.Peer{Inst: serverInst, Address: loopback}
	c := client(p, keyring(t, ca, callerInst, callerHW))
	for _, offset := range []int64{0, 1234} {
		r, err := c.Artifact(t.Context(), to, sum, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, body[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
	if _, err := c.Artifact(t.Context(), to, strings.Repeat("cd", 32), 0); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "this server has no such artefact") {
		t.Errorf("unknown: %v", err)
	}
	// Who has a certificate of another CA gets nothing.
	if r, err := client(p, keyring(t, newCA(t), callerInst, callerHW)).Artifact(t.Context(), to, sum, 0); err == nil {
		_ = r.Close()
		t.Error("a stranger got an artefact")
	}
}

// TestArtifactBusy: a server gives to four at once and says so to the fifth.
func TestArtifactBusy(t *testing.T) {
	ca := newCA(t)
	path := filepath.Join(t.TempDir(), "f")
	// More than the buffers of a connection hold, so that transfers stand still.
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 64<<20)); err != nil {
		t.Fatal(err)
	}
	p := serve(t, keyring(t, ca, serverInst, serverHW).ServerConfig(), rpc.ArtifactHandler(func(string) (*os.File, error) { return os.Open(path) }, who))
	c := client(p, keyring(t, ca, callerInst, callerHW))
	to := agent.Peer{Inst: serverInst, Address: loopback}
	for range 4 {
		r, err := c.Artifact(t.Context(), to, strings.Repeat("ab", 32), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
	}
	if _, err := c.Artifact(t.Context(), to, strings.Repeat("ab", 32), 0); !errors.Is(err, agent.ErrNotReady) || !strings.Contains(err.Error(), "gives artefacts to 4 others already") {
		t.Errorf("the fifth: %v", err)
	}
}
