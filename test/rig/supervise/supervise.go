// Package supervise keeps one server running while it reboots itself, after the
// program that made it is gone.
package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Config says how a server is started. It is read anew at every start.
type Config struct {
	// Cgroups are the directories that the server's processes go into.
	Cgroups []string `json:"cgroups"`
	// Unwire takes the server's network away, whatever is left of it; errors are
	// ignored. Wire makes it. A reboot does both: addresses, routes and rules do not
	// survive one.
	Unwire [][]string `json:"unwire"`
	Wire   [][]string `json:"wire"`
	// Start is systemd-nspawn with its arguments, Env its environment.
	Start []string `json:"start"`
	Env   []string `json:"env"`
}

// rebooted is systemd-nspawn's exit status when the container asked for a reboot
// (systemd-nspawn(1), EXIT STATUS; RestartForceExitStatus= of its unit).
const rebooted = 133

// Run starts the server of the configuration file, again after every reboot, and
// returns when it is off.
func Run(file string) error {
	for {
		c, err := load(file)
		if err != nil {
			return err
		}
		again, err := once(c)
		if err != nil || !again {
			return err
		}
		// A reboot loses every cgroup. Left over ones of pods would hold the kubelet
		// up for a minute (cadvisor waits for them).
		for _, dir := range c.Cgroups {
			empty(dir)
		}
	}
}

func load(file string) (Config, error) {
	var c Config
	b, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("how to start the server: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("how to start the server, %s: %w", file, err)
	}
	return c, nil
}

func once(c Config) (again bool, err error) {
	for _, dir := range c.Cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return false, fmt.Errorf("entering the server's cgroup: %w", err)
		}
	}
	if err := Rewire(c); err != nil {
		return false, err
	}
	cmd := exec.Command(c.Start[0], c.Start[1:]...)
	cmd.Env = c.Env
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Its own session, so that it takes no terminal of whoever started the rig.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == rebooted {
		fmt.Println("rig: the server reboots")
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.Start[0], err)
	}
	fmt.Println("rig: the server is off")
	return false, nil
}

// Rewire gives the server a new, clean network.
func Rewire(c Config) error {
	for _, argv := range c.Unwire {
		_ = exec.Command(argv[0], argv[1:]...).Run()
	}
	for _, argv := range c.Wire {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("wiring the server: %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// empty removes all cgroups below dir; what still holds a process stays.
func empty(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			empty(filepath.Join(dir, e.Name()))
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
