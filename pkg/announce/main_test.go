package announce

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// The test binary runs itself again in other network namespaces: once as the
// tests, in the routers' namespace, and once for each server of a test.
const (
	inNamespace = "MUSTER_ANNOUNCE_TEST_NAMESPACE"
	asServer    = "MUSTER_ANNOUNCE_TEST_SERVER" // the directory of a server's files
	asAPIServer = "MUSTER_ANNOUNCE_TEST_API"    // the same, for its API server
)

func TestMain(m *testing.M) {
	for variable, run := range map[string]func(dir string) error{asServer: serverMain, asAPIServer: apiMain} {
		dir := os.Getenv(variable)
		if dir == "" {
			continue
		}
		if err := run(dir); err != nil {
			fmt.Fprintln(os.Stderr, "test server:", err)
			os.Exit(1)
		}
		return
	}
	if os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests in a network namespace:", err)
		os.Exit(1)
	}
}
