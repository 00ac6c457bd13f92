package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/metadata"
	"github.com/mustermetal/muster/pkg/shape"
)

const metadataHelp = `bootstrap metadata shows what this server is told of itself: which documents were read
from where, what was taken from spec.static and from the kernel, and what is missing. It
asks once and waits for nothing. BGP passwords are not shown.

Platform and URL are those of the cluster file of this server, or of the flags. With
--file the document is read in place of the platform's, and the machine is not looked
at: what the kernel would tell is missing then. Where a platform has several documents
(ec2, openstack, hetzner, nocloud), FILE is a directory with them by their names.

Usage: bootstrap metadata [--platform NAME] [--url URL] [--file FILE] [-o json]

Examples:
  bootstrap metadata                      # on a server: what it is, and from where
  bootstrap metadata --platform auto      # on any machine: which platform is this?
  bootstrap metadata --platform packet --file metadata.json
  bootstrap metadata --platform openstack --file /mnt/openstack/latest -o json

Exit codes: 0 done, 1 it is incomplete or is about another server, 64 wrong command line,
65 a document cannot be used, 69 the service does not answer, 77 not root, 78 wrong
cluster file.
`

func metadataCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("metadata", metadataHelp, stdout)
	config := flags.String("config", layout.ClusterFile, "the cluster `file` of this server")
	platform := flags.String("platform", "", "read as this `platform`, whatever the cluster file says")
	url := flags.String("url", "", "the base `URL` of the metadata service, likewise")
	document := flags.String("file", "", "read this `file` or directory in place of the platform's documents")
	output := flags.String("o", "text", "the `format`: text or json")
	if err := flags.parse(args); err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return flags.wrong(fmt.Errorf("-o %q: expected text or json", *output))
	}
	spec, err := metadataSpec(*config, *platform != "")
	if err != nil {
		return err
	}
	if *platform != "" {
		spec.Platform = *platform
	}
	if *url != "" {
		spec.MetadataSource.URL = *url
	}
	last := "" // a platform that was named is found out anew
	if d, err := storedDevice(layout.Device); err == nil && *platform == "" {
		last = d.Platform
	}
	f, err := findMetadata(ctx, spec, *document, last)
	if err != nil {
		return err
	}
	if require := spec.MetadataSource.RequireBGP; require != nil && *require && len(f.Device.BGPNeighbors) == 0 {
		f.Missing = append(f.Missing, "BGP neighbours")
	}
	if err := printFinding(stdout, f, *output == "json"); err != nil {
		return err
	}
	if len(f.Missing) > 0 {
		return fmt.Errorf("what was read has no %s", strings.Join(f.Missing, ", no "))
	}
	return nil
}

// metadataSpec is what the cluster file says; where there is none a platform that
// was named suffices.
func metadataSpec(config string, named bool) (cluster.Spec, error) {
	_, err := os.Stat(config)
	if errors.Is(err, fs.ErrNotExist) && (named || config == layout.ClusterFile) {
		return cluster.Spec{Platform: cluster.PlatformAuto}, nil
	}
	c, err := readEffective(config)
	return c.Spec, err
}

// findMetadata reads the platform, or the document in its place; last is the platform
// as the agent knows it.
func findMetadata(ctx context.Context, spec cluster.Spec, document, last string) (metadata.Finding, error) {
	if document != "" {
		docs, err := readDocuments(spec.Platform, document)
		if err != nil {
			return metadata.Finding{}, err
		}
		f, err := metadata.Conclude(spec, spec.Platform, docs, []string{document})
		if err != nil {
			err = exitError{exitData, err}
		}
		return f, err
	}
	machine := thisMachine()
	machine.Last = last
	reader, err := metadata.NewReader(spec, machine)
	if err != nil {
		return metadata.Finding{}, exitError{exitUsage, err}
	}
	f, err := reader.Read(ctx)
	if errors.Is(err, metadata.ErrNoAnswer) {
		err = exitError{exitUnavailable, err}
	}
	return f, err
}

// readDocuments reads a file as the first document of a platform, or a directory as
// all of them.
func readDocuments(platform, path string) (shape.Documents, error) {
	s, ok := shape.Of(platform)
	if !ok {
		var names []string
		for _, s := range shape.All {
			names = append(names, s.Name)
		}
		return nil, exitError{exitUsage, fmt.Errorf("--file needs --platform, one of %s; it is %q", strings.Join(names, ", "), platform)}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, exitError{exitData, fmt.Errorf("--file: %w", err)}
	}
	docs := shape.Documents{}
	if !info.IsDir() {
		docs[s.Documents[0]], err = os.ReadFile(path)
	} else {
		err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			name, err := filepath.Rel(path, file)
			if err == nil {
				docs[filepath.ToSlash(name)], err = os.ReadFile(file)
			}
			return err
		})
	}
	if err != nil {
		return nil, exitError{exitData, fmt.Errorf("--file: %w", err)}
	}
	return docs, nil
}

// hidden stands for a password.
const hidden = "(not shown)"

func printFinding(w io.Writer, f metadata.Finding, asJSON bool) error {
	f.Device.BGPNeighbors = slices.Clone(f.Device.BGPNeighbors)
	for i := range f.Device.BGPNeighbors {
		if n := &f.Device.BGPNeighbors[i]; n.MD5 != "" {
			n.MD5 = hidden
		}
	}
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(f)
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	line := func(what, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", what, value)
		}
	}
	d := f.Device
	line("platform", strings.TrimSuffix(f.Platform+": "+f.Why, ": "))
	line("read from", strings.Join(f.From, ", "))
	line("id", d.ID)
	line("hostname", d.Hostname)
	line("tags", strings.Join(d.Tags, ", "))
	for _, a := range d.Addresses {
		line("address", describeAddress(a))
	}
	for _, e := range d.ElasticIPs {
		line("Elastic IP", e.String())
	}
	for _, n := range d.BGPNeighbors {
		line("BGP", describeNeighbor(n))
	}
	line("switch", d.Switch)
	line("MACs", strings.Join(d.MACs, ", "))
	line("events to", d.EventsURL)
	for _, note := range f.Notes {
		line("note", note)
	}
	line("missing", strings.Join(f.Missing, ", "))
	return table.Flush()
}

func describeAddress(a device.Address) string {
	text := a.Prefix.String() + ", private"
	if a.Public {
		text = a.Prefix.String() + ", public"
	}
	if a.Gateway.IsValid() {
		text += ", gateway " + a.Gateway.String()
	}
	if a.Block.IsValid() {
		text += ", of " + a.Block.String()
	}
	return text
}

func describeNeighbor(n device.Neighbor) string {
	text := fmt.Sprintf("AS %d to AS %d at %s", n.CustomerAS, n.PeerAS, joinAddrs(n.PeerIPs))
	if n.CustomerIP.IsValid() {
		text += ", from " + n.CustomerIP.String()
	}
	if n.Multihop {
		text += ", multihop"
	}
	if n.MD5 != "" {
		text += ", password " + n.MD5
	}
	return text
}

func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}
