package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/mustermetal/muster/pkg/cluster"
)

// resolution finds the digest of one artefact for one architecture.
type resolution struct {
	source   source
	artifact cluster.Artifact
	arch     string
	pinned   cluster.Digest // what the lock file says; zero when it says nothing
	check    bool           // do not download what is large
	notes    []string
}

// resolve asks the URLs in order. The next one is asked only when one cannot be
// had: a file that is not what was published ends it.
func (r *resolution) resolve(ctx context.Context) (cluster.Digest, error) {
	var failures []string
	for _, url := range r.artifact.At(r.arch) {
		digest, err := r.ask(ctx, url)
		var wrong wrongError
		switch {
		case err == nil:
			r.notes = append(r.notes, failures...)
			return digest, nil
		case errors.As(err, &wrong) || ctx.Err() != nil:
			return digest, err
		}
		failures = append(failures, err.Error())
	}
	return cluster.Digest{}, errors.New(strings.Join(failures, "; "))
}

func (r *resolution) ask(ctx context.Context, url string) (cluster.Digest, error) {
	sum, at, err := r.publishedSum(ctx, url)
	switch {
	case err != nil:
		return cluster.Digest{}, err
	case r.pinned.SHA256 != "" && sum == r.pinned.SHA256:
		return r.pinned, nil
	case r.pinned.SHA256 != "" && sum != "" && r.artifact.Version != "":
		return cluster.Digest{}, wrongError{fmt.Sprintf("the lock file pins sha256 %s, but %s now says %s; a release does not change: find out why, and remove its block from the lock file to take the new one", r.pinned.SHA256, at, sum)}
	case r.check && sum == "" && r.pinned.SHA256 != "":
		r.notes = append(r.notes, "no checksum is published, so it was not compared")
		return r.pinned, nil
	case r.check:
		// The pin is missing or another; which size it would have does not matter.
		return cluster.Digest{SHA256: sum, Size: 1}, nil
	}
	return r.download(ctx, url, sum, at)
}

// download reads the file once and compares it with its published checksum.
func (r *resolution) download(ctx context.Context, url, sum, at string) (cluster.Digest, error) {
	body, err := r.source.open(ctx, url)
	if err != nil {
		return cluster.Digest{}, err
	}
	defer body.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, body)
	if err != nil {
		return cluster.Digest{}, fmt.Errorf("%s: %w after %d bytes", url, err, size)
	}
	have := hex.EncodeToString(hash.Sum(nil))
	if sum == "" {
		r.notes = append(r.notes, fmt.Sprintf("no checksum lies beside %s; pinned as it was read", url))
	} else if have != sum {
		return cluster.Digest{}, wrongError{fmt.Sprintf("%s has sha256 %s (%d bytes), expected %s as %s says", url, have, size, sum, at)}
	}
	if size == 0 {
		return cluster.Digest{}, wrongError{url + " is empty"}
	}
	return cluster.Digest{SHA256: have, Size: size}, nil
}

// maxSums bounds a file of checksums; runc's, the longest known, has 3 KiB.
const maxSums = 1 << 20

// publishedSum finds the checksum beside a file and says where it was; "" when
// there is none and none is needed.
func (r *resolution) publishedSum(ctx context.Context, url string) (sum, at string, err error) {
	var failures []string
	for _, name := range r.artifact.Sums {
		at := sumURL(url, name, r.arch)
		body, err := r.source.open(ctx, at)
		if err != nil && (!errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil) {
			return "", at, err
		}
		if err != nil {
			failures = append(failures, err.Error())
			continue
		}
		data, err := io.ReadAll(io.LimitReader(body, maxSums))
		if err = errors.Join(err, body.Close()); err != nil {
			return "", at, fmt.Errorf("%s: %w", at, err)
		}
		sum, err := findSum(data, path.Base(url))
		if err != nil {
			return "", at, wrongError{fmt.Sprintf("%s: %v", at, err)}
		}
		return sum, at, nil
	}
	if r.artifact.Unpublished {
		return "", "", nil
	}
	return "", "", fmt.Errorf("its checksum: %s", strings.Join(failures, "; "))
}

// sumURL is the URL of a checksum file beside a file.
func sumURL(url, name, arch string) string {
	dir, file := path.Split(url)
	return dir + strings.NewReplacer("FILE", file, "ARCH", arch).Replace(name)
}

var (
	bareSum  = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	namedSum = regexp.MustCompile(`^([0-9a-fA-F]{64})[ \t]+\*?(\S+)$`)
)

// findSum reads a published checksum in the shapes that are in use: the digest
// alone (dl.k8s.io), or lines of sha256sum (all others), which may be signed in
// clear text (runc), so other lines mean nothing.
func findSum(data []byte, file string) (string, error) {
	if bare := string(bytes.TrimSpace(data)); bareSum.MatchString(bare) {
		return strings.ToLower(bare), nil
	}
	var others int
	for line := range strings.Lines(string(data)) {
		m := namedSum.FindStringSubmatch(strings.TrimSpace(line))
		switch {
		case m == nil:
		case path.Base(m[2]) == file:
			return strings.ToLower(m[1]), nil
		default:
			others++
		}
	}
	if others > 0 {
		return "", fmt.Errorf("has the checksums of %d other files, expected a line for %s", others, file)
	}
	return "", errors.New("has no sha256; expected 64 hex digits, or lines as sha256sum prints them")
}
