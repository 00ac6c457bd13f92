package device

import (
	"errors"
	"fmt"
	"strings"
)

// maxNodeName is shorter than DNS-1123 allows (253): the kubelet repeats the
// node name in the label kubernetes.io/hostname, and a label value has at most
// 63 characters.
const maxNodeName = 63

// NodeName returns the Kubernetes node name for a hostname: lower case, a
// trailing dot removed, otherwise as given. It refuses what is no DNS-1123
// subdomain and what every server would be called.
func NodeName(hostname string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(hostname), "."))
	switch {
	case name == "":
		return "", errors.New("the hostname is empty; give the server one, it becomes its node name")
	case name == "localhost" || strings.HasPrefix(name, "localhost."):
		return "", fmt.Errorf("hostname %q names every server; give this one a name of its own", hostname)
	case len(name) > maxNodeName:
		return "", fmt.Errorf("hostname %q has %d characters; a node name has at most %d, because it is repeated in a label", hostname, len(name), maxNodeName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("hostname %q cannot be a node name: %w", hostname, err)
		}
	}
	return name, nil
}

func checkLabel(label string) error {
	if label == "" {
		return errors.New("it has an empty part between dots")
	}
	for _, r := range label {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("%q is none of a-z, 0-9, hyphen and dot", r)
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return fmt.Errorf("%q starts or ends with a hyphen", label)
	}
	return nil
}
