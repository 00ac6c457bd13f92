package durable

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mustermetal/muster/pkg/election"
)

// mount puts a file system on a new directory, in a mount namespace of this
// test's own: nothing of it reaches the machine. It is left when the test ends.
func mount(t *testing.T, kind, options string) (dir string) {
	t.Helper()
	privately(t)
	dir = t.TempDir()
	if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
		t.Skipf("this machine does not let tests mount %s: %v", kind, err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// privately gives this goroutine's thread a mount namespace of its own. The
// thread is never unlocked, so it ends with the goroutine.
func privately(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("this machine does not let tests make a mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
}

// TestForgetfulFilesystem: what forgets at a reboot holds no vote, unless the
// cluster file says that it may.
func TestForgetfulFilesystem(t *testing.T) {
	for name, at := range map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string { return mount(t, "tmpfs", "size=4m") },
		"ramfs": func(t *testing.T) string { return mount(t, "ramfs", "") },
		"overlay": func(t *testing.T) string {
			below := mount(t, "tmpfs", "size=8m") // an overlay cannot lie on an overlay
			for _, d := range []string{"lower", "upper", "work"} {
				if err := os.Mkdir(filepath.Join(below, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			dir := t.TempDir()
			options := "lowerdir=" + below + "/lower,upperdir=" + below + "/upper,workdir=" + below + "/work"
			if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
				t.Skipf("this machine does not let tests mount an overlay: %v", err)
			}
			t.Cleanup(func() { unmount(t, dir) })
			return dir
		},
	} {
		t.Run(name, func(t *testing.T) {
			elect := filepath.Join(at(t), "elect")
			_, err := Open(elect, false)
			want := elect + " lies on " + name + ", which may forget a vote at a reboot; a server that forgets its vote can make a second cluster: " +
				"put " + elect + " on a disk (on test servers only: spec.unsafe.stateFilesystem: true)"
			if err == nil || err.Error() != want {
				t.Errorf("Open:\n got %v\nwant %s", err, want)
			}
			s, err := Open(elect, true)
			if err != nil {
				t.Fatalf("with spec.unsafe.stateFilesystem: %v", err)
			}
			if err := errors.Join(s.Prove(), s.Save(state(1))); err != nil {
				t.Errorf("with spec.unsafe.stateFilesystem: %v", err)
			}
		})
	}
}

// TestFullDisk: a vote that finds no room is an error, the state before it is
// whole, and both the state and the journal go on when there is room.
func TestFullDisk(t *testing.T) {
	dir := mount(t, "tmpfs", "size=4m")
	elect, ballast := filepath.Join(dir, "elect"), filepath.Join(dir, "ballast")
	s, err := Open(elect, true)
	if err != nil {
		t.Fatal(err)
	}
	j := journal(t, filepath.Join(dir, "journal"), "b")
	if err := errors.Join(s.Prove(), s.Save(state(1)), j.Start("one")); err != nil {
		t.Fatal(err)
	}
	fillUp(t, ballast)
	if err := s.Save(state(2)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Save on a full disk: %v", err)
	}
	want := elect + " cannot hold votes, so this server does not vote: write " + elect + "/probe: "
	if err := s.Prove(); err == nil || !strings.HasPrefix(err.Error(), want) ||
		!strings.HasSuffix(err.Error(), "no space left on device; make room for 1024 KiB (df -h, df -i): it goes on by itself") {
		t.Errorf("Prove on a full disk: %v", err)
	}
	failed := 0
	for range 200 { // the last block of the journal takes some lines more, and then half a one
		if err := j.Start("lost"); err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Error("the journal grew on a full disk")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s, found := load(t, elect)
	if found.Origin != Loaded || found.State.Seq != 1 {
		t.Fatalf("after a failed write: %+v", found)
	}
	if err := errors.Join(s.Prove(), s.Save(state(2)), j.Finish("one")); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if _, found := load(t, elect); found.Origin != Loaded || found.State.Seq != 2 {
		t.Errorf("after the write that had room: %+v", found)
	}
	if j := journal(t, filepath.Join(dir, "journal"), "b"); !j.Done("one") || j.Skipped() != 0 {
		t.Errorf("the line after a half one: done %v, %d lines skipped", j.Done("one"), j.Skipped())
	}
}

func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}

// TestReadOnly: a disk that went read-only keeps what it has, and is said.
func TestReadOnly(t *testing.T) {
	dir := mount(t, "tmpfs", "size=4m")
	elect := filepath.Join(dir, "elect")
	s, err := Open(elect, true)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "journal")
	before := journal(t, path, "b")
	if err := errors.Join(s.Save(state(1)), before.Finish("one"), before.Close()); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	j := journal(t, path, "b")
	if !j.Done("one") {
		t.Error("the journal of a read-only file system is not read")
	}
	if err := j.Start("two"); !errors.Is(err, unix.EROFS) {
		t.Errorf("Start: %v", err)
	}
	s, found := load(t, elect)
	if found.Origin != Loaded || found.State.Seq != 1 {
		t.Errorf("on a read-only file system: %+v", found)
	}
	if err := s.Prove(); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), elect+" cannot hold votes, so this server does not vote: ") ||
		!strings.HasSuffix(err.Error(), "read-only file system; a file system goes read-only when its disk fails (dmesg), or was mounted so (/etc/fstab): "+
			"remount it writable, it goes on by itself") {
		t.Errorf("Prove: %v", err)
	}
	if err := s.Save(state(2)); !errors.Is(err, unix.EROFS) {
		t.Errorf("Save: %v", err)
	}
	remount(0)
	if err := errors.Join(s.Prove(), s.Save(state(2)), j.Start("two")); err != nil {
		t.Errorf("writable again: %v", err)
	}
}

// TestUnreadableSlot: an I/O error is no wipe. Nobody can take the answer "wiped"
// back when the disk is well again.
func TestUnreadableSlot(t *testing.T) {
	for _, name := range slotNames {
		dir := written(t, 5)
		slot := filepath.Join(dir, name)
		if err := os.Rename(slot, dir+"/aside"); err != nil {
			t.Fatal(err)
		}
		// The kernel's own EIO: nothing is mapped at address 0.
		if err := os.Symlink("/proc/self/mem", slot); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.Load()
		want := "the fence's state cannot be read, which does not mean that it is lost, so this server does not vote: read " + slot +
			": input/output error; dmesg tells what the disk has; if it is dead, replace it and reinstall this server"
		if err == nil || err.Error() != want || found != (Found{}) {
			t.Errorf("%s: %+v\n got %v\nwant %s", name, found, err, want)
		}
		if err := s.Discard(); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: Discard: %v", name, err)
		}
		if err := os.Rename(dir+"/aside", slot); err != nil {
			t.Fatal(err)
		}
		if _, found := load(t, dir); found.Origin != Loaded || found.State.Seq != 5 {
			t.Errorf("%s can be read again: %+v", name, found)
		}
	}
}

