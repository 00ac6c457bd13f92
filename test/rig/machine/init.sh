#!/bin/sh
# PID 1 of a test server until it becomes systemd. systemd-nspawn hands over some
# things read-only that a machine may write to.
mount --make-rshared /
# Version 1 controllers are mounted read-only. A plain remount would change the
# superblock, which is the host's, and is refused; remount,bind is ours.
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
	mount -o remount,bind,rw /sys/fs/cgroup
	for c in /sys/fs/cgroup/*/; do
		mount -o remount,bind,rw,nosuid,nodev,noexec "$c" || echo "rig-init: $c stays read-only"
	done
fi
# The kubelet wants these values and would write them, to the whole host. Give it
# files that hold them.
mkdir -p /run/rig
for kv in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
	f=/run/rig/$(echo "${kv%=*}" | tr / _)
	echo "${kv#*=}" >"$f"
	mount --bind "$f" "/proc/sys/${kv%=*}"
done
# As on systems whose /usr is an image: nobody writes to it from here on.
if [ -e /etc/rig-read-only-usr ]; then
	mount --bind /usr /usr && mount -o remount,bind,ro /usr
fi
exec /lib/systemd/systemd "$@"
