package metadata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// auto finds out which platform this is, from what is known without the network
// first. Once a platform has answered it stays with that one.
type auto struct {
	reader *Reader
	chosen *choice
}

// choice is a platform, how to read it, and why it was chosen, a phrase.
type choice struct {
	platform, why string
	fetch         fetcher
	base          string // set: which platform it is, this service says
}

// fetch reads the platform that was chosen, or chooses one.
func (a *auto) fetch(ctx context.Context) (found, error) {
	if a.chosen != nil {
		f, err := a.chosen.fetch(ctx)
		f.platform, f.why = a.chosen.platform, a.chosen.why
		return f, err
	}
	c, hinted, err := a.hint()
	if err != nil {
		return found{}, err
	}
	if !hinted {
		return a.probe(ctx, linkLocal, "nothing here says which platform this is, and "+linkLocal)
	}
	if c.base != "" {
		return a.probe(ctx, c.base, c.base)
	}
	if c.platform == cluster.PlatformEC2 {
		// Images of Packet's kind read the EC2 tree, though the service has a document
		// that says more.
		base := a.base()
		return a.try(ctx, c.why+", and "+base, a.services(base, cluster.PlatformPacket, cluster.PlatformEC2))
	}
	f, err := c.fetch(ctx)
	f.platform, f.why = c.platform, c.why
	if err == nil {
		a.chosen = &c
	}
	return f, err
}

// base is where services are asked.
func (a *auto) base() string {
	if a.reader.spec.MetadataSource.URL != "" {
		return a.reader.spec.MetadataSource.URL
	}
	if k, ok := readKept(a.reader.machine.Root); ok {
		if m := inBrackets.FindStringSubmatch(k.V1.Subplatform); m != nil {
			return m[1]
		}
	}
	return linkLocal
}

// inBrackets finds the URL in cloud-init's subplatform.
var inBrackets = regexp.MustCompile(`\((https?://[^)\s]+)\)`)

// hint says which platform this is, without asking anybody; false when nothing
// tells. What a person wrote comes before what firmware and cloud-init say.
func (a *auto) hint() (choice, bool, error) {
	r := a.reader
	described, err := r.described()
	if err != nil {
		return choice{}, false, err
	}
	if described {
		return a.named(cluster.PlatformStatic, "spec.static describes this server"), true, nil
	}
	if last := r.machine.Last; last != "" && last != cluster.PlatformStatic {
		return a.named(last, "it was so at an earlier boot"), true, nil
	}
	if url := r.spec.MetadataSource.URL; url != "" {
		return choice{base: url}, true, nil
	}
	for _, look := range []func(fs.FS) (string, string){commandLine, firmware, drive, cloudInitSays} {
		if platform, why := look(r.machine.Root); platform != "" {
			return a.named(platform, why), true, nil
		}
	}
	return choice{}, false, nil
}

// named is a platform that is known; its service is where cloud-init found one.
func (a *auto) named(platform, why string) choice {
	fetch := a.reader.fetcher(platform)
	if onlyByHTTP[platform] {
		fetch = serviceOf(platform, a.base(), a.reader.machine.HTTP)
	}
	return choice{platform: platform, why: why, fetch: fetch}
}

// onlyByHTTP are the platforms that have nothing on a server's own disks.
var onlyByHTTP = map[string]bool{
	cluster.PlatformPacket: true, cluster.PlatformEC2: true, cluster.PlatformVultr: true, cluster.PlatformHetzner: true, cluster.PlatformLatitude: true,
}

// commandLine is the kernel's, where an installer may have put the answer.
func commandLine(root fs.FS) (platform, why string) {
	for arg := range strings.FieldsSeq(text(root, "proc/cmdline")) {
		switch lower := strings.ToLower(strings.Trim(arg, `"'`)); {
		case strings.HasPrefix(lower, "ds=nocloud"):
			return cluster.PlatformNoCloud, "kernel argument " + arg
		case lower == "vultr":
			return cluster.PlatformVultr, "kernel argument " + arg
		}
	}
	return "", ""
}

