package cluster

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// LockKind is the kind of a lock file; its apiVersion is that of the cluster file.
const LockKind = "Lock"

// Lock is a lock file: what servers install, by digest.
type Lock struct {
	// APIVersion is the version of this format.
	APIVersion string `yaml:"apiVersion" required:"true" allowed:"muster/v1alpha1"`
	// Kind is always Lock.
	Kind string `yaml:"kind" required:"true" allowed:"Lock"`
	// Artifacts are sorted by name, one block each, so that two people who change
	// two of them can merge.
	Artifacts []Pin `yaml:"artifacts" required:"true" example:"[] made by userdata lock"`
}

// Pin is one artefact with its digests.
type Pin struct {
	// Name is that of the artefact, such as kubelet.
	Name string `yaml:"name" required:"true" example:"kubelet"`
	// Version is its release; empty for files that have none.
	Version string `yaml:"version,omitempty"`
	// URLs are tried in order; ARCH in one is replaced by amd64 or arm64.
	URLs  []string `yaml:"urls" required:"true" example:"[https://dl.k8s.io/release/v1.36.3/bin/linux/ARCH/kubelet]"`
	AMD64 Digest   `yaml:"amd64,omitempty"`
	ARM64 Digest   `yaml:"arm64,omitempty"`
}

// Digest is what a file must be.
type Digest struct {
	// SHA256 is 64 hex digits.
	SHA256 string `yaml:"sha256" required:"true" example:"\"9f86…\", made by userdata lock"`
	// Size is in bytes.
	Size int64 `yaml:"size" required:"true" example:"58523812"`
}

// For is the digest for an architecture as Go calls it.
func (p Pin) For(arch string) Digest {
	if arch == "arm64" {
		return p.ARM64
	}
	return p.AMD64
}

// Set gives an architecture its digest.
func (p *Pin) Set(arch string, d Digest) {
	if arch == "arm64" {
		p.ARM64 = d
	} else {
		p.AMD64 = d
	}
}

// Find is the pin of an artefact.
func (l Lock) Find(name string) (Pin, bool) {
	i := slices.IndexFunc(l.Artifacts, func(p Pin) bool { return p.Name == name })
	if i < 0 {
		return Pin{}, false
	}
	return l.Artifacts[i], true
}

// ParseLock reads a lock file as strictly as Parse reads a cluster file.
func ParseLock(name string, data []byte) (Lock, []Problem) {
	var l Lock
	d := decoder{report{file: name, values: map[string]place{}, keys: map[string]place{}, broken: map[string]bool{}}}
	if root := d.document(data); root != nil {
		d.value(root, "", "", reflect.ValueOf(&l).Elem())
		v := validator{report: d.report}
		v.pins("artifacts", l.Artifacts)
		d.report = v.report
	}
	problems := d.sorted()
	excerpts(problems, data)
	return l, problems
}

// pins checks a list of pins at path.
func (v *validator) pins(path string, list []Pin) {
	const remedy = "remove this block and let `userdata lock` write it anew"
	var names []string
	for i, p := range list {
		at := index(path, i)
		v.name(at+".name", p.Name)
		if slices.Contains(names, p.Name) && p.Name != "" {
			v.errorf(at+".name", "keep one of them, as after a merge, and run `userdata lock`", "%s is pinned twice", p.Name)
		}
		names = append(names, p.Name)
		for j, u := range p.URLs {
			if p.Name != AgentArtifact { // curl and wget fetch that one
				v.artifactURL(index(at+".urls", j), u, remedy)
			} else if !agentURL.MatchString(u) {
				v.errorf(index(at+".urls", j), remedy, "%q is not a URL", abbreviate(u))
			}
		}
		for _, arch := range architectures {
			digest := p.For(arch)
			if digest.SHA256 != "" && !isHex(digest.SHA256, 64) {
				v.errorf(at+"."+arch+".sha256", remedy, "%q is not a sha256: 64 lower-case hex digits", abbreviate(digest.SHA256))
			}
			if digest.SHA256 != "" && digest.Size < 1 {
				v.errorf(at+"."+arch+".size", remedy, "%d bytes are no artefact", digest.Size)
			}
		}
		if p.AMD64.SHA256 == "" && p.ARM64.SHA256 == "" && p.Name != "" {
			v.errorf(at, remedy, "%s has no digest", p.Name)
		}
	}
}

