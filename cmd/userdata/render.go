package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/userdata"
)

var renderCommand = command{
	name: "render", args: "[-f FILE] [--secret FILE] [--format FORMAT] [--join --ca HASH] > user-data",
	summary: "print the user-data that servers boot with",
	help: `Prints user-data: the cluster file with the secret, the fetch script, and the units.
Paste it into the provider's form or hand it to a command line; it is the same for
every server, and the same in every run. It holds the secret: keep it where only you
can read it.

Formats; each leaves the same server behind:
  cloud-config  for cloud-init
  script        POSIX sh, where cloud-init lacks modules or something else runs scripts
  mime          the cloud-config compressed, for small limits; also cloud-init
  ignition      Ignition 3.4, for systems without cloud-init such as Fedora CoreOS

With --join it is for servers that come to a cluster which has formed: they never
vote, and believe in the cluster with that CA only. Servers that found the cluster
boot without it.

Examples:
  userdata render > user-data
  userdata render --format ignition --limit nocloud > config.ign
  userdata render --join --ca sha256:HEX > join-user-data   # bootstrap status -o json shows caHash
  userdata render -f - --secret /run/secrets/k8s-bgp < cluster.yaml > user-data
`,
	flags: func(set *flag.FlagSet) func(streams, []string) error {
		file := fileFlag(set)
		secret := set.String("secret", "", "the `file` with the secret (default: NAME.secret beside the cluster file)")
		format := set.String("format", string(userdata.CloudConfig), "the `format`: cloud-config, script, mime or ignition")
		limit := set.String("limit", userdata.Any.Name, "the largest `size`: in bytes, or what a platform takes, such as ec2 or openstack")
		join := set.Bool("join", false, "for servers that join a formed cluster; needs --ca")
		ca := set.String("ca", "", "the `hash` of the cluster's CA, sha256: and 64 hex digits; with --join")
		return func(s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			if err := checkJoin(*join, *ca); err != nil {
				return err
			}
			o := userdata.Options{Format: userdata.Format(*format)}
			if !slices.Contains(userdata.Formats, o.Format) {
				return exitError{exitUsage, fmt.Errorf("--format %q: expected one of %v", *format, userdata.Formats)}
			}
			var err error
			if o.Platform, err = limited(*limit); err != nil {
				return err
			}
			return render(s, *file, *secret, *ca, o)
		}
	},
}

// limited is the platform that --limit means.
func limited(limit string) (userdata.Platform, error) {
	if n, err := strconv.Atoi(limit); err == nil && n > 0 {
		return userdata.AtMost(n), nil
	}
	p, err := userdata.PlatformNamed(limit)
	if err != nil {
		return p, exitError{exitUsage, fmt.Errorf("--limit: expected a number of bytes, or a platform: %w", err)}
	}
	return p, nil
}

// checkJoin refuses a command line that asks for joining user-data by half.
func checkJoin(join bool, ca string) error {
	const where = "bootstrap status -o json on a server of the cluster shows it as caHash"
	switch {
	case !join && ca != "":
		return exitError{exitUsage, errors.New("--ca is the cluster that servers join: give --join too, or leave it out for founding servers")}
	case join && ca == "":
		return exitError{exitUsage, errors.New("--join needs --ca, the hash of the cluster's CA; " + where)}
	case join && !cluster.IsCAHash(ca):
		return exitError{exitUsage, fmt.Errorf("--ca %q: expected sha256: and 64 lower-case hex digits; %s", ca, where)}
	}
	return nil
}

// joining makes a cluster file that of servers which join the cluster with this CA.
func joining(c *cluster.Cluster, file, ca string) error {
	switch was := c.Spec.Join.CA; {
	case was != "" && was != ca:
		return exitError{exitData, fmt.Errorf("%s joins the cluster with CA %s (spec.join.ca), --ca says %s; they are two clusters: correct one of them", file, was, ca)}
	case len(c.Spec.Discovery) == 0:
		return exitError{exitData, fmt.Errorf("%s has no spec.discovery, and a server that joins must find the cluster: name private addresses of its servers there", file)}
	}
	c.Spec.Join.CA = ca
	return nil
}

// render prints user-data; ca is empty for what the file itself says.
func render(s streams, file, secretFile, ca string, o userdata.Options) error {
	c, problems, err := load(s, file)
	if err != nil {
		return err
	}
	if show(s.err, problems) > 0 {
		return errReported
	}
	if ca != "" {
		if err := joining(&c, file, ca); err != nil {
			return err
		}
	}
	if secretFile == "" {
		secretFile = filepath.Join(filepath.Dir(file), c.Metadata.Name+".secret")
	}
	if c.Secret, err = readSecret(s, secretFile); err != nil {
		return err
	}
	data, err := userdata.Render(c, o)
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
