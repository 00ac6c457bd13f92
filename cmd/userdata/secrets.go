package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/mustermetal/muster/pkg/cluster"
)

// secretFiles name the files of what goes into user-data and not into the cluster
// file; an empty name is the default.
type secretFiles struct{ secret, token, identity string }

// read gives a cluster its secrets.
func (f secretFiles) read(ctx context.Context, s streams, file string, c *cluster.Cluster) (err error) {
	beside := func(name, suffix string) string {
		if name != "" {
			return name
		}
		return filepath.Join(filepath.Dir(file), c.Metadata.Name+suffix)
	}
	if from := c.Spec.SecretFrom; f.secret == "" && !from.IsZero() {
		c.Secret, err = f.fetch(ctx, s, filepath.Dir(file), from)
	} else {
		c.Secret, err = f.readSecret(beside(f.secret, ".secret"), "name the one that userdata init wrote with --secret", cluster.ParseSecret)
	}
	if err != nil {
		return err
	}
	switch wanted := len(c.Spec.PacketAPIs()) > 0; {
	case wanted:
		c.APIToken, err = f.readSecret(beside(f.token, ".api-token"), "write the API's read-only token into it, or name the file with --api-token", cluster.ParseToken)
		return err
	case f.token != "":
		return exitError{exitUsage, fmt.Errorf("--api-token: %s has no discovery by packetAPI, which alone needs a token", file)}
	}
	return nil
}

// fetch gets the secret where spec.secretFrom says.
func (f secretFiles) fetch(ctx context.Context, s streams, dir string, from cluster.SecretSource) (cluster.Secret, error) {
	switch {
	case from.File != "":
		path := from.File
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return f.readSecret(path, "it is what spec.secretFrom.file names", cluster.ParseSecret)
	case from.Env != "":
		value := os.Getenv(from.Env)
		if value == "" {
			return "", exitError{exitData, fmt.Errorf("the environment has no %s, which spec.secretFrom.env names; let your secret store set it", from.Env)}
		}
		return parsed("the variable "+from.Env, []byte(value), cluster.ParseSecret)
	}
	data, err := ask(ctx, s, from.Exec)
	if err != nil {
		return "", exitError{exitFailed, fmt.Errorf("asking for the secret (spec.secretFrom.exec): %w", err)}
	}
	return parsed(from.Exec[0], data, cluster.ParseSecret)
}

// A store that asks a person for a PIN needs a minute; a secret has 45 bytes.
const (
	askPatience = 2 * time.Minute
	maxSecret   = 64 << 10
)

// ask runs a command of the operator's secret store. What it prints is the secret,
// so nothing of it is shown; what it says on stderr is for the operator.
func ask(ctx context.Context, s streams, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askPatience, fmt.Errorf("no answer within %s", askPatience))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, &out, s.err
	cmd.WaitDelay = time.Second // an agent that the store left running holds its output open
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the store itself has ended well
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", argv[0], context.Cause(ctx))
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	return out.Bytes(), nil
}

// readSecret reads a file with a secret, which others must not be able to read
// unless it is encrypted. make says how the file comes to be.
func (f secretFiles) readSecret(path, make string, parse func([]byte) (cluster.Secret, error)) (cluster.Secret, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", exitError{exitData, fmt.Errorf("the secret file %s does not exist; %s", path, make)}
	} else if err != nil {
		return "", err
	}
	if strings.HasSuffix(path, ".age") {
		if data, err = f.decrypt(path, data); err != nil {
			return "", exitError{exitData, fmt.Errorf("%s: %w", path, err)}
		}
	} else if err := private(path); err != nil {
		return "", err
	}
	return parsed(path, data, parse)
}

// private refuses a file that others can read: who else has it could not be told
// afterwards.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || os.PathSeparator != '/' {
		return err // a pipe is nobody else's; Windows has no such modes
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return exitError{exitData, fmt.Errorf("others can read the secret %s, its mode is %04o: chmod 600 %s, and if others use this machine, make a new one with userdata rotate", path, mode, path)}
	}
	return nil
}

// decrypt opens a file of age with the identities in --identity.
func (f secretFiles) decrypt(path string, data []byte) ([]byte, error) {
	if f.identity == "" {
		return nil, fmt.Errorf("it is encrypted with age: name the file with your identity, --identity FILE")
	}
	if err := private(f.identity); err != nil {
		return nil, err
	}
	keys, err := os.Open(f.identity)
	if err != nil {
		return nil, err
	}
	defer keys.Close()
	identities, err := age.ParseIdentities(keys)
	if err != nil {
		return nil, fmt.Errorf("reading the identity %s: %w; expected AGE-SECRET-KEY-1…, as age-keygen writes it", f.identity, err)
	}
	var sealed io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte(armor.Header)) {
		sealed = armor.NewReader(sealed)
	}
	plain, err := age.Decrypt(sealed, identities...)
	if err != nil {
		return nil, fmt.Errorf("opening it with %s: %w", f.identity, err)
	}
	return io.ReadAll(io.LimitReader(plain, maxSecret))
}

func parsed(where string, data []byte, parse func([]byte) (cluster.Secret, error)) (cluster.Secret, error) {
	secret, err := parse(data)
	if err != nil {
		return "", exitError{exitData, fmt.Errorf("%s: %w", where, err)}
	}
	return secret, nil
}

// warnOfReaders says once what reading user-data allows (docs/threat-model.md).
func warnOfReaders(w io.Writer, c cluster.Cluster) {
	fmt.Fprintf(w, "note: who can read this user-data can pose as a server of %s: vote while it forms, and join it, as a control plane too while one is missing. Keep it as you keep admin.conf\n", c.Metadata.Name)
}
