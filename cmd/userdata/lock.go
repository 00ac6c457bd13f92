package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/mustermetal/muster/pkg/cluster"
)

var lockCommand = command{
	name: "lock", args: "[-f FILE] [--lock FILE] [--from DIR] [--check | --list]",
	summary: "pin what servers install by sha256, in a lock file",
	help: `Downloads kubeadm, kubelet and kubectl of spec.kubernetes.version, containerd, runc,
the CNI plugins, crictl, the agent and what spec.artifacts names, for each
architecture; compares each with the checksum that its project publishes; and
writes cluster.lock.yaml beside cluster.yaml. What is pinned already is not
downloaded again. When one file cannot be had, or is not what was published,
nothing is written. Commit the lock file: check and render read it.

With --from the files are read from a directory, laid out as wget -x lays them, or
by the URLs' hosts and paths; nothing is asked of the network.

Examples:
  userdata lock
  userdata lock --check                      # for CI: 65 when the lock file is not what it would be
  userdata lock --list | wget -x -P mirror -i -   # the files of a mirror, checksums too
  userdata lock --from mirror

Exit codes: 0 done, 1 a file cannot be had at the moment, 64 wrong command line, 65 the cluster
file or the lock file is wrong, or a file is not what was published.
`,
	flags: func(set *flag.FlagSet) func(context.Context, streams, []string) error {
		file, lock := fileFlag(set), lockFlag(set)
		from := set.String("from", "", "read files from this `directory` instead of their URLs")
		check := set.Bool("check", false, "write nothing; compare the lock file with what is published")
		list := set.Bool("list", false, "print the URLs of all files and their checksums, one a line")
		return func(ctx context.Context, s streams, names []string) error {
			if err := noNames(names); err != nil {
				return err
			}
			if *check && *list {
				return exitError{exitUsage, errors.New("--check and --list are two things to do: give one of them")}
			}
			l := locker{streams: s, check: *check, source: newSource(*from)}
			return l.run(ctx, *file, *lock, *list)
		}
	},
}

func lockFlag(set *flag.FlagSet) *string {
	return set.String("lock", "", "the lock `file` (default: cluster.lock.yaml beside cluster.yaml)")
}

// lockPath is the lock file of a cluster file, "" for one on standard input.
func lockPath(file, given string) string {
	if given != "" || file == "-" {
		return given
	}
	return strings.TrimSuffix(strings.TrimSuffix(file, ".yaml"), ".yml") + ".lock.yaml"
}

// loadLock reads the lock file of a cluster file; one that was not named need not
// be there.
func loadLock(file, given string) (l cluster.Lock, found bool, problems []cluster.Problem, err error) {
	path := lockPath(file, given)
	if path == "" {
		return l, false, nil, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if given == "" {
			return l, false, nil, nil
		}
		return l, false, nil, exitError{exitData, fmt.Errorf("the lock file %s does not exist; userdata lock writes it", path)}
	} else if err != nil {
		return l, false, nil, err
	}
	l, problems = cluster.ParseLock(path, data)
	return l, true, problems, nil
}

// locker makes a lock file.
type locker struct {
	streams
	check  bool
	source source
}

// run reads the cluster file without its lock, since that is what is to be made.
func (l locker) run(ctx context.Context, file, given string, list bool) error {
	spec, err := l.spec(file)
	if err != nil {
		return err
	}
	if list {
		return l.list(spec)
	}
	path := lockPath(file, given)
	if path == "" {
		return exitError{exitUsage, errors.New("the cluster file comes from standard input: name the lock file with --lock")}
	}
	// Commands that only read call it an error when the named file is missing.
	was, _, problems, err := loadLock(file, given)
	var missing exitError
	if err != nil && !errors.As(err, &missing) {
		return err
	}
	if show(l.err, problems) > 0 {
		return errReported
	}
	made, err := l.resolve(ctx, spec, was)
	if err != nil {
		return err
	}
	data, err := made.Marshal()
	if err != nil {
		return err
	}
	return l.conclude(path, data, made)
}

// spec reads the cluster file. That nothing has a digest yet is no problem here.
func (l locker) spec(file string) (cluster.Spec, error) {
	name, data, err := readCluster(l.streams, file)
	if err != nil {
		return cluster.Spec{}, err
	}
	beside := besides(file)
	beside.Formed = true // it may have
	c, problems := cluster.ParseUnlocked(name, data, beside)
	problems = slices.DeleteFunc(problems, func(p cluster.Problem) bool { return p.Severity != cluster.SeverityError })
	if show(l.err, problems) > 0 {
		return cluster.Spec{}, errReported
	}
	return c.Spec, nil
}

// list prints what a mirror must hold.
func (l locker) list(spec cluster.Spec) error {
	var lines []string
	for _, a := range spec.Wanted() {
		for _, arch := range spec.Architectures() {
			for _, url := range a.At(arch) {
				lines = append(lines, url)
				if !a.Unpublished {
					lines = append(lines, sumURL(url, a.Sums[len(a.Sums)-1], arch))
				}
			}
		}
	}
	slices.Sort(lines)
	_, err := fmt.Fprintln(l.out, strings.Join(slices.Compact(lines), "\n"))
	return err
}

