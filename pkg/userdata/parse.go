package userdata

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/layout"
)

// Parse reads the cluster back from user-data that Render made, in any format.
func Parse(data []byte) (cluster.Cluster, error) {
	text := string(data)
	if strings.HasPrefix(text, mimeHeader) {
		var err error
		if text, err = unpackMIME(text); err != nil {
			return cluster.Cluster{}, fmt.Errorf("reading multi-part user-data: %w", err)
		}
	}
	var read func(text, path string) (string, bool, error)
	switch {
	case strings.HasPrefix(text, cloudConfigHeader):
		read = readCloudConfig
	case strings.HasPrefix(text, scriptHeader):
		read = readScript
	case strings.HasPrefix(text, "{"):
		read = readIgnition
	default:
		return cluster.Cluster{}, errors.New("this is no user-data of muster: it begins neither with #cloud-config, #!/bin/sh, MIME-Version: nor with {; `userdata render` writes it")
	}
	content, found, err := read(text, layout.ClusterFile)
	if err != nil {
		return cluster.Cluster{}, fmt.Errorf("reading user-data: %w", err)
	}
	if !found {
		return cluster.Cluster{}, fmt.Errorf("this user-data writes no %s; `userdata render` makes one that does", layout.ClusterFile)
	}
	c, problems := cluster.ParseServer("user-data:"+layout.ClusterFile, []byte(content))
	return c, cluster.Err(problems)
}
