package cluster

import (
	"crypto/sha256"
	"fmt"
	"net/url"
)

// Shown is Redacted for people who need not know more than what a cluster runs by: of
// the webhook scheme and host are left, of inline manifests size and sha256, and of
// what is laid over containerd's configuration, where registries' credentials may be
// under any key, the ids of the plugins.
func Shown(c Cluster) Cluster {
	c = Redacted(c)
	if u, err := url.Parse(c.Spec.Report.Webhook); err != nil {
		c.Spec.Report.Webhook = Hidden
	} else if c.Spec.Report.Webhook != "" {
		c.Spec.Report.Webhook = u.Scheme + "://" + u.Host + "/" + Hidden
	}
	for i, a := range c.Spec.Addons {
		if a.Inline != "" {
			c.Spec.Addons[i].Inline = fmt.Sprintf("%s: %d bytes, sha256 %x", Hidden, len(a.Inline), sha256.Sum256([]byte(a.Inline)))
		}
	}
	for id := range c.Spec.Containerd.Extra {
		c.Spec.Containerd.Extra[id] = map[string]any{Hidden: true}
	}
	return c
}
