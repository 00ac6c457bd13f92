#!/bin/bash
# Installs the Debian packages that a make target lacks, and says which and why.
# It looks for the commands themselves, so a machine that has them is not touched.
#
#   test/need.sh build|test|e2e|dist
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin

# What to look for (a command, or a file when it begins with /), the package that
# has it, and what it is for.
build='
gcc                       gcc                    links the agent against dqlite
mmdebstrap                mmdebstrap             unpacks the static libraries of Debian 13
/usr/share/keyrings/debian-archive-trixie-stable.gpg debian-archive-keyring verifies them'
test="$build
/usr/include/stdlib.h     libc6-dev              the race detector is linked with the C library
ip                        iproute2               tests make network namespaces
bird                      bird2                  tests let a real router take our routes
/usr/lib/frr/bgpd         frr                    and a router of another make
nft                       nftables               tests let packets through a real firewall
openssl                   openssl                tests compare certificates with another implementation
curl                      curl                   tests run the fetch script with it
wget                      wget                   and with it
systemd-analyze           systemd                tests verify the units
cloud-init                cloud-init             tests check user-data against its schema, and run it
shellcheck                shellcheck             tests check user-data that is a script
zsh                       zsh                    tests read the completion for it
fish                      fish                   and let it complete
mandoc                    mandoc                 tests check the manual page
xorriso                   xorriso                tests write a NoCloud disk
unshare                   util-linux             tests run in namespaces of their own"
e2e="$build
ip                        iproute2               servers hang on network namespaces
bird                      bird2                  the top-of-rack routers
systemd-nspawn            systemd-container      the servers
mkfs.ext4                 e2fsprogs              their disks
mount                     mount                  their disks
unshare                   util-linux             their namespaces"

case $(uname -m) in
aarch64) cross=x86-64 compiler=x86_64-linux-gnu-gcc ;;
*) cross=aarch64 compiler=aarch64-linux-gnu-gcc ;;
esac
dist="$build
$compiler gcc-$cross-linux-gnu links the agent for the other architecture
git                       git                    the release names its commit"

case ${1:-} in
build | test | e2e | dist) table=${!1} ;;
*) echo "usage: test/need.sh build|test|e2e|dist" >&2; exit 64 ;;
esac

packages=()
while read -r what package why; do
	[ -n "$what" ] || continue
	case $what in
	/*) [ ! -e "$what" ] || continue ;;
	*) ! command -v "$what" >/dev/null || continue ;;
	esac
	echo "make: $package is missing ($why); installing it" >&2
	packages+=("$package")
done <<<"$table"
[ ${#packages[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "make: there is no apt-get here; install what provides: ${packages[*]}" >&2
	exit 69
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "make: installing packages needs root, and there is no sudo; as root: apt-get install ${packages[*]}" >&2
		exit 77
	fi
	as_root=(sudo)
fi
has() { case " ${packages[*]} " in *" $1 "*) return 0 ;; esac; return 1; }
if has cloud-init && [ ! -e /etc/cloud/cloud-init.disabled ]; then
	echo "make: writing /etc/cloud/cloud-init.disabled, so that cloud-init never acts on this machine" >&2
	"${as_root[@]}" mkdir -p /etc/cloud
	"${as_root[@]}" touch /etc/cloud/cloud-init.disabled
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
	"${as_root[@]}" apt-get update -qq &&
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}"
}
if ! install >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "make: apt-get install ${packages[*]} failed; its last lines stand above" >&2
	exit 69
fi
for service in bird2:bird.service frr:frr.service; do
	if has "${service%:*}" && [ -d /run/systemd/system ]; then
		echo "make: stopping and disabling ${service#*:}, which the package started; tests start their own" >&2
		"${as_root[@]}" systemctl disable --quiet --now "${service#*:}"
	fi
done