// TestPowerLoss cuts the power of a real file system: what the loop device wrote
// to its image until then is all that the next boot finds. It runs the store
// beside writers that leave a sync out, which must lose the vote, or the test
// proves nothing.
func TestPowerLoss(t *testing.T) {
	for _, c := range []struct {
		name string
		save func(*Store, election.State) error
		kept bool
	}{
		{"as it is", (*Store).Save, true},
		{"all syncs", leavingOut(false, false), true},
		{"no sync of the file", leavingOut(true, false), false},
		{"no sync of the directory", leavingOut(false, true), false},
		{"no sync", leavingOut(true, true), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			privately(t)
			image := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mkfs.ext4", "-q", image, "16M").CombinedOutput(); err != nil {
				t.Skipf("mkfs.ext4: %v: %s", err, out)
			}
			elect := filepath.Join(power(t, image), "elect")
			s, err := Open(elect, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Prove(), s.Save(state(1)), s.Save(state(2))); err != nil {
				t.Fatal(err)
			}
			if err := Flush(elect); err != nil { // two states that are there in any case
				t.Fatal(err)
			}
			if err := c.save(s, state(3)); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			lost := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(lost, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, found := load(t, filepath.Join(power(t, lost), "elect"))
			if kept := found.Origin == Loaded && found.State.Seq == 3; kept != c.kept {
				t.Errorf("after the power loss %+v; expected the vote to be kept: %v", found, c.kept)
			}
		})
	}
}

// power mounts an image. Nothing but a sync makes the file system write for five
// minutes, and no rename makes it write the file first, as ext4 else does for
// programs that forget to.
func power(t *testing.T, image string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,commit=300,noauto_da_alloc", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this machine does not let tests mount an image: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil { // not detached: the loop device goes with it
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// leavingOut is Save as somebody writes it who knows better.
func leavingOut(file, directory bool) func(*Store, election.State) error {
	return func(s *Store, state election.State) error {
		data, err := election.EncodeState(state)
		if err != nil {
			return err
		}
		f, err := os.CreateTemp(s.dir, temporaryPrefix)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil && !file {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close(), os.Rename(f.Name(), filepath.Join(s.dir, slotNames[state.Seq%2])))
		if err == nil && !directory {
			err = syncDir(s.dir)
		}
		return err
	}
}

// What a program writes that never calls fsync, with and without WriteThrough. The
// file of a directory made later is to survive, too, and one that grows.
func TestWriteThrough(t *testing.T) {
	for _, through := range []bool{true, false} {
		privately(t)
		image := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mkfs.ext4", "-q", image, "16M").CombinedOutput(); err != nil {
			t.Skipf("mkfs.ext4: %v: %s", err, out)
		}
		dir := power(t, image)
		if err := Flush(dir); err != nil {
			t.Fatal(err)
		}
		if through {
			if err := errors.Join(WriteThrough(dir, filepath.Join(dir, "none")), WriteThrough(dir)); err != nil {
				t.Fatal(err)
			}
		}
		files := []string{"kubelet.conf", "manifests/etcd.yaml"}
		if err := os.Mkdir(filepath.Join(dir, "manifests"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("whole"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(image)
		lost := filepath.Join(t.TempDir(), "disk")
		if err = errors.Join(err, os.WriteFile(lost, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		after := power(t, lost)
		for _, name := range files {
			text, err := os.ReadFile(filepath.Join(after, name))
			if kept := err == nil && string(text) == "whole"; kept != through {
				t.Errorf("written through %v: after the power loss %s holds %q (%v)", through, name, text, err)
			}
		}
	}
}

func TestWriteThroughWhereItIsUnknown(t *testing.T) {
	if err := WriteThrough(mount(t, "ramfs", "")); err != nil {
		t.Error(err)
	}
}
