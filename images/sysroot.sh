#!/bin/sh
# Makes the sysroot that bootstrap is linked against: the headers and static
# libraries of Debian 13 for dqlite and what it needs. The dqlite of Debian 12
# must not be used: its raft commits entries of older terms by counting replicas.
#
#   images/sysroot.sh ARCH DIR         make DIR, unless it is there (amd64, arm64)
#   images/sysroot.sh --cache ARCH     print the cache directory for this recipe
#   images/sysroot.sh --env DIR ARCH   print what `go build` and `go test` need,
#                                      as shell assignments:
#
#     S=$(images/sysroot.sh --cache amd64) && images/sysroot.sh amd64 "$S"
#     eval "$(images/sysroot.sh --env "$S" amd64)"
#     go build -tags "$GO_TAGS" -ldflags "$GO_LDFLAGS" ./cmd/bootstrap
#     go test ./pkg/directory/...        # GOFLAGS carries the tags
#
# It needs root (packages are unpacked with their owners), mmdebstrap, and the
# Debian archive keyring, which verifies every package. Talk goes to stderr.
set -eu

suite=trixie
dqlite=1.18.1-1
mirror=${MUSTER_DEBIAN_MIRROR:-http://deb.debian.org/debian}
packages="libdqlite-dev=$dqlite,libuv1-dev,libsqlite3-dev,liblz4-dev,libxxhash-dev,libc6-dev,linux-libc-dev,libcrypt-dev"

say() { echo "sysroot: $*" >&2; }
die() { say "$*"; exit 1; }

# architecture ARCH sets triplet (Debian's library directory) and cc.
architecture() {
	case $1 in
	amd64) triplet=x86_64-linux-gnu ;;
	arm64) triplet=aarch64-linux-gnu ;;
	*) echo "sysroot: architecture \"$1\" is not known; bootstrap is built for amd64 and arm64" >&2; exit 64 ;;
	esac
	cc=gcc
	[ "$(uname -m)-linux-gnu" = "$triplet" ] || cc=$triplet-gcc
}

# keyring prints the file that verifies the archive. The package of an older
# Debian or Ubuntu may not know trixie's keys; then apt's message is obscure.
keyring() {
	dir=/usr/share/keyrings
	for end in gpg pgp; do
		if [ -e "$dir/debian-archive-$suite-stable.$end" ] && [ -e "$dir/debian-archive-keyring.$end" ]; then
			echo "$dir/debian-archive-keyring.$end"
			return
		fi
	done
	die "$dir holds no key of Debian $suite; apt-get install debian-archive-keyring, at least version 2023.3+deb12u2"
}

cache() {
	architecture "$1"
	key=$(sha256sum "$0" | cut -c1-12)
	echo "${XDG_CACHE_HOME:-$HOME/.cache}/muster/sysroot-$1-$key"
}

environment() {
	architecture "$2"
	case $1 in /*) ;; *) die "$1 is not an absolute path; compilers run in other directories" ;; esac
	libs=$1/usr/lib/$triplet
	[ -e "$libs/libdqlite.a" ] || die "$libs/libdqlite.a is missing; make the sysroot first: images/sysroot.sh $2 $1"
	tags="netgo osusergo libsqlite3"
	cat <<END
export GOOS=linux GOARCH=$2 CGO_ENABLED=1 CC=$cc
export CGO_CFLAGS="--sysroot=$1 -O2"
export CGO_LDFLAGS="--sysroot=$1 -B$libs -L$libs -ldqlite -luv -llz4 -lxxhash -lsqlite3 -lm -ldl -lpthread"
export CGO_LDFLAGS_ALLOW="-B.*|--sysroot=.*"
export GO_TAGS="$tags"
export GO_LDFLAGS='-s -w -linkmode external -extldflags "-static --sysroot=$1"'
export GOFLAGS='-tags=$(echo "$tags" | tr ' ' ,) "-ldflags=-linkmode=external -extldflags=-static"'
END
}

make_sysroot() {
	architecture "$1"
	if [ -e "$2/usr/lib/$triplet/libdqlite.a" ]; then
		return
	fi
	[ ! -e "$2" ] || die "$2 exists but holds no usr/lib/$triplet/libdqlite.a; remove it and run this again"
	[ "$(id -u)" = 0 ] || die "root is needed to unpack Debian packages; run it with sudo"
	command -v mmdebstrap >/dev/null || die "mmdebstrap is missing; apt-get install mmdebstrap"
	keys=$(keyring)
	mkdir -p "$(dirname "$2")"
	tmp=$2.tmp.$$
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' INT TERM
	say "unpacking dqlite $dqlite and its libraries of Debian $suite ($1) from $mirror into $2"
	mmdebstrap --quiet --mode=root --variant=extract --format=directory --architectures="$1" \
		--keyring="$keys" --include="$packages" "$suite" "$tmp" "$mirror" >&2 ||
		die "mmdebstrap failed; if it found no libdqlite-dev=$dqlite, Debian has a newer one: try that, run the tests of pkg/directory, and change the version in images/sysroot.sh"
	[ -e "$tmp/usr/lib/$triplet/libdqlite.a" ] || die "libdqlite-dev $dqlite holds no usr/lib/$triplet/libdqlite.a"
	# Two builds at once make two directories; the first to finish stays.
	mv -T "$tmp" "$2" 2>/dev/null || [ -e "$2/usr/lib/$triplet/libdqlite.a" ] || die "cannot rename $tmp to $2"
	say "done: $(du -sh "$2" | cut -f1) in $2"
}

case "${1:-}" in
--env)
	[ $# = 3 ] || die "usage: images/sysroot.sh --env DIR ARCH"
	environment "$2" "$3"
	;;
--cache)
	[ $# = 2 ] || die "usage: images/sysroot.sh --cache ARCH"
	cache "$2"
	;;
-* | "")
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 64
	;;
*)
	[ $# = 2 ] || die "usage: images/sysroot.sh ARCH DIR"
	make_sysroot "$1" "$2"
	;;
esac
