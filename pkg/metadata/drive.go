package metadata

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

// driveLabels are the labels, in lower case, of disks that tell a server what it is.
var driveLabels = map[string]string{"config-2": cluster.PlatformOpenStack, "cidata": cluster.PlatformNoCloud}

// drives are the platforms of labelled disks in what udev knows, each with a phrase
// about its disk: the agent's unit sees no block devices.
func drives(root fs.FS) (platforms, why []string) {
	const udev = "run/udev/data"
	entries, err := fs.ReadDir(root, udev)
	if err != nil {
		return nil, nil // there is no udev in a container
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "b") {
			continue
		}
		for line := range strings.Lines(text(root, path.Join(udev, e.Name()))) {
			label, ok := strings.CutPrefix(strings.TrimSpace(line), "E:ID_FS_LABEL=")
			if platform := driveLabels[strings.ToLower(label)]; ok && platform != "" {
				platforms, why = append(platforms, platform), append(why, "a disk is labelled "+label)
			}
		}
	}
	return platforms, why
}

// drive is the first labelled disk.
func drive(root fs.FS) (platform, why string) {
	if platforms, why := drives(root); len(platforms) > 0 {
		return platforms[0], why[0]
	}
	return "", ""
}

// readDrive reads the documents in a directory of a platform's labelled disk, which
// nobody mounted; nothing where there is none. They are copied anew each time, and by
// others, as the agent may not open disks.
func (m Machine) readDrive(ctx context.Context, platform, dir string, names ...string) (found, error) {
	platforms, why := drives(m.Root)
	for i, p := range platforms {
		if p != platform {
			continue
		}
		if m.Drive != nil {
			if err := m.Drive(ctx); err != nil {
				return found{}, fmt.Errorf("metadata: %s, which cannot be read: %w", why[i], err)
			}
		}
		f, err := readFiles(m.Root, strings.TrimPrefix(layout.Drive, "/")+dir, names...)
		if err == nil && len(f.docs) == 0 {
			err = fmt.Errorf("metadata: %s, but %s is not there: systemctl start muster-drive reads the disk", why[i], layout.Drive+dir+"/"+names[0])
		}
		return f, err
	}
	return found{}, nil
}
