package images

import (
	"debug/elf"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// triplets are Debian's names for the library directories of an architecture.
var triplets = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

// libraries lists the shared libraries that programs of a Debian root need, all
// the way down, sorted, as paths below the root, and the path at which they look
// for their loader. It reads the programs instead of running ldd, so it works for
// any architecture.
func libraries(root, arch string, programs ...string) (libs []string, loader string, err error) {
	triplet, ok := triplets[arch]
	if !ok {
		return nil, "", fmt.Errorf("the library directory of Debian for %s is not known; amd64 and arm64 are", arch)
	}
	dir := "usr/lib/" + triplet
	seen := map[string]bool{}
	for todo := slices.Clone(programs); len(todo) > 0; todo = todo[1:] {
		names, asks, err := imports(filepath.Join(root, todo[0]))
		if err != nil {
			return nil, "", fmt.Errorf("reading %s: %w", todo[0], err)
		}
		if asks != "" {
			// Debian has the loader among the libraries, and at the path of the
			// ABI an absolute link to it, which would lead out of the root.
			loader = asks
			names = append(names, filepath.Base(asks))
		}
		for _, name := range names {
			if p := dir + "/" + name; !seen[p] {
				seen[p] = true
				libs = append(libs, p)
				todo = append(todo, p)
			}
		}
	}
	slices.Sort(libs)
	return libs, loader, nil
}

// imports are the libraries a program names itself, and its loader if any.
func imports(path string) (libs []string, loader string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	if libs, err = f.ImportedLibraries(); err != nil {
		return nil, "", err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, "", err
			}
			loader = strings.TrimRight(string(b), "\x00")
		}
	}
	return libs, loader, nil
}
