package cluster

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// MaxBytes is the largest cluster file that is read: a thousand servers in
// spec.static take a fifth of it, and user-data of its size is refused by every
// platform but those that carry files.
const MaxBytes = 1 << 20

// maxDepth is how deep mappings and lists may be nested: configuration of
// containerd, the deepest that is passed on, has eight levels.
const maxDepth = 64

// maxStrange bounds how often strange characters are reported: a file that is no
// text has nothing else in it.
const maxStrange = 10

// bom is the byte order mark in UTF-8.
const bom = "\xef\xbb\xbf"

// readable says that data is text which YAML can be looked for in, and reports
// what is strange in it. The byte order mark is off already.
func (d *decoder) readable(data []byte) bool {
	switch {
	case len(data) > MaxBytes:
		d.add(SeverityError, place{1, 1}, "", "is it a cluster file? `userdata init NAME` writes one of 3 KB", fmt.Sprintf("the file has more than %d bytes", MaxBytes))
		return false
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}) || bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		d.add(SeverityError, place{1, 1}, "", "save it as UTF-8", "the file is UTF-16")
		return false
	}
	for _, head := range []string{"#cloud-config", "#!/bin/sh", "MIME-Version:"} {
		if bytes.HasPrefix(data, []byte(head)) {
			d.add(SeverityError, place{1, 1}, "", "`userdata show` prints the cluster file", "this is user-data, not the cluster file in it")
			return false
		}
	}
	strange, line, start := 0, 1, 0
	for i := 0; i < len(data) && strange < maxStrange; {
		r, size := utf8.DecodeRune(data[i:])
		if r == '\n' {
			line, start = line+1, i+1
		} else if message, hint := oddity(r, size, data[i+size:]); message != "" {
			strange++
			d.add(SeverityError, place{line, utf8.RuneCount(data[start:i]) + 1}, "", hint, message)
		}
		i += size
	}
	if at := bytes.Index(data, []byte("\r\n")); at >= 0 && strange == 0 {
		d.add(SeverityWarning, place{bytes.Count(data[:at], []byte("\n")) + 1, utf8.RuneCount(data[bytes.LastIndexByte(data[:at], '\n')+1:at]) + 1}, "",
			"save it with the line ends of Unix", "lines end as on Windows, with a carriage return, which other programs may take for a part of the last word")
	}
	return strange == 0
}

// oddity says what is wrong with a character, "" when it may stand in a cluster
// file. What looks like a blank and is none breaks a line in ways that nobody
// sees; so does what only YAML takes for the end of a line.
func oddity(r rune, size int, rest []byte) (message, hint string) {
	switch {
	case r == utf8.RuneError && size == 1:
		return "a byte that is not UTF-8", "save the file as UTF-8"
	case r == '\r' && !bytes.HasPrefix(rest, []byte("\n")):
		return "a carriage return within a line", "save the file with the line ends of Unix"
	case r == '\u00a0' || r == '\u0085' || r >= '\u2000' && r <= '\u200f' || r == '\u2028' || r == '\u2029' || r == '\u202f' || r == '\u3000' || r == '\ufeff':
		return fmt.Sprintf("an invisible character (U+%04X), perhaps copied from a web page", r), "type the blank anew"
	case r < ' ' && r != '\t' && r != '\r' || r >= 0x7f && r <= 0x9f || r == 0xfffe || r == 0xffff:
		return fmt.Sprintf("a control character (U+%04X)", r), "remove it; is this a text file?"
	}
	return "", ""
}

// shallow says that nothing in the document is nested too deep to be meant.
func (d *decoder) shallow(n *yaml.Node, depth int) bool {
	if depth > maxDepth {
		d.add(SeverityError, place{n.Line, n.Column}, "", "is a bracket or an indentation wrong?", fmt.Sprintf("nested more than %d levels deep", maxDepth))
		return false
	}
	for _, c := range n.Content {
		if !d.shallow(c, depth+1) {
			return false // one place is enough
		}
	}
	return true
}

// syntax reports that the file is no YAML.
func (d *decoder) syntax(err error, data []byte) {
	line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		_, _ = fmt.Sscan(m[1], &line)
		text = strings.TrimPrefix(err.Error(), m[0])
	}
	if strings.HasPrefix(text, "did not find expected") {
		line++ // yaml.v3 counts the lines of these errors from 0
	}
	hint := "look at the indentation, quotes and colons of this line and the one above"
	lines := strings.Split(string(data), "\n")
	for _, i := range []int{line - 1, line, line - 2} { // yaml.v3 is one off now and then
		if i < 0 || i >= len(lines) {
			continue
		}
		blank := lines[i][:len(lines[i])-len(strings.TrimLeft(lines[i], " \t"))]
		if at := strings.IndexByte(blank, '\t'); at >= 0 {
			d.add(SeverityError, place{i + 1, at + 1}, "", "indent with blanks, two for each level", "a tab in the indentation, which YAML does not take")
			return
		}
	}
	if strings.Contains(text, "exceeded max depth") {
		text = fmt.Sprintf("nested more than %d levels deep", maxDepth)
	}
	d.add(SeverityError, place{line, 1}, "", hint, "this is not YAML: "+text)
}
