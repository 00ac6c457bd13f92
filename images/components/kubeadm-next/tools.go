//go:build tools

// Package tools pins the next kubeadm, to which the configurations are shown too.
package tools

import _ "k8s.io/kubernetes/cmd/kubeadm"
