#!/bin/sh
# muster-fetch: puts the agent in place, and nothing but the agent that fetch.env
# pins by sha256. Needs sha256sum, and curl or wget; POSIX sh.
#
# Exit status: 0 the agent is in place; 1 no mirror had it, try again (systemd
# does, with what was downloaded so far); 78 trying again cannot help.
set -eu
set -f # URLs may hold ? and *
umask 022

env=/etc/muster/fetch.env
dst=/usr/local/bin/bootstrap
# Beside dst, so that mv is a rename; it survives a reboot and is then resumed.
part=/usr/local/bin/.bootstrap.part

say() { echo "muster-fetch: $*" >&2; }
sum() { sha256sum <"$1" | cut -d' ' -f1; }
size() { if [ -f "$1" ]; then wc -c <"$1"; else echo 0; fi; }
flush() { sync "$@" 2>/dev/null || sync; } # an old sync takes no files

MUSTER_URLS='' MUSTER_SHA256_amd64='' MUSTER_SHA256_arm64=''
if ! [ -r "$env" ]; then
	say "$env is missing; user-data or the image should have laid it down"
	exit 78
fi
. "$env"

case $(uname -m) in
x86_64 | amd64) arch=amd64 want=$MUSTER_SHA256_amd64 ;;
aarch64 | arm64) arch=arm64 want=$MUSTER_SHA256_arm64 ;;
*)
	say "this machine is $(uname -m); the agent exists for x86_64 and aarch64"
	exit 78
	;;
esac

if [ -x "$dst" ]; then
	if [ -z "$want" ]; then
		say "accepting the agent of the image, $dst; the cluster file has no agent.sha256.$arch to compare it with"
		exit 0
	fi
	have=$(sum "$dst")
	[ "$have" = "$want" ] && exit 0
	say "$dst has sha256 $have, agent.sha256.$arch is $want"
fi
if [ -z "$want" ]; then
	say "no agent in the image at $dst, and no agent.sha256.$arch in the cluster file to fetch one by; bake the agent there or add agent.urls and agent.sha256"
	exit 78
fi
if [ -z "$MUSTER_URLS" ]; then
	say "no agent with that sha256 in the image, and no agent.urls in the cluster file to fetch it from; bake the right one or add agent.urls"
	exit 78
fi

# get URL: begins or resumes $part; what the tool says is in $said.
get() {
	if command -v curl >/dev/null; then
		# Slow lines are fine, dead ones are not: under 1 kB/s for 30 s ends it.
		said=$(curl -fsSL -C - --connect-timeout 10 --speed-limit 1000 --speed-time 30 -o "$part" "$1" 2>&1)
	elif command -v wget >/dev/null; then
		said=$(wget -nv -c -t 1 -T 30 -O "$part" "$1" 2>&1)
	else
		said="neither curl nor wget is installed"
		return 1
	fi
}

# verify: installs $part if it is the agent, else says how it differs.
verify() {
	have=$(sum "$part")
	if [ "$have" != "$want" ]; then
		said="$(size "$part") bytes with sha256 $have, expected $want"
		return 1
	fi
	if ! { chmod 0755 "$part" && flush "$part" && mv -f "$part" "$dst" && flush "${dst%/*}"; }; then
		say "cannot install $dst; is the disk full or read-only?"
		exit 1
	fi
	say "installed $dst from $1"
	exit 0
}

for url in $MUSTER_URLS; do
	url=$(echo "$url" | sed "s/ARCH/$arch/g")
	before=$(size "$part")
	if [ "$before" -gt 0 ]; then
		# All of it may be there: power was lost before the rename.
		[ "$(sum "$part")" = "$want" ] && verify "an earlier download"
		if get "$url"; then
			verify "$url" || true
		elif [ "$(size "$part")" -gt "$before" ]; then
			say "$url: stopped at $(size "$part") bytes: $said"
			continue # the next attempt goes on from there
		fi
		# This mirror cannot resume, or what was there belongs to something else.
		say "$url: cannot resume at $before bytes ($said); starting over"
		rm -f "$part"
	fi
	if get "$url"; then
		verify "$url" || rm -f "$part"
	fi
	say "$url: $said"
done
say "no mirror had the agent with sha256 $want; trying again"
exit 1