// conclude writes the lock file, or says whether it is right.
func (l locker) conclude(path string, data []byte, made cluster.Lock) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case err == nil && bytes.Equal(old, data):
		_, err = fmt.Fprintf(l.out, "%s is up to date: %s\n", path, count(len(made.Artifacts), "artefact"))
		return err
	case l.check && errors.Is(err, fs.ErrNotExist):
		return exitError{exitData, fmt.Errorf("%s does not exist; run userdata lock and commit it", path)}
	case l.check:
		return exitError{exitData, fmt.Errorf("%s is not what userdata lock would write (%s); run it and commit the file", path, firstDifference(old, data))}
	}
	if err := replace(path, data, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(l.out, "wrote %s: %s; commit it with the cluster file\n", path, count(len(made.Artifacts), "artefact"))
	return err
}

// firstDifference names the first line that differs.
func firstDifference(old, data []byte) string {
	a, b := strings.Split(string(old), "\n"), strings.Split(string(data), "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) {
			return fmt.Sprintf("it ends before %q", strings.TrimSpace(b[i]))
		}
		if i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("line %d: %q", i+1, strings.TrimSpace(a[i]))
		}
	}
	return "nothing differs"
}

// replace writes a file whole, or leaves the old one.
func replace(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// parallel is how many files are fetched at once: enough to fill a line, few
// enough for a mirror to bear.
const parallel = 4

// resolve finds every digest. All that went wrong is said, in the order of the
// lock file.
func (l locker) resolve(ctx context.Context, spec cluster.Spec, was cluster.Lock) (cluster.Lock, error) {
	type job struct {
		artifact cluster.Artifact
		arch     string
		digest   cluster.Digest
		notes    []string
		err      error
	}
	var jobs []*job
	for _, a := range spec.Wanted() {
		for _, arch := range spec.Architectures() {
			jobs = append(jobs, &job{artifact: a, arch: arch})
		}
	}
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, j := range jobs {
		group.Go(func() error {
			pinned, _ := was.Find(j.artifact.Name)
			if pinned.Version != j.artifact.Version || !slices.Equal(pinned.URLs, j.artifact.URLs) {
				pinned = cluster.Pin{}
			}
			r := resolution{source: l.source, artifact: j.artifact, arch: j.arch, pinned: pinned.For(j.arch), check: l.check}
			j.digest, j.err = r.resolve(ctx)
			j.notes = r.notes
			return nil
		})
	}
	_ = group.Wait() // each job holds its own error
	var errs []error
	pins := map[string]*cluster.Pin{}
	for _, j := range jobs {
		for _, note := range j.notes {
			fmt.Fprintf(l.err, "%s %s: %s\n", j.artifact.Name, j.arch, note)
		}
		if j.err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", j.artifact.Name, j.arch, j.err))
			continue
		}
		pin := pins[j.artifact.Name]
		if pin == nil {
			pin = &cluster.Pin{Name: j.artifact.Name, Version: j.artifact.Version, URLs: j.artifact.URLs}
			pins[j.artifact.Name] = pin
		}
		pin.Set(j.arch, j.digest)
	}
	if own := spec.Agent.SHA256; len(errs) == 0 && pins[cluster.AgentArtifact] != nil {
		errs = append(errs, ownPins(own, *pins[cluster.AgentArtifact])...)
	}
	if len(errs) > 0 {
		return cluster.Lock{}, explain(errs)
	}
	var lock cluster.Lock
	for _, p := range pins {
		lock.Artifacts = append(lock.Artifacts, *p)
	}
	slices.SortFunc(lock.Artifacts, func(a, b cluster.Pin) int { return cmp.Compare(a.Name, b.Name) })
	return lock, nil
}

// ownPins compares the agent with what the cluster file says of it.
func ownPins(own map[string]string, pin cluster.Pin) (errs []error) {
	for _, arch := range []string{"amd64", "arm64"} {
		if sum := pin.For(arch).SHA256; own[arch] != "" && sum != "" && own[arch] != sum {
			errs = append(errs, wrongError{fmt.Sprintf("agent %s: its sha256 is %s, the cluster file says %s (spec.agent.sha256.%s)", arch, sum, own[arch], arch)})
		}
	}
	return errs
}

// wrongError is a file that is not what it must be: no retry helps.
type wrongError struct{ text string }

func (e wrongError) Error() string { return e.text }

// explain makes one error of many, with the exit code of the worst.
func explain(errs []error) error {
	var b strings.Builder
	b.WriteString("nothing was written:")
	code := exitFailed
	for _, err := range errs {
		fmt.Fprintf(&b, "\n  %v", err)
		var wrong wrongError
		if errors.As(err, &wrong) {
			code = exitData
		}
	}
	return exitError{code, errors.New(b.String())}
}
