package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// InitOf finds the machine's PID 1, as this host sees it, below its
// systemd-nspawn.
func InitOf(nspawn int) (p Process, found bool) {
	for _, child := range Children(nspawn) {
		if isInit(child) {
			p, err := Identify(child)
			return p, err == nil
		}
	}
	return Process{}, false
}

// Children lists the child processes of a process, proc(5).
func Children(pid int) []int {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended
		}
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// isInit says whether a process is number 1 in a pid namespace below ours.
func isInit(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(rest)
			return len(ids) > 1 && ids[len(ids)-1] == "1"
		}
	}
	return false
}

// environment of programs run inside: that of a root login.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8", "SYSTEMD_PAGER=",
	"KUBECONFIG=/etc/kubernetes/admin.conf",
}

// Enter is the command line of this host that runs argv as root inside the machine
// whose PID 1 is init, with env added to the environment.
func Enter(init Process, argv []string, env ...string) []string {
	enter := []string{"nsenter", "-t", strconv.Itoa(init.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--", "env", "-i"}
	enter = append(append(enter, environment...), env...)
	return append(enter, argv...)
}
