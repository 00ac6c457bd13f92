package cluster

import (
	"errors"
	"io"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Addon is a set of Kubernetes manifests that a control plane applies, server-side,
// once the API server answers; those before it in the list first. Exactly one of
// file, url and inline says where they are.
type Addon struct {
	// Name is a DNS label, unique in the list.
	Name string `yaml:"name" required:"true" example:"cni"`
	// File is a path. A relative one is beside the cluster file, and `userdata render`
	// puts its content into the user-data, which has a limit; an absolute one is on
	// the servers, in their image.
	File string `yaml:"file,omitempty"`
	// URL is where control planes get the manifests; any that answers with the sha256 will do.
	URL string `yaml:"url,omitempty"`
	// SHA256 is that of what the URL answers: 64 hex digits.
	SHA256 string `yaml:"sha256,omitempty"`
	// Inline is the manifests themselves.
	Inline string `yaml:"inline,omitempty"`
	// Wait is what must be so before the next add-on is applied, in this order.
	Wait []AddonWait `yaml:"wait,omitempty"`
	// Timeout is after how long a wait, or an apply that fails, is called a problem;
	// it is tried on all the same. Default 5m.
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// AddonWait is one thing to wait for: a rollout, a condition, or a CRD.
type AddonWait struct {
	// Rollout is the KIND/NAME of a deployment, daemonset or statefulset whose pods
	// must all be new and ready.
	Rollout string `yaml:"rollout,omitempty"`
	// Condition must be true of what Of names, such as Available.
	Condition string `yaml:"condition,omitempty"`
	// Of is the KIND/NAME that Condition is about.
	Of string `yaml:"of,omitempty"`
	// CRD is the name of a CustomResourceDefinition that must be served.
	CRD string `yaml:"crd,omitempty"`
	// Namespace of Rollout or Of, where it is in one.
	Namespace string `yaml:"namespace,omitempty"`
}

// AddonTimeout is the default of Addon.Timeout.
const AddonTimeout = 5 * time.Minute

// addonMax bounds what is read of one add-on's manifests, in bytes.
const addonMax = 16 << 20

var (
	rolloutRef = regexp.MustCompile(`^(deployment|daemonset|statefulset)/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	objectRef  = regexp.MustCompile(`^[a-z0-9.-]{1,253}/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	crdName    = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)
)

// addons checks the list and, where read is given, takes the files beside the
// cluster file into it.
func (v *validator) addons(read func(path string) ([]byte, error)) {
	const at = "spec.addons"
	var names []string
	for i := range v.Spec.Addons {
		a, p := &v.Spec.Addons[i], index(at, i)
		names = append(names, a.Name)
		v.name(p+".name", a.Name)
		v.addonSource(p, *a)
		if a.File != "" && !path.IsAbs(a.File) {
			v.embed(p+".file", a, read)
		} else if a.Inline != "" {
			v.manifests(p+".inline", a.Inline)
		}
		for j, w := range a.Wait {
			v.addonWait(index(p+".wait", j), w)
		}
		if _, given := v.values[p+".timeout"]; given && a.Timeout < time.Second {
			v.errorf(p+".timeout", "such as 5m", "%s is no time to wait", a.Timeout)
		}
	}
	for i, name := range names {
		for j := range i {
			if name == names[j] && name != "" {
				v.errorf(index(at, i)+".name", "each add-on has a name of its own", "%q is the name of element %d too", abbreviate(name), j)
				break
			}
		}
	}
}

func (v *validator) addonSource(p string, a Addon) {
	given := 0
	for _, is := range []bool{a.File != "", a.URL != "", a.Inline != ""} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		v.errorf(p, "keep one of file, url and inline", "the manifests of one add-on come from one place")
	case given == 0 && v.fine(p+".file", p+".url", p+".inline"):
		v.errorf(p, "file: calico.yaml, or url: and sha256:, or inline:", "says nothing of where its manifests are")
	case a.URL == "" && a.SHA256 != "":
		v.errorf(p+".sha256", "remove it, or name the url", "is that of what a url answers, and there is none")
	case a.URL != "":
		if u, err := url.Parse(a.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			v.errorf(p+".url", "such as https://mirror.example.net/calico.yaml", "%q is no http or https URL", abbreviate(a.URL))
		} else if u.User != nil {
			v.errorf(p+".url", "serve it without a password: the sha256 protects it", "has a user or a password in it, and user-data is no place for one")
		}
		if a.SHA256 == "" {
			v.missing(p+".sha256", "`curl -sL URL | sha256sum` prints it. Without one a mirror could run anything in the cluster")
		} else if !isHex(a.SHA256, 64) {
			v.errorf(p+".sha256", "`curl -sL URL | sha256sum` prints it", "%q is not a sha256: 64 lower-case hex digits", abbreviate(a.SHA256))
		}
	}
}

// embed makes a file beside the cluster file part of it.
func (v *validator) embed(p string, a *Addon, read func(string) ([]byte, error)) {
	if read == nil {
		v.errorf(p, "`userdata render` does that; an absolute path is read on the servers", "%q is beside the operator's cluster file and is not part of this one", abbreviate(a.File))
		return
	}
	data, err := read(a.File)
	switch {
	case err != nil:
		v.errorf(p, "a path from where the cluster file is", "cannot be read: %v", err)
	case len(data) > addonMax:
		v.errorf(p, "name a url and sha256", "%q has %d bytes, at most %d are read", a.File, len(data), addonMax)
	default:
		v.manifests(p, string(data))
		a.File, a.Inline = "", string(data)
	}
}

// manifests checks that text is one Kubernetes object or more.
func (v *validator) manifests(p, text string) {
	dec := yaml.NewDecoder(strings.NewReader(text))
	objects := 0
	for n := 1; ; n++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && doc.Content[0].Tag == "!!null" {
			continue // a comment between two `---`
		}
		var o struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
			Metadata   struct{ Name string }
		}
		if err == nil {
			err = doc.Decode(&o)
		}
		if err != nil {
			said := strings.Join(strings.Fields(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:")), " ")
			v.errorf(p, "templates must be rendered first; kubectl apply --dry-run=client -f FILE says more", "document %d is no Kubernetes object: %s", n, said)
			return
		}
		if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" && !strings.HasSuffix(o.Kind, "List") {
			v.errorf(p, "each has all three", "document %d is no Kubernetes object: apiVersion %q, kind %q, metadata.name %q", n, o.APIVersion, o.Kind, o.Metadata.Name)
			return
		}
		objects++
	}
	if objects == 0 {
		v.errorf(p, "Kubernetes objects, `---` between them", "holds no object")
	}
}

