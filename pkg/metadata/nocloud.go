package metadata

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// noCloudService is a seed that some web server has.
func noCloudService(base string) service {
	return service{base: base, files: []file{
		{name: "meta-data", path: "/meta-data"},
		{name: "network-config", path: "/network-config", optional: true},
	}}
}

// seeds are the directories in which cloud-init looks for a NoCloud seed.
var seeds = []string{"var/lib/cloud/seed/nocloud", "var/lib/cloud/seed/nocloud-net"}

// noCloud reads the seed from where the kernel's command line points, from a seed
// directory, from what cloud-init kept of a drive labelled CIDATA, or from the drive.
func noCloud(m Machine) fetcher {
	return func(ctx context.Context) (found, error) {
		root := m.Root
		if from := seedURL(root); from != "" {
			return noCloudService(from).fetch(ctx)
		}
		for _, dir := range seeds {
			f, err := readFiles(root, dir, "meta-data", "network-config")
			if err != nil || len(f.docs) > 0 {
				return f, err
			}
		}
		if k, ok := readKept(root); ok {
			if f, ok := k.documents("meta-data", "", "nocloud"); ok {
				return f, nil
			}
		}
		if f, err := m.readDrive(ctx, cluster.PlatformNoCloud, "", "meta-data", "network-config"); err != nil || len(f.docs) > 0 {
			return f, err
		}
		return found{}, errors.New("metadata: no NoCloud seed: none in /var/lib/cloud/seed/nocloud, none named by the kernel's command line, and cloud-init has kept none (" + instanceData + "); set spec.metadata.url where a web server has it")
	}
}

// seedURL is s= of ds=nocloud-net;s=URL on the kernel's command line.
func seedURL(root fs.FS) string {
	for arg := range strings.FieldsSeq(text(root, "proc/cmdline")) {
		fields := strings.Split(strings.Trim(arg, `"'`), ";")
		if !strings.HasPrefix(strings.ToLower(fields[0]), "ds=nocloud") {
			continue
		}
		for _, f := range fields[1:] {
			for _, key := range []string{"s=", "seedfrom="} {
				if from, ok := strings.CutPrefix(f, key); ok && strings.Contains(from, "://") {
					return from
				}
			}
		}
	}
	return ""
}
