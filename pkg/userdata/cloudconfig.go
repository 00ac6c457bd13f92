package userdata

import (
	"encoding/base64"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// cloudConfigHeader opens every cloud-config; cloud-init takes nothing else for one.
const cloudConfigHeader = "#cloud-config\n"

// writeFile is an element of write_files.
type writeFile struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions"`
	Encoding    string `yaml:"encoding"`
	Content     string `yaml:"content"`
}

// cloudConfig needs only what the plainest cloud-init has: no templates, no jinja.
func (c Contents) cloudConfig() string {
	var b strings.Builder
	b.WriteString(cloudConfigHeader + c.comment())
	// The node's own name must resolve; kubeadm warns otherwise. The host name itself
	// is left to the platform.
	b.WriteString("manage_etc_hosts: localhost\nwrite_files:\n")
	for _, f := range c.Files {
		f.writeYAML(&b)
	}
	fmt.Fprintf(&b, `runcmd:
- [systemctl, daemon-reload]
- [systemctl, enable, %s]
- [systemctl, start, --no-block, %s]
`, strings.Join(c.Enable, ", "), c.Enable[len(c.Enable)-1])
	return b.String()
}

// writeYAML appends an element of write_files. Permissions are quoted: as a
// number they would be read in decimal.
func (f File) writeYAML(b *strings.Builder) {
	fmt.Fprintf(b, "- path: %s\n  permissions: '%04o'\n", f.Path, f.Mode)
	if !isPlain(f.Content) {
		fmt.Fprintf(b, "  encoding: b64\n  content: %s\n", base64.StdEncoding.EncodeToString([]byte(f.Content)))
		return
	}
	b.WriteString("  content: |\n")
	for line := range strings.Lines(f.Content) {
		if line != "\n" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
}

// readCloudConfig returns what a cloud-config writes to path.
func readCloudConfig(text, path string) (string, bool, error) {
	var doc struct {
		Files []writeFile `yaml:"write_files"`
	}
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", false, err
	}
	for _, f := range doc.Files {
		if f.Path != path {
			continue
		}
		switch f.Encoding {
		case "":
			return f.Content, true, nil
		case "b64":
			content, err := base64.StdEncoding.DecodeString(f.Content)
			return string(content), true, err
		}
		return "", false, fmt.Errorf("%s has encoding %q, expected none or b64", path, f.Encoding)
	}
	return "", false, nil
}
