package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/userdata"
)

var renderCommand = command{
	name: "render", args: "[-f FILE] [--lock FILE] [--secret FILE] [--api-token FILE] [--format FORMAT] [--join --ca HASH] [...] > user-data",
	summary: "print the user-data that servers boot with",
	help: `Prints user-data: the cluster file with the secret, the fetch script, and the units.
Paste it into the provider's form or hand it to a command line; it is the same for
every server, and the same in every run. It holds the secret: keep it where only you
can read it.

Formats; each leaves the same server behind:
  cloud-config  for cloud-init
  script        POSIX sh, where cloud-init lacks modules or something else runs scripts
  mime          the cloud-config compressed, for small limits; also cloud-init
  ignition      Ignition 3.4, for Flatcar, Fedora CoreOS and other systems without cloud-init
  dir           the files themselves, for an image: bootstrap bake --user-data DIR

Servers have their programs below a prefix, /usr/local or, with ignition, /opt, because
nobody can write below Flatcar's /usr. --prefix says otherwise; of an image into which
bootstrap bake laid programs it must be that of the bake.

User-data may also be made for one role (--role), for one server (--server), or for
each server of a list (--per-server), which goes to files in --output-dir or, as one
JSON object a line, to standard output. All of these vote together. They differ in
nothing but who may become a control plane, and in that with platform static each
server gets its own description only.

With discovery by packetAPI it holds the API's token too, from --api-token or
NAME.api-token beside the cluster file. Make the token read-only.

With --join it is for servers that come to a cluster which has formed: they never
vote, and believe in the cluster with that CA only. Servers that found the cluster
boot without it.

Examples:
  userdata render > user-data
  userdata render --format ignition --limit nocloud > config.ign
  userdata render --format ignition --prefix /usr/local > config.ign      # for Fedora CoreOS alone
  userdata render --per-server servers.txt --output-dir out
  userdata render --per-server servers.txt | jq -r 'select(.server == "cp1").userData'
  userdata render --join --ca sha256:HEX > join-user-data   # bootstrap status -o json shows caHash
  userdata render -f - --secret /run/secrets/k8s-bgp < cluster.yaml > user-data

Exit codes: 0 done, 1 a file cannot be read or written, or the secret store failed, 64 wrong
command line, 65 the cluster file, the lock file or the secret is wrong, or the user-data
is too large.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		var r renderFlags
		file, lock := fileFlag(set), lockFlag(set)
		set.StringVar(&r.secret, "secret", "", "the `file` with the secret (default: NAME.secret beside the cluster file)")
		set.StringVar(&r.token, "api-token", "", "the `file` with the token of discovery by packetAPI (default: NAME.api-token beside the cluster file)")
		set.StringVar(&r.identity, "identity", "", "the `file` with the age identity that opens a secret named *.age")
		set.StringVar(&r.format, "format", string(userdata.CloudConfig), "the `format`: cloud-config, script, mime, ignition or dir")
		set.StringVar(&r.prefix, "prefix", "", "the `directory` below which servers have their programs: /usr/local or /opt (default: /opt with ignition, else /usr/local)")
		limit := limitFlag(set)
		set.BoolVar(&r.join, "join", false, "for servers that join a formed cluster; needs --ca")
		set.StringVar(&r.ca, "ca", "", "the `hash` of the cluster's CA, sha256: and 64 hex digits; with --join")
		set.StringVar(&r.role, "role", "", "for servers that may, or may not, become control planes: `ROLE` control-plane or worker")
		set.StringVar(&r.server, "server", "", "for the server with this `hostname` alone")
		set.StringVar(&r.list, "per-server", "", "for each server of a `file`, a line each: HOSTNAME [ROLE]; spec: for each in spec.static")
		set.StringVar(&r.dir, "output-dir", "", "the `directory` to write to, one file for each server")
		return func(ctx context.Context, s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			r.file, r.lock, r.limit = *file, *lock, *limit
			if err := r.check(); err != nil {
				return err
			}
			return render(ctx, s, r)
		}
	},
}

// renderFlags are the flags of render as they were given.
type renderFlags struct {
	file, lock string
	secretFiles
	format, prefix, limit   string
	join                    bool
	ca                      string
	role, server, list, dir string
	options                 userdata.Options
}

// check refuses a command line that contradicts itself.
func (r *renderFlags) check() error {
	if err := checkJoin(r.join, r.ca); err != nil {
		return err
	}
	wrong := func(format string, args ...any) error { return exitError{exitUsage, fmt.Errorf(format, args...)} }
	formats := append(slices.Clone(userdata.Formats), userdata.Tree)
	r.options.Format = userdata.Format(r.format)
	r.options.Prefix = cmp.Or(layout.Prefix(r.prefix), r.options.Format.Prefix())
	switch tree := r.options.Format == userdata.Tree; {
	case !slices.Contains(formats, r.options.Format):
		return wrong("--format %q: expected one of %v", r.format, formats)
	case !slices.Contains(layout.Prefixes, r.options.Prefix):
		return wrong("--prefix %q: expected one of %v", r.prefix, layout.Prefixes)
	case tree && r.dir == "":
		return wrong("--format dir needs --output-dir, the directory to make the tree in")
	case tree && r.list != "":
		return wrong("--format dir makes one tree; name the one server with --server, or leave out --per-server")
	case !tree && r.dir != "" && r.list == "":
		return wrong("--output-dir takes a file for each server of --per-server, or the tree of --format dir; one user-data goes to standard output")
	case r.list != "" && (r.server != "" || r.role != ""):
		return wrong("--per-server names the servers and their roles; leave out --server and --role")
	case r.role != "" && !isRole(member.Role(r.role)):
		return wrong("--role %q: expected control-plane or worker", r.role)
	case r.server != "" && !hostname.MatchString(r.server):
		return wrong("--server %q is no hostname: letters, digits, hyphens and dots", r.server)
	}
	var err error
	r.options.Platform, err = limited(r.limit)
	return err
}

func limitFlag(set *flag.FlagSet) *string {
	return set.String("limit", userdata.Any.Name, "the largest `size`: in bytes, or what a platform takes, such as ec2 or openstack")
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

// render writes user-data where the flags say.
func render(ctx context.Context, s streams, r renderFlags) error {
	c, problems, err := load(s, r.file, r.lock, r.join)
	if err != nil {
		return err
	}
	if show(s.err, problems) > 0 {
		return errReported
	}
	if r.ca != "" {
		if err := joining(&c, r.file, r.ca); err != nil {
			return err
		}
	}
	if err := r.read(ctx, s, r.file, &c); err != nil {
		return err
	}
	warnOfReaders(s.err, c)
	one := userdata.Server{Name: r.server, Role: member.Role(r.role)}
	if r.list == "" {
		if r.options.Format == userdata.Tree {
			return writeTree(r.dir, c, one, r.options.Prefix)
		}
		data, err := renderOne(c, one, r.options)
		if err != nil {
			return err
		}
		_, err = s.out.Write(data)
		return err
	}
	servers, err := readServers(s, r.list, c)
	if err != nil {
		return err
	}
	noteServers(s.err, servers, c.Spec)
	if r.dir != "" {
		return writeFiles(r.dir, c, servers, r.options)
	}
	return writeLines(s.out, c, servers, r.options)
}
