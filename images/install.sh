#!/bin/bash
# Installs what `make build` made: both programs, their manual pages, the
# completions of three shells, and the documentation.
#
#   images/install.sh BIN        from the directory BIN, below $DESTDIR$PREFIX
#
# It builds nothing, so that root needs no Go. PREFIX is /usr/local when it is not
# set; a server's units look for the agent there, or in /opt (bootstrap bake). DESTDIR is for who makes packages.
set -euo pipefail

say() { echo "install: $*" >&2; }

[ $# = 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64; }
bin=$1
to=${DESTDIR:-}${PREFIX:-/usr/local}
for program in userdata bootstrap; do
	[ -x "$bin/$program" ] || { say "$bin/$program is not there; make build makes it"; exit 69; }
done
cd "$(dirname "$0")/.." && bin=$(cd "$OLDPWD" && realpath "$bin")

# roff writes text so that man shows it as it is.
roff() { sed -e 's/\\/\\e/g; s/-/\\-/g; s/`/\\(ga/g; s/\^/\\(ha/g; s/~/\\(ti/g; s/"/\\(dq/g' -e "s/'/\\\\(aq/g" -e 's/^\./\\\&./'; }

# literal is what a command says of itself, line by line.
literal() { printf '.nf\n'; "$@" --help | roff; printf '.fi\n'; }

# bootstrap_manual is bootstrap(8). The agent does not hold it: servers need none.
bootstrap_manual() {
	printf '.TH BOOTSTRAP 8 2026-11-26 muster "muster manual"\n.SH NAME\nbootstrap \\- turn servers into members of their Kubernetes cluster\n.SH DESCRIPTION\n'
	literal "$bin/bootstrap"
	local command
	for command in $("$bin/bootstrap" --help | sed -n 's/^  \([a-z]\{1,\}\)  *[a-z].*/\1/p' | grep -vx bootstrap); do
		printf '.SH bootstrap %s\n' "$command"
		literal "$bin/bootstrap" "$command"
	done
	printf '.SH SEE ALSO\n.BR userdata (1)\n'
}

# lay writes standard input to a file.
lay() { mkdir -p "$to/$(dirname "$1")" && cat >"$to/$1" && chmod 644 "$to/$1"; }

install -D -m 755 "$bin/userdata" "$to/bin/userdata"
install -D -m 755 "$bin/bootstrap" "$to/bin/bootstrap"
"$bin/userdata" man | lay share/man/man1/userdata.1
bootstrap_manual | lay share/man/man8/bootstrap.8
for program in userdata bootstrap; do
	"$bin/$program" completion bash | lay "share/bash-completion/completions/$program"
	"$bin/$program" completion zsh | lay "share/zsh/site-functions/_$program"
	"$bin/$program" completion fish | lay "share/fish/vendor_completions.d/$program.fish"
done
for page in README.md LICENSE docs/*.md docs/cookbook/*.md docs/*.json; do
	[ ! -e "$page" ] || lay "share/doc/muster/$page" <"$page"
done
say "userdata and bootstrap are in $to/bin"
