package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Raised are settings of the whole machine that several servers exhaust: every
// systemd, kubelet and containerd holds inotify instances of user 0, about 25 a
// control plane, and the kernel's default is 128.
var Raised = map[string]int{
	"/proc/sys/fs/inotify/max_user_instances": 4096,
	"/proc/sys/fs/inotify/max_user_watches":   524288,
}

// hostDir holds what all rigs of this machine share. It is lost at reboot, as the
// settings are.
const hostDir = "/run/muster-rig"

// holding is one raised setting: what it was, and who needs it raised.
type holding struct {
	Was  int      `json:"was"`
	Rigs []string `json:"rigs"`
}

// RaiseSysctls raises the settings for a set of servers and notes who needs them,
// because the first set to go must not lower them under the second. holder is a
// file that is there as long as the set is.
func RaiseSysctls(holder string) error {
	return withHoldings(func(h map[string]holding) error {
		for path, want := range Raised {
			now, err := ReadInt(path)
			if err != nil {
				return err
			}
			held, ok := h[path]
			if !ok {
				held.Was = now
			}
			if !slices.Contains(held.Rigs, holder) {
				held.Rigs = append(held.Rigs, holder)
			}
			h[path] = held
			if now < want {
				if err := os.WriteFile(path, []byte(strconv.Itoa(want)), 0); err != nil {
					return fmt.Errorf("raising %s from %d to %d: %w", path, now, want, err)
				}
			}
		}
		return nil
	})
}

// ReleaseSysctls puts back what nobody needs any more. Holders that are gone were
// removed by hand and count no longer.
func ReleaseSysctls(holder string) error {
	return withHoldings(func(h map[string]holding) error {
		var errs []error
		for path, held := range h {
			held.Rigs = slices.DeleteFunc(held.Rigs, func(h string) bool {
				_, err := os.Stat(h)
				return h == holder || errors.Is(err, os.ErrNotExist)
			})
			h[path] = held
			if len(held.Rigs) > 0 {
				continue
			}
			delete(h, path)
			if err := os.WriteFile(path, []byte(strconv.Itoa(held.Was)), 0); err != nil {
				errs = append(errs, fmt.Errorf("putting %s back to %d: %w", path, held.Was, err))
			}
		}
		return errors.Join(errs...)
	})
}

// withHoldings runs change over the machine's holdings, one process at a time.
func withHoldings(change func(map[string]holding) error) error {
	if err := os.MkdirAll(hostDir, 0o755); err != nil {
		return fmt.Errorf("noting raised settings: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(hostDir, "sysctl.json"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("noting raised settings: %w", err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	h := map[string]holding{}
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		if err := json.NewDecoder(f).Decode(&h); err != nil {
			return fmt.Errorf("%s is damaged, remove it: %w", f.Name(), err)
		}
	}
	changed := change(h)
	b, err := json.Marshal(h)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	return errors.Join(changed, err)
}

// ReadInt reads a setting.
func ReadInt(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading a setting: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", path, err)
	}
	return n, nil
}
