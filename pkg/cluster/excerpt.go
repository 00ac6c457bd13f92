package cluster

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Excerpt shows the line of a problem with a mark under what is wrong, as
// compilers do; "" where the line is empty. Secrets in it are covered with
// asterisks: problems are pasted into chats.
func (p Problem) Excerpt() string { return p.excerpt }

// excerpts moves problems into the file and gives each the end of what is wrong
// and its line: yaml.v3 counts lines of an error past the end of the file. The
// problems are in order.
func excerpts(problems []Problem, data []byte) {
	lines := bytes.Split(bytes.TrimPrefix(data, []byte(bom)), []byte("\n"))
	var line, shown []rune
	for i, last := 0, 0; i < len(problems); i++ {
		p := &problems[i]
		p.Line = min(max(p.Line, 1), len(lines))
		if p.Line != last {
			text := strings.TrimSuffix(string(lines[p.Line-1]), "\r")
			before := ""
			if p.Line > 1 {
				before = string(lines[p.Line-2])
			}
			line, shown, last = []rune(text), []rune(strings.TrimRight(cover(before, text), " \t")), p.Line
		}
		p.Col = min(max(p.Col, 1), len(line)+1)
		p.EndCol = extent(line, p.Col)
		if len(shown) > 0 {
			p.excerpt = excerpt(shown, p.Line, p.Col, p.EndCol)
		}
	}
}

// excerpt draws a line, or a part of it, and the mark below.
func excerpt(line []rune, number, col, endCol int) string {
	from, to := col-1, endCol-1
	begin, end := window(len(line), from)
	to = min(to, max(end, from+1))
	var text, mark strings.Builder
	if begin > 0 {
		text.WriteString("...")
		mark.WriteString("   ")
	}
	for i := begin; i < max(end, to); i++ {
		r := ' '
		if i < end {
			r = line[i]
			if r != '\t' && !printable(r) {
				r = '.'
			}
			text.WriteRune(r)
		}
		switch {
		case i == from:
			mark.WriteByte('^')
		case i > from && i < to:
			mark.WriteByte('~')
		case i < from && r == '\t':
			mark.WriteByte('\t') // as wide as the one above, whatever that is
		case i < from:
			mark.WriteByte(' ')
		}
	}
	if end < len(line) {
		text.WriteString("...")
	}
	return fmt.Sprintf("%5d | %s\n%5s | %s\n", number, text.String(), "", mark.String())
}

// printable says that a terminal shows r and does nothing else on its account.
func printable(r rune) bool { return unicode.IsGraphic(r) && r != utf8.RuneError }

// width is how much of a line is shown: two long lines make one unreadable.
const width = 120

// window chooses which characters of a long line are shown: the place, and what is
// around it.
func window(length, from int) (begin, end int) {
	if length <= width {
		return 0, length
	}
	begin = min(max(0, from-width/3), length-width)
	return begin, begin + width
}

// secretWord is the key of a secret; in what is passed on to others they are
// recognised by the words that people use.
const secretWord = `(?i)\b(?:\w*secret|md5|\w*password|passwd|\w*token|auth)["']?\s*:\s*`

var (
	secretValue = regexp.MustCompile(secretWord + `(\S.*)$`)
	secretBlock = regexp.MustCompile(secretWord + `[|>]?[-+0-9]*\s*$`) // the secret begins in the next line
	userInfo    = regexp.MustCompile(`://([^/@\s]*:[^/@\s]*)@`)
	visible     = regexp.MustCompile(`\S`)
)

// cover puts asterisks over the secrets of a line, one for each character, so that
// columns stay. before is the line above.
func cover(before, line string) string {
	if secretBlock.MatchString(before) {
		return visible.ReplaceAllString(line, "*")
	}
	for _, secret := range []*regexp.Regexp{secretValue, userInfo} {
		if at := secret.FindStringSubmatchIndex(line); at != nil {
			line = line[:at[2]] + visible.ReplaceAllString(line[at[2]:at[3]], "*") + line[at[3]:]
		}
	}
	return line
}

// extent is where the word at col ends, both in runes from 1: a quoted word with
// its quotes, a list or mapping as far as it is in this line, else up to what
// ends a word of YAML.
func extent(line []rune, col int) int {
	at := col - 1
	if at < 0 || at >= len(line) {
		return col + 1
	}
	switch open := line[at]; open {
	case '"', '\'':
		for i := at + 1; i < len(line); i++ {
			if line[i] == '\\' && open == '"' {
				i++
			} else if line[i] == open {
				return i + 2
			}
		}
	case '[', '{':
		if i := closing(line, at); i > 0 {
			return i + 2
		}
	default:
		for i := at; i < len(line); i++ {
			if endsWord(line, i) {
				return max(i+1, col+1)
			}
		}
	}
	return len(line) + 1
}

// closing finds the bracket that closes the one at a place, 0 when it is in another
// line.
func closing(line []rune, at int) int {
	depth := 0
	for i := at; i < len(line); i++ {
		switch line[i] {
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return 0
}

// endsWord says that a plain word of YAML ends before place i.
func endsWord(line []rune, i int) bool {
	last := i+1 == len(line)
	switch line[i] {
	case ',', ']', '}':
		return true
	case ':':
		return last || line[i+1] == ' '
	case ' ', '\t':
		return true
	}
	return false
}
