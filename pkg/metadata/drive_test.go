package metadata

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/mustermetal/muster/pkg/cluster"
)

// TestDrive: a disk that nobody mounted is read when nothing else tells, each time
// that it is asked for, and of the right platform.
func TestDrive(t *testing.T) {
	config := map[string]string{"run/muster/drive/openstack/latest/meta_data.json": `{"uuid": "u1", "hostname": "cp1"}`, "run/muster/drive/openstack/latest/network_data.json": "{}"}
	seed := map[string]string{"run/muster/drive/meta-data": seedOfCP1}
	for _, tt := range []struct {
		name, platform string
		labels         []string
		copied         map[string]string // what the disk's reader leaves
		fails          error
		from, err      string
		reads          int
	}{
		{"config drive", cluster.PlatformOpenStack, []string{"config-2"}, config, nil, "/run/muster/drive/openstack/latest/meta_data.json /run/muster/drive/openstack/latest/network_data.json", "", 2},
		{"config drive, auto", cluster.PlatformAuto, []string{"config-2"}, config, nil, "/run/muster/drive/openstack/latest/meta_data.json /run/muster/drive/openstack/latest/network_data.json", "", 2},
		{"NoCloud on vfat", cluster.PlatformNoCloud, []string{"CIDATA"}, seed, nil, "/run/muster/drive/meta-data", "", 2},
		{"beside another", cluster.PlatformNoCloud, []string{"config-2", "cidata"}, seed, nil, "/run/muster/drive/meta-data", "", 2},
		{"no disk", cluster.PlatformNoCloud, []string{"root"}, seed, nil, "", "no NoCloud seed", 0},
		{"unreadable", cluster.PlatformNoCloud, []string{"cidata"}, nil, errors.New("no such file system"), "", "a disk is labelled cidata, which cannot be read: no such file system", 2},
		{"empty", cluster.PlatformOpenStack, []string{"config-2"}, nil, nil, "", "a disk is labelled config-2, but /run/muster/drive/openstack/latest/meta_data.json is not there", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			for i, label := range tt.labels {
				files["run/udev/data/b8:"+string(rune('0'+i))] = "S:disk\nE:ID_FS_LABEL=" + label + "\n"
			}
			m := machine(files, "cp1", nil, link("bond0", "10.99.14.9/31"))
			reads := 0
			m.Drive = func(context.Context) error {
				reads++
				for name, content := range tt.copied {
					m.Root.(fstest.MapFS)[name] = &fstest.MapFile{Data: []byte(content)}
				}
				return tt.fails
			}
			r, err := NewReader(cluster.Spec{Platform: tt.platform}, m)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				f, err := r.Read(t.Context())
				if tt.err == "" && (err != nil || !slices.Equal(f.From, strings.Fields(tt.from)) || f.Device.Hostname != "cp1") {
					t.Errorf("%+v, %v", f, err)
				} else if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
			}
			if reads != tt.reads {
				t.Errorf("the disk was read %d times, want %d", reads, tt.reads)
			}
		})
	}
}
