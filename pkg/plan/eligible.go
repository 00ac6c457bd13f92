package plan

import (
	"fmt"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
	"github.com/mustermetal/muster/pkg/device"
)

// Eligible says whether a server may become a control plane.
func Eligible(e cluster.Eligible, d device.Device) (bool, error) {
	return e.Selects(d.Hostname, d.Tags)
}

// WhoIsEligible says whom spec.servers.eligible selects.
func WhoIsEligible(e cluster.Eligible) string {
	const may = "spec.servers.eligible selects "
	switch {
	case e.Tag != "":
		return fmt.Sprintf(may+"servers with the tag %s, or %s=control-plane", e.Tag, e.Tag)
	case e.Hostname != "":
		return fmt.Sprintf(may+"hostnames like %s", e.Hostname)
	case len(e.List) > 0:
		return may + strings.Join(e.List, ", ")
	case e.None:
		return may + "no server"
	}
	return may + "every server"
}

// WhyNotEligible says what a server lacks to become a control plane.
func WhyNotEligible(e cluster.Eligible, d device.Device) string {
	has := "and its hostname is " + d.Hostname
	switch {
	case e.None:
		has = "for its user-data is that of a worker"
	case e.Tag != "" && len(d.Tags) == 0:
		has = "and it has no tags"
	case e.Tag != "":
		has = "and its tags are " + strings.Join(d.Tags, ", ")
	}
	return fmt.Sprintf("this server may not become a control plane: %s, %s", WhoIsEligible(e), has)
}
