package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mustermetal/muster/images/oci"
)

const registry = "registry.k8s.io/"

// archives makes oci-KEY/*.tar: one archive of each image that kubeadm names.
func (b *builder) archives(ctx context.Context, components, debian string) (string, error) {
	k := key("1", filepath.Base(components), filepath.Base(debian), b.arch)
	return b.cache.product(ctx, "oci", k, func(ctx context.Context, dir string) error {
		return step(ctx, b.cache.log, "write the control plane's container images", func(ctx context.Context) error {
			images, err := b.controlPlaneImages(filepath.Join(components, "bin"), filepath.Join(debian, "root"))
			if err != nil {
				return err
			}
			for _, image := range images {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := writeArchive(dir, image); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func writeArchive(dir string, image oci.Image) error {
	name := strings.ReplaceAll(path.Base(image.Name), ":", "_") + ".tar"
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return errors.Join(oci.Write(f, image), f.Close())
}

// controlPlaneImages are the images with what goes into them.
func (b *builder) controlPlaneImages(bin, root string) ([]oci.Image, error) {
	proxy, err := proxyTools(root, b.arch)
	if err != nil {
		return nil, fmt.Errorf("collecting the tools of kube-proxy from Debian: %w", err)
	}
	return b.named(bin, proxy, root), nil
}

// named are the seven images of `kubeadm config images list`.
func (b *builder) named(bin string, proxy []oci.File, root string) []oci.Image {
	local := func(names ...string) (files []oci.File) {
		for _, name := range names {
			files = append(files, oci.File{Path: "usr/local/bin/" + name, Source: filepath.Join(bin, name), Mode: 0o755})
		}
		return files
	}
	// CoreDNS forwards over TLS when told to.
	trust := oci.File{Path: "etc/ssl/certs/ca-certificates.crt", Source: filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"), Mode: 0o644}
	images := []oci.Image{
		{Name: registry + "kube-apiserver:" + KubernetesVersion, Entrypoint: []string{"/usr/local/bin/kube-apiserver"}, Files: local("kube-apiserver")},
		{Name: registry + "kube-controller-manager:" + KubernetesVersion, Entrypoint: []string{"/usr/local/bin/kube-controller-manager"}, Files: local("kube-controller-manager")},
		{Name: registry + "kube-scheduler:" + KubernetesVersion, Entrypoint: []string{"/usr/local/bin/kube-scheduler"}, Files: local("kube-scheduler")},
		{Name: registry + "kube-proxy:" + KubernetesVersion, Entrypoint: []string{"/usr/local/bin/kube-proxy"}, Files: append(proxy, local("kube-proxy")...)},
		{Name: registry + "etcd:" + etcdTag, Entrypoint: []string{"/usr/local/bin/etcd"}, Files: local("etcd", "etcdctl")},
		{Name: registry + "coredns/coredns:" + corednsVersion, Entrypoint: []string{"/coredns"}, Files: []oci.File{{Path: "coredns", Source: filepath.Join(bin, "coredns"), Mode: 0o755}, trust}},
		{Name: registry + "pause:" + pauseTag, Entrypoint: []string{"/pause"}, Files: []oci.File{{Path: "pause", Source: filepath.Join(bin, "pause"), Mode: 0o755}}},
	}
	// Some programs look their own user up.
	users := []oci.File{
		{Path: "etc/passwd", Body: []byte("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n"), Mode: 0o644},
		{Path: "etc/group", Body: []byte("root:x:0:\nnobody:x:65534:\n"), Mode: 0o644},
	}
	for i := range images {
		images[i].Arch = b.arch
		images[i].Files = append(images[i].Files, users...)
	}
	return images
}

// proxyTools are the packet filter programs that kube-proxy runs, with their
// libraries. Debian's directories are merged, so links stand for the old ones.
func proxyTools(root, arch string) ([]oci.File, error) {
	files := []oci.File{
		{Path: "bin", Link: "usr/bin"}, {Path: "sbin", Link: "usr/sbin"}, {Path: "lib", Link: "usr/lib"}, {Path: "lib64", Link: "usr/lib64"},
	}
	var programs []string
	for _, name := range []string{"xtables-nft-multi", "nft", "conntrack", "ipset"} {
		programs = append(programs, "usr/sbin/"+name)
	}
	libs, loader, err := libraries(root, arch, programs...)
	if err != nil {
		return nil, err
	}
	for _, name := range append(programs, libs...) {
		files = append(files, oci.File{Path: name, Source: filepath.Join(root, name), Mode: 0o755})
	}
	// At /lib64 or /lib, which are links to the same below /usr.
	if abi := "usr" + loader; !slices.Contains(libs, abi) {
		files = append(files, oci.File{Path: abi, Link: "/usr/lib/" + triplets[arch] + "/" + path.Base(loader)})
	}
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		files = append(files, oci.File{Path: "usr/sbin/" + name, Link: "xtables-nft-multi"})
	}
	// iptables loads its matches and targets by name.
	extensions, err := filepath.Glob(filepath.Join(root, "usr/lib", triplets[arch], "xtables", "*.so"))
	if err != nil || len(extensions) == 0 {
		return nil, errors.Join(err, errors.New("the package iptables holds no extensions (xtables/*.so)"))
	}
	slices.Sort(extensions)
	for _, extension := range extensions {
		name, err := filepath.Rel(root, extension)
		if err != nil {
			return nil, err
		}
		info, err := os.Lstat(extension)
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			files = append(files, oci.File{Path: name, Source: extension, Mode: 0o644})
			continue
		}
		target, err := os.Readlink(extension)
		if err != nil {
			return nil, err
		}
		files = append(files, oci.File{Path: name, Link: target})
	}
	return files, nil
}
