package cluster

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Artifacts says what `userdata lock` pins and where servers get it. With a lock
// file beside the cluster file servers install what their image lacks; without one
// everything must be in the image.
type Artifacts struct {
	// Mirrors are base URLs (http, https, or file for a disk in the server), tried in
	// order; the word publishers stands for where each project publishes. Below a base
	// lies each publisher's host and path, as `userdata lock --list` prints them and
	// `wget -x` lays them. Default: publishers.
	Mirrors []string `yaml:"mirrors,omitempty"`
	// Architectures that servers have: amd64, arm64. Default: both.
	Architectures []string         `yaml:"architectures,omitempty"`
	Versions      ArtifactVersions `yaml:"versions,omitempty"`
	// Images are archives of container images that containerd imports before kubeadm
	// needs them, for sites without a registry.
	Images []ImageArchive `yaml:"images,omitempty"`
}

// ArtifactVersions are releases of what comes beside Kubernetes, whose version is
// kubernetes.version. What is left out is what this release of muster was built
// for.
type ArtifactVersions struct {
	// Agent is a release of muster; left out, agent.urls says where the agent is, or
	// it is in the image.
	Agent string `yaml:"agent,omitempty"`
	// Containerd is a release, v2.2.0 or later. Default: v2.3.4.
	Containerd string `yaml:"containerd,omitempty"`
	// Runc is a release. Default: v1.4.3.
	Runc string `yaml:"runc,omitempty"`
	// CNIPlugins is a release of containernetworking/plugins. Default: v1.9.1.
	CNIPlugins string `yaml:"cniPlugins,omitempty"`
	// Crictl is a release of cri-tools. Default: v1.36.0.
	Crictl string `yaml:"crictl,omitempty"`
}

// ImageArchive is a file as `docker save` or `ctr images export` makes it.
type ImageArchive struct {
	// Name tells archives apart: lower-case letters, digits and hyphens.
	Name string `yaml:"name" required:"true" example:"control-plane"`
	// URLs are tried in order; ARCH in one is replaced by amd64 or arm64.
	URLs []string `yaml:"urls" required:"true" example:"[http://10.0.0.5/images-ARCH.tar]"`
}

// Publishers is the word in artifacts.mirrors for where each project publishes.
const Publishers = "publishers"

// architectures that the agent is built for.
var architectures = []string{"amd64", "arm64"}

