#!/bin/bash
# Builds what a release holds: the agent for the servers' architectures, the
# generator for people's machines, and their checksums in one list, from which
# `userdata lock` pins the agent.
#
#   images/dist.sh DIR            build into DIR
#   images/dist.sh --check DIR    build the same commit again, in another directory
#                                 and from an empty cache, and compare: 10 minutes
#
# The bytes depend on the commit, on the version of Go and on the sysroot, and on
# nothing else of this machine. It needs root for a new sysroot.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "dist: $*" >&2; }

# vcs says whether go build may stamp the commit: git refuses a tree of another owner.
vcs() { git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false; }

# An agent holds no path of this machine: neither the build id, which is a hash of
# the C flags, nor the linker's own.
agent() {
	local arch=$1 out=$2 sysroot
	sysroot=$MUSTER_CACHE/$(basename "$(images/sysroot.sh --cache "$arch")")
	images/sysroot.sh "$arch" "$sysroot"
	(
		eval "$(images/sysroot.sh --env "$sysroot" "$arch")"
		flags=${GO_LDFLAGS/-static/-static -Wl,--build-id=none}
		# See the Makefile for the tags.
		go build -trimpath -buildvcs="$(vcs)" -tags "$GO_TAGS grpcnotrace nethttpomithttp2" -ldflags "-buildid= $flags" -o "$out/bootstrap_linux_$arch" ./cmd/bootstrap 2>&1 |
			{ grep -vE '^# .*cmd/bootstrap$|/ld: .*: in function |warning: Using .* in statically linked' || true; } >&2
	)
}

generator() {
	local os=$1 arch=$2 out=$3 end=
	[ "$os" != windows ] || end=.exe
	env CGO_ENABLED=0 GOFLAGS= GOOS="$os" GOARCH="$arch" \
		go build -trimpath -buildvcs="$(vcs)" -ldflags '-s -w -buildid=' -o "$out/userdata_${os}_$arch$end" ./cmd/userdata
}

build() {
	local out=$1 arch
	rm -rf "$out"
	mkdir -p "$out"
	for arch in amd64 arm64; do
		say "the agent for $arch"
		agent "$arch" "$out"
	done
	say "the generator for Linux, macOS and Windows"
	for arch in amd64 arm64; do
		generator linux "$arch" "$out"
		generator darwin "$arch" "$out"
	done
	generator windows amd64 "$out"
	(cd "$out" && sha256sum -- * >.sums && mv .sums SHA256SUMS)
}

# check builds the commit that is checked out from a clone of it.
check() {
	local dir=$1
	if [ -n "$(git status --porcelain)" ]; then
		say "the tree has changes that are not committed, so there is no second copy of it to build; commit them first"
		exit 65
	fi
	tmp=$(mktemp -d)
	# The module cache is read-only and shared; the build cache is not.
	trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
	git clone --quiet "$PWD" "$tmp/somewhere-else"
	say "again, in $tmp/somewhere-else and from an empty cache"
	GOCACHE=$tmp/cache "$tmp/somewhere-else/images/dist.sh" "$tmp/again"
	if ! diff "$dir/SHA256SUMS" "$tmp/again/SHA256SUMS" >&2; then
		say "the two builds differ, as shown above; < is $dir"
		exit 1
	fi
	say "both builds have the same bytes"
}

export MUSTER_CACHE=${MUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muster}
case "${1:-}" in
--check)
	[ $# = 2 ] || { say "usage: images/dist.sh --check DIR"; exit 64; }
	out=$(realpath -m "$2")
	build "$out"
	check "$out"
	;;
-* | "")
	sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 64
	;;
*) out=$(realpath -m "$1") && build "$out" ;;
esac
cat "$out/SHA256SUMS"
