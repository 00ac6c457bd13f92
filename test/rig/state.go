package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/test/rig/machine"
)

const (
	stateFile    = "rig.json"
	stateVersion = 1
)

// state is what a process that finds the directory must know to go on.
type state struct {
	Version  int             `json:"version"`
	Name     string          `json:"name"`
	Image    Image           `json:"image"`
	BIRD     machine.Process `json:"bird"`
	Metadata machine.Process `json:"metadata"`
	Servers  []serverState   `json:"servers"`
}

// serverState is one server; its addresses follow from Index.
type serverState struct {
	Name       string          `json:"name"`
	Index      int             `json:"index"`
	ID         string          `json:"id"`
	Tags       []string        `json:"tags"`
	Public     bool            `json:"public"`
	Stack      Stack           `json:"stack,omitempty"`
	Platform   string          `json:"platform,omitempty"`
	Unplugged  bool            `json:"unplugged"`
	Supervisor machine.Process `json:"supervisor"`
}

func loadState(dir string) (state, error) {
	var s state
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("no rig in %s: %w", dir, err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("the rig's state %s is damaged: %w", path, err)
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("the rig's state %s is of version %d; expected %d: destroy it with the version that made it", path, s.Version, stateVersion)
	}
	return s, nil
}

// save writes the state; the caller holds mu or is alone.
func (r *Rig) save() error {
	b, err := json.MarshalIndent(r.state, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the rig's state: %w", err)
	}
	return machine.ReplaceFile(filepath.Join(r.dir, stateFile), append(b, '\n'), 0o644)
}

// update changes the state under the lock and writes it.
func (r *Rig) update(change func(*state)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.state)
	return r.save()
}

// updateServer changes one server's state and writes it.
func (r *Rig) updateServer(name string, change func(*serverState)) error {
	return r.update(func(st *state) {
		for i := range st.Servers {
			if st.Servers[i].Name == name {
				change(&st.Servers[i])
			}
		}
	})
}