// releaseWord is a version as publishers write them in URLs.
var releaseWord = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$`)

func (v *validator) artifacts() {
	const at = "spec.artifacts"
	a := v.Spec.Artifacts
	for i, m := range a.Mirrors {
		if m != Publishers {
			v.artifactURL(index(at+".mirrors", i), m, "publishers, or a base URL such as http://10.0.0.5/mirror")
		}
	}
	v.distinct(at+".mirrors", a.Mirrors)
	for i, arch := range a.Architectures {
		if !slices.Contains(architectures, arch) {
			v.errorf(index(at+".architectures", i), "allowed: amd64, arm64", "%q is not an architecture that the agent is built for", abbreviate(arch))
		}
	}
	v.distinct(at+".architectures", a.Architectures)
	n := a.Versions
	for key, version := range map[string]string{"agent": n.Agent, "containerd": n.Containerd, "runc": n.Runc, "cniPlugins": n.CNIPlugins, "crictl": n.Crictl} {
		if version != "" && !releaseWord.MatchString(version) {
			v.errorf(at+".versions."+key, "such as v2.3.4", "%q is not a release", abbreviate(version))
		}
	}
	var names []string
	for i, image := range a.Images {
		p := index(at+".images", i)
		v.name(p+".name", image.Name)
		if slices.Contains(names, image.Name) && image.Name != "" {
			v.errorf(p+".name", "give each archive a name of its own", "%q is the name of two archives", image.Name)
		}
		names = append(names, image.Name)
		for j, u := range image.URLs {
			v.artifactURL(index(p+".urls", j), u, "such as http://10.0.0.5/images-ARCH.tar")
			if path.Base(u) != path.Base(image.URLs[0]) {
				v.errorf(index(p+".urls", j), "give the file the name "+path.Base(image.URLs[0])+" there", "names another file than the first URL")
			}
		}
	}
}

// artifactURL accepts what the agent fetches from.
func (v *validator) artifactURL(path, text, hint string) {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil:
		v.errorf(path, "serve it without a password: the sha256 protects it", "has a user or a password in it, and user-data is no place for one")
	case err != nil || !agentURL.MatchString(text) || u.RawQuery != "" || u.Fragment != "" || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) || (u.Host == "") != (u.Scheme == "file"):
		v.errorf(path, hint, "%q is not an http, https or file URL", abbreviate(text))
	}
}

// Artifact is one thing to pin, before its digest is known.
type Artifact struct {
	Name, Version string
	URLs          []string // ARCH stands for the architecture
	// Sums are names of the file with the published checksum, beside the artefact, in
	// the order in which to look; ARCH as above, FILE for the artefact's own name.
	Sums []string
	// Unpublished says that there may be no checksum: the file is somebody's own.
	Unpublished bool
}

// At is where the file for an architecture is, for each URL.
func (a Artifact) At(arch string) []string {
	var at []string
	for _, u := range a.URLs {
		at = append(at, strings.ReplaceAll(u, "ARCH", arch))
	}
	return at
}

// published says where projects put their releases (VERSION with its v, NUMBER
// without) and the checksums of them. Sources: kubernetes.io/releases/download; the
// release assets of each project on GitHub. The file of runc is one list, signed
// in clear text; the others hold one digest, with or without the file's name.
var published = []struct{ name, path, sums string }{
	{"cni-plugins", "github.com/containernetworking/plugins/releases/download/VERSION/cni-plugins-linux-ARCH-VERSION.tgz", "FILE.sha256"},
	{"containerd", "github.com/containerd/containerd/releases/download/VERSION/containerd-NUMBER-linux-ARCH.tar.gz", "FILE.sha256sum"},
	{"crictl", "github.com/kubernetes-sigs/cri-tools/releases/download/VERSION/crictl-VERSION-linux-ARCH.tar.gz", "FILE.sha256"},
	{"kubeadm", "dl.k8s.io/release/VERSION/bin/linux/ARCH/kubeadm", "FILE.sha256"},
	{"kubectl", "dl.k8s.io/release/VERSION/bin/linux/ARCH/kubectl", "FILE.sha256"},
	{"kubelet", "dl.k8s.io/release/VERSION/bin/linux/ARCH/kubelet", "FILE.sha256"},
	{"runc", "github.com/opencontainers/runc/releases/download/VERSION/runc.ARCH", "runc.sha256sum"},
}

// agentReleases is where muster's own releases are, as `make dist` lays them.
const agentReleases = "github.com/mustermetal/muster/releases/download/VERSION/bootstrap_linux_ARCH"

// sumsOfOwn are the checksum files that people put beside their own files; make
// dist writes the last one.
var sumsOfOwn = []string{"FILE.sha256", "FILE.sha256sum", "SHA256SUMS"}

// AgentArtifact is the name of the agent in a lock file.
const AgentArtifact = "agent"

// ImageArtifact is the name of an archive of images in a lock file.
func ImageArtifact(name string) string { return "images-" + name }

// Wanted lists what a cluster needs pinned, sorted by name.
func (s Spec) Wanted() []Artifact {
	versions := s.Artifacts.Versions
	version := map[string]string{
		"kubeadm": s.Kubernetes.Version, "kubectl": s.Kubernetes.Version, "kubelet": s.Kubernetes.Version,
		// 2.3 is supported until April 2028. Source: containerd's RELEASES.md.
		"containerd": or(versions.Containerd, "v2.3.4"), "runc": or(versions.Runc, "v1.4.3"),
		"cni-plugins": or(versions.CNIPlugins, "v1.9.1"), "crictl": or(versions.Crictl, "v1.36.0"),
	}
	var list []Artifact
	switch {
	case len(s.Agent.URLs) > 0:
		list = append(list, Artifact{Name: AgentArtifact, Version: versions.Agent, URLs: s.Agent.URLs, Sums: sumsOfOwn})
	case versions.Agent != "":
		list = append(list, Artifact{Name: AgentArtifact, Version: versions.Agent, URLs: s.mirrored(agentReleases, versions.Agent), Sums: sumsOfOwn})
	}
	for _, p := range published {
		list = append(list, Artifact{Name: p.name, Version: version[p.name], URLs: s.mirrored(p.path, version[p.name]), Sums: []string{p.sums}})
	}
	for _, image := range s.Artifacts.Images {
		list = append(list, Artifact{Name: ImageArtifact(image.Name), URLs: image.URLs, Sums: sumsOfOwn, Unpublished: true})
	}
	slices.SortFunc(list, func(a, b Artifact) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Architectures are those of the servers.
func (s Spec) Architectures() []string {
	if len(s.Artifacts.Architectures) == 0 {
		return architectures
	}
	return slices.Sorted(slices.Values(s.Artifacts.Architectures))
}

// mirrored is a publisher's path at each base.
func (s Spec) mirrored(path, version string) []string {
	path = strings.NewReplacer("VERSION", version, "NUMBER", strings.TrimPrefix(version, "v")).Replace(path)
	mirrors := s.Artifacts.Mirrors
	if len(mirrors) == 0 {
		mirrors = []string{Publishers}
	}
	var urls []string
	for _, m := range mirrors {
		if m == Publishers {
			urls = append(urls, "https://"+path)
		} else {
			urls = append(urls, fmt.Sprintf("%s/%s", strings.TrimRight(m, "/"), path))
		}
	}
	return urls
}

func or(word, other string) string {
	if word != "" {
		return word
	}
	return other
}
