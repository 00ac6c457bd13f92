package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mustermetal/muster/pkg/cluster"
)

var rotateCommand = command{
	name: "rotate", args: "[-f FILE] [--secret FILE]",
	summary: "make a new secret, and say what it takes on a running cluster",
	help: `Makes a new secret in the place of NAME.secret and keeps the old one as
NAME.secret.old, until you remove it. Nothing on any server changes by that: there
bootstrap rotate takes it up, in three steps that the command prints.

Example:
  userdata rotate -f clusters/k8s-bgp/cluster.yaml

Exit codes: 0 done, 1 a file cannot be written, 64 wrong command line, 65 the cluster file or the
secret is wrong, or an earlier rotation has not ended.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		file := fileFlag(set)
		secret := set.String("secret", "", "the `file` with the secret (default: NAME.secret beside the cluster file)")
		return func(_ context.Context, s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			return rotate(s, *file, *secret)
		}
	},
}

// rotate replaces the secret; the old one is there at every moment.
func rotate(s streams, file, path string) error {
	name, data, err := readCluster(s, file)
	if err != nil {
		return err
	}
	beside := besides(file)
	beside.Formed = true // it may have
	c, problems := cluster.ParseUnlocked(name, data, beside)
	if cluster.Err(problems) != nil {
		show(s.err, problems)
		return errReported
	}
	if path == "" {
		if from := c.Spec.SecretFrom; !from.IsZero() {
			return exitError{exitData, errors.New("the secret comes from your secret store (spec.secretFrom): make the new one there, 32 random bytes in base64, such as openssl rand -base64 32")}
		}
		path = filepath.Join(filepath.Dir(file), c.Metadata.Name+".secret")
	}
	old := path + ".old"
	if _, err := os.Lstat(old); err == nil {
		return exitError{exitData, fmt.Errorf("%s is there already, from an earlier rotation: remove it when no server uses it any more", old)}
	}
	secret, err := cluster.NewSecret(rand.Reader)
	if err != nil {
		return err
	}
	if err := os.Link(path, old); errors.Is(err, fs.ErrNotExist) {
		return exitError{exitData, fmt.Errorf("the secret file %s does not exist; userdata init writes one", path)}
	} else if err != nil {
		return fmt.Errorf("keeping the old secret: %w", err)
	}
	if err := os.Chmod(old, 0o600); err != nil {
		return err
	}
	if err := replace(path, []byte(secret.Reveal()+"\n"), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, rotated, path, old, c.Metadata.Name, path, path, path, old)
	return err
}

// rotated is what a new secret takes. docs/threat-model.md says what the secret is
// for.
const rotated = `wrote %s; the old secret is %s

If %s has not formed yet: install its servers with user-data rendered anew. Servers
with the old and with the new secret neither hear nor enrol each other.

If it has formed: its servers change over step by step, and see each other all the
time. Kubernetes does not use the secret: its API, nodes and pods go on.
  1. On every server, in any order: bootstrap rotate accept --yes < %s
  2. On every server: bootstrap rotate use --yes < %s
     From now on render --join with the new secret, and replace the user-data in the
     provider's store. Before, join with the old one (--secret).
  3. On every server: bootstrap rotate forget --yes < %s
     Then remove %s.
A server refuses a step while another one in sight is not as far. One that is off
takes its steps when it is back; after step 3 the others do not hear it before.
What the old secret was used for stays: certificates that were given out (bootstrap
status lists the members; bootstrap remove NAME takes one out), and recorded
gossip. Whoever became a control plane has the keys of the cluster: then only a new
cluster helps.
`
