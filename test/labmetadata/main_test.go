package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun starts the program as a person does, and asks it.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	inventory, files := filepath.Join(dir, "lab.yaml"), filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{inventory: "servers: [{id: i-1, hostname: cp1, addresses: [{address: 127.0.0.1/8}]}]", filepath.Join(files, "agent"): "binary"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	reads, writes := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"--inventory", inventory, "--listen", "127.0.0.1:0", "--files", files}, writes)
	}()
	said, err := bufio.NewReader(reads).ReadString('\n')
	if err != nil || !strings.HasSuffix(said, "tells 1 servers of "+inventory+" what they are\n") {
		t.Fatalf("it says %q, %v", said, err)
	}
	base, _, _ := strings.Cut(said, " ")
	for path, want := range map[string]string{"/nocloud/meta-data": "instance-id: i-1", "/2009-04-04/meta-data/hostname": "cp1", "/files/agent": "binary"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %q, %v", path, body, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped: %v", err)
	}
	if err := run(t.Context(), []string{"--inventory", filepath.Join(dir, "none.yaml")}, io.Discard); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("without an inventory: %v", err)
	}
}