func (v *validator) addonWait(p string, w AddonWait) {
	given := 0
	for _, is := range []bool{w.Rollout != "", w.Condition != "" || w.Of != "", w.CRD != ""} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		v.errorf(p, "{rollout: daemonset/NAME}, {condition: Available, of: KIND/NAME} or {crd: NAME}", "waits for %d things, expected one", given)
	case w.Rollout != "" && !rolloutRef.MatchString(w.Rollout):
		v.errorf(p+".rollout", "such as daemonset/calico-node", "%q is not deployment, daemonset or statefulset, a slash and a name", abbreviate(w.Rollout))
	case w.Of != "" && w.Condition == "":
		v.missing(p+".condition", "such as condition: Available")
	case w.Condition != "" && !objectRef.MatchString(w.Of):
		v.errorf(p+".of", "such as deployment/tigera-operator", "%q is not a kind, a slash and a name", abbreviate(w.Of))
	case w.CRD != "" && !crdName.MatchString(w.CRD):
		v.errorf(p+".crd", "such as ippools.crd.projectcalico.org", "%q is not the name of a CRD", abbreviate(w.CRD))
	case w.CRD != "" && w.Namespace != "":
		v.errorf(p+".namespace", "remove it", "a CRD is in no namespace")
	}
	v.name(p+".namespace", w.Namespace)
}
