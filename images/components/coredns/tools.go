//go:build tools

// Package tools pins what the image recipe builds.
package tools

import (
	_ "github.com/coredns/coredns"
)
