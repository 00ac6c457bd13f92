//go:build tools

// Package tools pins what the image recipe builds.
package tools

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
)
