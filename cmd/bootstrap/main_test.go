package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mustermetal/muster/pkg/cluster"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"bootstrap": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the command lines of testdata/script. None of them starts
// anything on this machine.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			c, problems := cluster.Parse("template", cluster.Template("demo", trustSpec, 5, 3))
			if err := cluster.Err(problems); err != nil {
				return err
			}
			var err error
			if c.Secret, err = cluster.NewSecret(bytes.NewReader(bytes.Repeat([]byte{7}, 64))); err != nil {
				return err
			}
			data, err := cluster.Marshal(c)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "cluster.yaml"), data, 0o600)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			if path, ok := strings.CutPrefix(cond, "exists:"); ok {
				_, err := os.Stat(path)
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}