// ParseUnlocked is ParseBeside for whoever makes the lock file: that nothing has a
// digest yet is no problem.
func ParseUnlocked(name string, data []byte, beside Beside) (Cluster, []Problem) {
	c, problems := parse(name, data, false, beside)
	return c, slices.DeleteFunc(problems, func(p Problem) bool {
		return p.Message == noLock || p.Path == "spec.agent.sha256" && p.Message == "is missing"
	})
}

// FetchEnv is /etc/muster/fetch.env, which muster-fetch sources. The validation lets no
// character through that ends a quoted word of a shell.
func (a AgentSource) FetchEnv() string {
	return fmt.Sprintf("MUSTER_URLS='%s'\nMUSTER_SHA256_amd64='%s'\nMUSTER_SHA256_arm64='%s'\n",
		strings.Join(a.URLs, " "), a.SHA256["amd64"], a.SHA256["arm64"])
}

// noLock is what is wrong when a cluster file asks for what only a lock can give.
const noLock = "there is no lock file beside the cluster file, so nothing has a digest"

// apply gives the cluster the pins of a lock.
func (v *validator) apply(lock *Lock) {
	if v.Spec.Kubernetes.Version == "" || !v.fine("spec.kubernetes.version", "spec.artifacts", "spec.agent.urls") {
		return
	}
	for _, want := range v.Spec.Wanted() {
		pin, ok := lock.Find(want.Name)
		stale := ""
		switch {
		case !ok:
			stale = "has no digest of " + want.Name
		case pin.Version != want.Version:
			stale = fmt.Sprintf("pins %s %s, expected %s", pin.Name, or(pin.Version, "without a version"), or(want.Version, "none"))
		case !slices.Equal(pin.URLs, want.URLs):
			stale = fmt.Sprintf("has %s from %s, expected %s", pin.Name, strings.Join(pin.URLs, " "), strings.Join(want.URLs, " "))
		}
		for _, arch := range v.Spec.Architectures() {
			if stale == "" && pin.For(arch).SHA256 == "" {
				stale = fmt.Sprintf("has no digest of %s for %s", pin.Name, arch)
			}
		}
		if stale == "" {
			v.take(pin)
			continue
		}
		v.errorf(placeOf(want.Name), "run `userdata lock` and look at what it changes", "the lock file %s", stale)
		if want.Name == AgentArtifact {
			v.broken["spec.agent.sha256"] = true // said already
		}
	}
}

// take puts one pin where servers read it.
func (v *validator) take(pin Pin) {
	if pin.Name != AgentArtifact {
		v.Lock = append(v.Lock, pin)
		return
	}
	a := &v.Spec.Agent
	a.URLs = pin.URLs
	sums := map[string]string{}
	for _, arch := range architectures {
		own, sum := a.SHA256[arch], pin.For(arch).SHA256
		if own != "" && sum != "" && own != sum {
			v.errorf("spec.agent.sha256."+arch, "keep the pin in one place: remove sha256 here", "the lock file pins %s", sum)
		}
		if sum = or(own, sum); sum != "" {
			sums[arch] = sum
		}
	}
	a.SHA256 = sums
}

// placeOf is where the cluster file asks for an artefact.
func placeOf(name string) string {
	switch name {
	case AgentArtifact:
		return "spec.agent"
	case "kubeadm", "kubectl", "kubelet":
		return "spec.kubernetes.version"
	}
	return "spec.artifacts"
}

// locked checks what ParseServer reads, and what asks for a lock where there is none.
func (v *validator) locked(server, given bool) {
	_, present := v.values["lock"]
	if present && !server {
		v.errorf("lock", "remove it here; `userdata lock` writes a file of its own and `userdata render` adds it", "does not belong into the cluster file")
	} else if server {
		v.pins("lock", v.Lock)
	}
	if _, asked := v.values["spec.artifacts"]; asked && !given && len(v.Lock) == 0 {
		v.errorf("spec.artifacts", "run `userdata lock`", noLock)
	}
}

// lockHeader opens every lock file.
const lockHeader = "# What servers install, by digest. Written by `userdata lock`; commit it with the cluster file.\n"

// Marshal writes a lock file, byte for byte the same every time.
func (l Lock) Marshal() ([]byte, error) {
	l.APIVersion, l.Kind = APIVersion, LockKind
	l.Artifacts = slices.SortedFunc(slices.Values(l.Artifacts), func(a, b Pin) int { return strings.Compare(a.Name, b.Name) })
	body, err := marshal(reflect.ValueOf(l))
	if err != nil {
		return nil, fmt.Errorf("writing the lock file: %w", err)
	}
	return append([]byte(lockHeader), body...), nil
}
