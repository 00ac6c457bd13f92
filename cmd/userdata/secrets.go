package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/cluster"
)

// secretFiles name the files of what goes into user-data and not into the cluster
// file; an empty name is the default.
type secretFiles struct{ secret, token string }

// read gives a cluster its secrets.
func (f secretFiles) read(s streams, file string, c *cluster.Cluster) (err error) {
	beside := func(name, suffix string) string {
		if name != "" {
			return name
		}
		return filepath.Join(filepath.Dir(file), c.Metadata.Name+suffix)
	}
	if c.Secret, err = readSecret(s, beside(f.secret, ".secret"), "name the one that userdata init wrote with --secret", cluster.ParseSecret); err != nil {
		return err
	}
	switch wanted := len(c.Spec.PacketAPIs()) > 0; {
	case wanted:
		c.APIToken, err = readSecret(s, beside(f.token, ".api-token"), "write the API's read-only token into it, or name the file with --api-token", cluster.ParseToken)
		return err
	case f.token != "":
		return exitError{exitUsage, fmt.Errorf("--api-token: %s has no discovery by packetAPI, which alone needs a token", file)}
	}
	return nil
}

// readSecret reads a file with a secret and warns when others can read it too. make
// says how the file comes to be.
func readSecret(s streams, path, make string, parse func([]byte) (cluster.Secret, error)) (cluster.Secret, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", exitError{exitData, fmt.Errorf("the secret file %s does not exist; %s", path, make)}
	} else if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		fmt.Fprintf(s.err, "%s: warning: others can read the secret, its mode is %04o (chmod 600 %s)\n", path, info.Mode().Perm(), path)
	}
	secret, err := parse(data)
	if err != nil {
		return "", exitError{exitData, fmt.Errorf("%s: %w", path, err)}
	}
	return secret, nil
}
