package userdata

import (
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	scriptHeader = "#!/bin/sh\n"
	// endOfFile ends every file in a script.
	endOfFile = "END_OF_FILE"
	// What makes a file of the script's text.
	plainly, decoding = "cat", "base64 -d"
)

// script is a POSIX shell script: for images whose cloud-init has no module for
// files, or that run user-data by other means. It may run any number of times.
func (c Contents) script() string {
	var b strings.Builder
	b.WriteString(scriptHeader + c.comment() + `set -eu
umask 022
put() { # MODE PATH COMMAND: what the command makes of the input, whole or not at all
	mode=$1 path=$2 new=${2%/*}/.${2##*/}.new
	shift 2
	mkdir -p "${path%/*}"
	rm -f "$new"
	(umask 077 && "$@" >"$new")
	chmod "$mode" "$new"
	chown 0:0 "$new"
	mv -f "$new" "$path"
}
`)
	for _, f := range c.Files {
		f.writeShell(&b)
	}
	// As manage_etc_hosts does for cloud-config: the node's own name must resolve.
	// DNS is not asked: where it is down, that would take half a minute.
	b.WriteString(`name=$(uname -n)
grep -Eq "[[:space:]]$name([[:space:]]|\$)" /etc/hosts || echo "127.0.1.1 $name" >>/etc/hosts
`)
	fmt.Fprintf(&b, "systemctl daemon-reload\nsystemctl enable %s\nsystemctl start --no-block %s\n",
		strings.Join(c.Enable, " "), c.Enable[len(c.Enable)-1])
	return b.String()
}

// writeShell appends a call of put.
func (f File) writeShell(b *strings.Builder) {
	command, input := plainly, f.Content
	if !isPlain(f.Content) {
		command, input = decoding, base64.StdEncoding.EncodeToString([]byte(f.Content))+"\n"
	}
	fmt.Fprintf(b, "put %04o %s %s <<'%s'\n%s%[4]s\n", f.Mode, f.Path, command, endOfFile, input)
}

// readScript returns what a script of ours writes to path.
func readScript(text, path string) (string, bool, error) {
	var content strings.Builder
	command := "" // of the file at path, while we are in it
	for line := range strings.Lines(text) {
		line, end := strings.CutSuffix(line, "\n")
		switch {
		case command == "":
			if words := strings.SplitN(line, " ", 4); len(words) == 4 && words[0] == "put" && words[2] == path {
				command = strings.TrimSuffix(words[3], " <<'"+endOfFile+"'")
			}
		case line != endOfFile:
			content.WriteString(line)
			if end {
				content.WriteString("\n")
			}
		case command == plainly:
			return content.String(), true, nil
		case command == decoding:
			raw, err := base64.StdEncoding.DecodeString(content.String())
			return string(raw), true, err
		default:
			return "", false, fmt.Errorf("%s is made by %q, expected %s or %s", path, command, plainly, decoding)
		}
	}
	if command != "" {
		return "", false, fmt.Errorf("%s has no end: the script was cut off", path)
	}
	return "", false, nil
}
