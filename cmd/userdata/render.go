package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/userdata"
)

var renderCommand = command{
	name: "render", args: "[-f FILE] [--secret FILE] > user-data",
	summary: "print the user-data that every founding server boots with",
	help: `Prints #cloud-config user-data: the cluster file with the secret, the fetch script,
and the units. Paste it into the provider's form or hand it to a command line; it is
the same for every server, and the same in every run. It holds the secret: keep it
where only you can read it.

Examples:
  userdata render > user-data
  userdata render -f - --secret /run/secrets/k8s-bgp < cluster.yaml > user-data
`,
	flags: func(set *flag.FlagSet) func(streams, []string) error {
		file := fileFlag(set)
		secret := set.String("secret", "", "the `file` with the secret (default: NAME.secret beside the cluster file)")
		limit := set.Int("limit", userdata.Limit, "the largest size in `bytes` that the platform takes")
		return func(s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			return render(s, *file, *secret, *limit)
		}
	},
}

func render(s streams, file, secretFile string, limit int) error {
	c, problems, err := load(s, file)
	if err != nil {
		return err
	}
	if show(s.err, problems) > 0 {
		return errReported
	}
	if secretFile == "" {
		secretFile = filepath.Join(filepath.Dir(file), c.Metadata.Name+".secret")
	}
	if c.Secret, err = readSecret(s, secretFile); err != nil {
		return err
	}
	data, err := userdata.Render(c, userdata.Options{Limit: limit})
	var size *userdata.SizeError
	if errors.As(err, &size) {
		return exitError{exitData, err}
	} else if err != nil {
		return err
	}
	_, err = s.out.Write(data)
	return err
}

// readSecret reads the secret file and warns when others can read it too.
func readSecret(s streams, path string) (cluster.Secret, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", exitError{exitData, fmt.Errorf("the secret file %s does not exist; name the one that userdata init wrote with --secret", path)}
	} else if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		fmt.Fprintf(s.err, "%s: warning: others can read the secret, its mode is %04o (chmod 600 %s)\n", path, info.Mode().Perm(), path)
	}
	secret, err := cluster.ParseSecret(data)
	if err != nil {
		return "", exitError{exitData, fmt.Errorf("%s: %w", path, err)}
	}
	return secret, nil
}
