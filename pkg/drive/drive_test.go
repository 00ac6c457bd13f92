package drive

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// disk makes a real ext4 from files, on a loop device, and returns its path.
func disk(t *testing.T, files map[string]string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no loop device can be made")
	}
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "disk.img")
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "-> "); ok && err == nil {
			err = os.Symlink(target, path)
		} else if err == nil {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run(t, "mkfs.ext4", "-q", "-d", dir, image, "8M")
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", "--read-only", image))
	t.Cleanup(func() { run(t, "losetup", "-d", device) })
	return device
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// TestCopy reads real disks: what there is to copy, and nothing else of them.
func TestCopy(t *testing.T) {
	config := map[string]string{
		"openstack/latest/meta_data.json": `{"uuid": "u1"}`, "openstack/latest/network_data.json": `{}`,
		"openstack/latest/user_data": "secret", "ec2/latest/meta-data.json": "{}",
	}
	for _, tt := range []struct {
		name  string
		disks map[string]map[string]string // by label
		want  map[string]string
		err   string
	}{
		{"a config drive", map[string]map[string]string{"config-2": config}, map[string]string{"openstack/latest/meta_data.json": `{"uuid": "u1"}`, "openstack/latest/network_data.json": "{}"}, ""},
		{"NoCloud", map[string]map[string]string{"CIDATA": {"meta-data": "instance-id: i1\n", "user-data": "secret"}}, map[string]string{"meta-data": "instance-id: i1\n"}, ""},
		{"both", map[string]map[string]string{"CONFIG-2": config, "cidata": {"meta-data": "m", "network-config": "n"}},
			map[string]string{"openstack/latest/meta_data.json": `{"uuid": "u1"}`, "openstack/latest/network_data.json": "{}", "meta-data": "m", "network-config": "n"}, ""},
		{"other disks", map[string]map[string]string{"data": {"meta-data": "m"}}, nil, "no disk is labelled config-2 or CIDATA"},
		{"no document", map[string]map[string]string{"cidata": {"network-config": "n"}}, map[string]string{"network-config": "n"}, "the disk labelled cidata: openat meta-data: no such file or directory"},
		{"a link out of it", map[string]map[string]string{"cidata": {"meta-data": "-> /etc/hostname"}}, nil, "the disk labelled cidata: openat meta-data: path escapes from parent"},
		{"too large", map[string]map[string]string{"cidata": {"meta-data": strings.Repeat("#", most+1)}}, nil, "meta-data is larger than 1048576 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			byLabel, to := t.TempDir(), t.TempDir()
			var devices []string
			for label, files := range tt.disks {
				device := disk(t, files)
				if err := os.Symlink(device, filepath.Join(byLabel, label)); err != nil {
					t.Fatal(err)
				}
				devices = append(devices, device)
			}
			copied, err := Copy(byLabel, to)
			if err != nil && (tt.err == "" || !strings.Contains(err.Error(), tt.err)) || err == nil && tt.err != "" {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if got := tree(t, to); !cmp.Equal(tt.want, got) {
				t.Errorf("(-want +copied):\n%s", cmp.Diff(tt.want, got))
			}
			if err == nil && len(copied) != len(tt.want) {
				t.Errorf("copied %v, want %d files", copied, len(tt.want))
			}
			for _, device := range devices {
				if bytes.Contains(mounts(t), []byte(" "+device+" ")) {
					t.Errorf("%s is mounted", device)
				}
			}
		})
	}
}

// TestNoFileSystem: a disk with a label and nothing that can be read says what was
// tried.
func TestNoFileSystem(t *testing.T) {
	byLabel := t.TempDir()
	image := filepath.Join(byLabel, "cidata")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Copy(byLabel, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "the disk labelled cidata: its file system cannot be opened: as iso9660: ") || !strings.Contains(err.Error(), "as ext4: ") {
		t.Errorf("error %v", err)
	}
}

func mounts(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tree is a directory's files by name, nil where there are none.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	var files map[string]string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		if files == nil {
			files = map[string]string{}
		}
		files[filepath.ToSlash(name)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
