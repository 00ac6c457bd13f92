package images

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fillConfig is a containerd that only stores: no CRI, no plugin that touches
// this machine outside of the directories given.
const fillConfig = `version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = %q
`

// fillStore runs this component's own containerd on an empty store, imports
// every archive into the namespace that the kubelet uses, and stops it. Its
// mounts happen in a mount namespace of its own, so none can be left behind.
func (b *builder) fillStore(ctx context.Context, bin, archives, store string) (err error) {
	// Socket paths are limited to 107 bytes, and the cache may lie deep.
	state, err := os.MkdirTemp("", "muster-store-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	socket := filepath.Join(state, "containerd.sock")
	config := filepath.Join(state, "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, fillConfig, store, filepath.Join(state, "run"), socket), 0o600); err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(b.cache.dir, "log", "store.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	daemon := exec.Command(filepath.Join(bin, "containerd"), "--config", config) //nolint:noctx // stopped below, after its clients
	daemon.Stdout, daemon.Stderr = logFile, logFile
	// The namespace is private (Go makes its mounts so), and the daemon dies with us.
	daemon.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("starting containerd: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- daemon.Wait() }()
	err = b.importArchives(ctx, bin, archives, socket, exited)
	if err != nil {
		err = fmt.Errorf("%w; containerd's last lines:\n%s\n(all of it: %s)", err, lastLines(logFile.Name(), 6), logFile.Name())
	}
	if err = errors.Join(err, stop(daemon, exited)); err != nil {
		return err
	}
	// Every server's containerd shall make its own id.
	return os.Remove(filepath.Join(store, "io.containerd.grpc.v1.introspection/uuid"))
}

// importArchives waits for the daemon's socket and imports one archive after the
// other, in the order of their names.
func (b *builder) importArchives(ctx context.Context, bin, archives, socket string, exited <-chan error) error {
	if err := waitSocket(ctx, socket, exited); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(archives, "*.tar"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, fmt.Errorf("%s holds no archive", archives))
	}
	slices.Sort(files)
	ctr := func(name string, args ...string) error {
		return b.cache.runCommand(name, exec.CommandContext(ctx, filepath.Join(bin, "ctr"), append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...))
	}
	for _, file := range files {
		name := "import-" + strings.TrimSuffix(filepath.Base(file), ".tar")
		// --local unpacks through this client; the transfer service would need a
		// configuration of its own.
		if err := ctr(name, "images", "import", "--local", file); err != nil {
			return err
		}
	}
	// Says so when an image's content or snapshot is incomplete.
	return ctr("import-check", "images", "check")
}

func waitSocket(ctx context.Context, socket string, exited <-chan error) error {
	// It answers within a second; a minute allows for a machine under load.
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer at %s after %s: %w", socket, patience, err)
		case err := <-exited:
			return fmt.Errorf("containerd ended at its start: %v", err) //nolint:errorlint // nil for exit code 0
		case <-tick.C:
		}
	}
}

// stop asks the daemon to end, so that its databases are whole, and insists
// after half a minute.
func stop(daemon *exec.Cmd, exited <-chan error) error {
	if err := daemon.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	} else if err != nil {
		return err
	}
	select {
	case err := <-exited:
		if err != nil {
			return fmt.Errorf("containerd: %w", err)
		}
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("containerd did not end within 30 s of SIGTERM and was killed; its store is not used"), daemon.Process.Kill())
	}
}
