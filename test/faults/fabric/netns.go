package fabric

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// In runs f in the network namespace of a path, on a thread that ends with it.
func In(netns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread has left this program's namespace for good.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(netns)
			if err != nil {
				return fmt.Errorf("entering a network namespace: %w", err)
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the network namespace %s: %w", netns, err)
			}
			return f()
		}()
	}()
	return <-done
}

// Plain makes a link of a namespace send whole frames: without this the kernel
// leaves checksums and segmentation to hardware that is not there, and a frame that
// a program forwards would carry neither.
func Plain(netns, link string) error {
	return In(netns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		name, err := unix.NewIfreq(link)
		if err != nil {
			return err
		}
		value := struct{ command, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			rest [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], name.Name())
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("switching checksum offload of %s off: %w", link, errno)
		}
		return nil
	})
}
