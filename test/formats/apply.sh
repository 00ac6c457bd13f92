# Lets cloud-init act on the user-data that comes in, in a root of its own: this
# machine's, under a layer that takes every change. Prints the layer as a tar.
#
#   unshare --mount --uts sh apply.sh DIR [again | scrub PROGRAM] < user-data > layer.tar
#
# With scrub PROGRAM takes the secret out of root, which is its argument in the
# variable SCRUB, and cloud-init runs as at the next boot.
#
# The modules are those that the plainest images have; the time in which they run
# is not that of a boot, and systemd does not run here.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir layer work root
mount -t overlay -o lowerdir=/,upperdir=layer,workdir=work overlay root
mount --rbind /proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/run
mount -t tmpfs tmpfs root/tmp
hostname cp1
echo "127.0.0.1 localhost" >root/etc/hosts
seed=root/var/lib/cloud/seed/nocloud
mkdir -p $seed
cat >$seed/user-data
printf 'instance-id: i-1\nlocal-hostname: cp1\ndsmode: local\n' >$seed/meta-data
cat >root/etc/cloud/cloud.cfg <<'CFG'
datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: [update_etc_hosts, write_files, runcmd, scripts_user]
system_info: {distro: debian, paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}}
CFG
export SYSTEMD_OFFLINE=1 # enable writes links, start does nothing
chroot root cloud-init init --local >&2
if [ "${2-}" = again ]; then
	chroot root sh /var/lib/cloud/instance/scripts/part-001 >&2
fi
if [ "${2-}" = scrub ]; then
	SCRUB=$PWD/root "$3" >&2
	rm -r root/run/cloud-init
	chroot root cloud-init init --local >&2
fi
cat root/var/log/cloud-init.log >&2
if [ "${2-}" = scrub ]; then
	mkdir -p layer/run
	cp -a root/run/cloud-init layer/run/
fi
umount root/tmp root/run
tar -C layer -c .