// firmwareNames are values of DMI fields by which platforms name themselves.
// Source: cloud-init, tools/ds-identify.
var firmwareNames = []struct{ field, value, platform string }{
	{"sys_vendor", "Vultr", cluster.PlatformVultr},
	{"sys_vendor", "Hetzner", cluster.PlatformHetzner},
	{"sys_vendor", "Amazon EC2", cluster.PlatformEC2},
	{"sys_vendor", "OpenStack Foundation", cluster.PlatformOpenStack},
	{"product_name", "OpenStack Nova", cluster.PlatformOpenStack},
	{"product_name", "OpenStack Compute", cluster.PlatformOpenStack},
	{"chassis_asset_tag", "OpenStack Nova", cluster.PlatformOpenStack},
	{"chassis_asset_tag", "OpenStack Compute", cluster.PlatformOpenStack},
}

func firmware(root fs.FS) (platform, why string) {
	for _, n := range firmwareNames {
		if text(root, "sys/class/dmi/id/"+n.field) == n.value {
			return n.platform, fmt.Sprintf("DMI %s is %s", n.field, n.value)
		}
	}
	return "", ""
}

// cloudInitPlatforms are platforms by cloud-init's name; what it found elsewhere is
// read from its own file.
var cloudInitPlatforms = map[string]string{
	"ec2": cluster.PlatformEC2, "aws": cluster.PlatformEC2, "openstack": cluster.PlatformOpenStack, "configdrive": cluster.PlatformOpenStack,
	"vultr": cluster.PlatformVultr, "hetzner": cluster.PlatformHetzner, "nocloud": cluster.PlatformNoCloud,
}

func cloudInitSays(root fs.FS) (platform, why string) {
	k, ok := readKept(root)
	if !ok || k.V1.Platform == "none" { // it looked and found nothing
		return "", ""
	}
	platform, ok = cloudInitPlatforms[k.V1.Platform]
	if !ok {
		platform = cluster.PlatformCloudInit
	}
	return platform, fmt.Sprintf("cloud-init found %s: %s", k.V1.Platform, k.V1.Subplatform)
}

// probed are the platforms in the order in which a service is asked for them: who
// has a shape of its own may serve the EC2 tree beside it.
var probed = []string{
	cluster.PlatformPacket, cluster.PlatformOpenStack, cluster.PlatformHetzner, cluster.PlatformVultr, cluster.PlatformLatitude, cluster.PlatformEC2, cluster.PlatformNoCloud,
}

// services are choices of one service by platform.
func (a *auto) services(base string, platforms ...string) []choice {
	var out []choice
	for _, p := range platforms {
		out = append(out, choice{platform: p, fetch: serviceOf(p, base, a.reader.machine.HTTP)})
	}
	return out
}

// probe asks one service which platform it is.
func (a *auto) probe(ctx context.Context, base, why string) (found, error) {
	return a.try(ctx, why, a.services(base, probed...))
}

// try takes the first choice that answers with a document of its shape, one request
// after the other. A service that nobody answers for is asked once.
func (a *auto) try(ctx context.Context, why string, choices []choice) (found, error) {
	var problems []error
	for _, c := range choices {
		f, err := c.fetch(ctx)
		f.platform, f.why = c.platform, fmt.Sprintf("%s answers as %s", why, c.platform)
		if err == nil {
			_, err = f.device()
		}
		if err == nil {
			c.why = f.why
			a.chosen = &c
			return f, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", c.platform, err))
		if errors.Is(err, ErrNoAnswer) || errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() != nil {
			return found{}, fmt.Errorf("platform auto: %w", err) // it may speak this form when it is well
		}
	}
	return found{}, fmt.Errorf("platform auto: %s speaks none of the forms that are known; set spec.platform: %w", why, errors.Join(problems...))
}
