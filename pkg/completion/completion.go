// Package completion writes what makes bash, zsh and fish complete a program that has
// commands with flags.
//
// Floor 0.
package completion

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// Command is a command as shells complete it.
type Command struct {
	Name, Summary string
	Words         []string // that its argument may be; none: a file
	Options       []Option
}

// Option is a flag of a command.
type Option struct {
	Flag   string // with its dashes
	Usage  string
	Value  string   // what the value is; empty for a flag without one
	Values []string // what it may be; none: anything, or a file
}

// Options are those of a set, in the order of their names. values says what a flag may
// be; nil: anything.
func Options(set *flag.FlagSet, values func(*flag.Flag) []string) []Option {
	var out []Option
	set.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		out = append(out, Option{Dashes(f.Name), usage, value, values(f)})
	})
	return out
}

// Dashes writes a flag as the help texts do.
func Dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

var shells = map[string]func(w io.Writer, program string, all []Command){"bash": bash, "zsh": zsh, "fish": fish}

// Shells are those that are known.
var Shells = []string{"bash", "zsh", "fish"}

// Write writes the script of a shell. An error says that it is not known.
func Write(w io.Writer, shell, program string, all []Command) error {
	write := shells[shell]
	if write == nil {
		return fmt.Errorf("which shell? expected one of %s, got %q", strings.Join(Shells, ", "), shell)
	}
	write(w, program, all)
	return nil
}

func bash(w io.Writer, program string, all []Command) {
	var names []string
	var values, flags strings.Builder
	for _, c := range all {
		names = append(names, c.Name)
		words := c.Words
		for _, o := range c.Options {
			words = append(words, o.Flag)
			switch {
			case len(o.Values) > 0:
				fmt.Fprintf(&values, "\t'%s %s') COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", c.Name, o.Flag, strings.Join(o.Values, " "))
			case o.Value == "directory":
				fmt.Fprintf(&values, "\t'%s %s') COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n", c.Name, o.Flag)
			case o.Value != "":
				fmt.Fprintf(&values, "\t'%s %s') COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", c.Name, o.Flag)
			}
		}
		fmt.Fprintf(&flags, "\t%s) words=' %s' ;;\n", c.Name, strings.Join(append(words, "--help"), " "))
	}
	fmt.Fprintf(w, `# bash completion of %[1]s; made by %[1]s completion bash
_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W '%[2]s help' -- "$cur"))
		return
	fi
	case "${COMP_WORDS[1]} $prev" in
%[3]s	esac
	case "${COMP_WORDS[1]}" in
%[4]s	esac
	case "$cur" in
	-*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
	*) COMPREPLY=($(compgen -W "${words%%%% -*}" -- "$cur") $(compgen -f -- "$cur")) ;;
	esac
}
complete -o filenames -F _%[1]s %[1]s
`, program, strings.Join(names, " "), values.String(), flags.String())
}

func zsh(w io.Writer, program string, all []Command) {
	// What zsh itself reads in a specification.
	quote := strings.NewReplacer("'", "'\\''", "[", "\\[", "]", "\\]", ":", "\\:").Replace
	fmt.Fprintf(w, "#compdef %[1]s\n# made by %[1]s completion zsh\n_%[1]s() {\n\tlocal -a commands=(\n", program)
	for _, c := range all {
		fmt.Fprintf(w, "\t\t'%s:%s'\n", c.Name, quote(c.Summary))
	}
	fmt.Fprint(w, "\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tlocal command=$words[2]\n\tshift words\n\t(( CURRENT-- ))\n\tcase $command in\n")
	for _, c := range all {
		fmt.Fprintf(w, "\t%s)\n\t\t_arguments \\\n", c.Name)
		for _, o := range c.Options {
			action := ""
			switch {
			case len(o.Values) > 0:
				action = fmt.Sprintf(":%s:(%s)", o.Value, strings.Join(o.Values, " "))
			case o.Value == "directory":
				action = ":directory:_directories"
			case o.Value != "":
				action = ":" + o.Value + ":_files"
			}
			fmt.Fprintf(w, "\t\t\t'%s[%s]%s' \\\n", o.Flag, quote(o.Usage), action)
		}
		rest := "_files"
		if len(c.Words) > 0 {
			rest = "(" + strings.Join(c.Words, " ") + ")"
		}
		fmt.Fprintf(w, "\t\t\t'--help[show help]' '*:argument:%s' ;;\n", rest)
	}
	fmt.Fprintf(w, "\tesac\n}\nif [ \"$funcstack[1]\" = _%[1]s ]; then _%[1]s \"$@\"; else compdef _%[1]s %[1]s; fi\n", program)
}

func fish(w io.Writer, program string, all []Command) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	fmt.Fprintf(w, "# made by %[1]s completion fish\ncomplete -c %[1]s -e\n", program)
	for _, c := range all {
		fmt.Fprintf(w, "complete -c %s -f -n __fish_use_subcommand -a %s -d '%s'\n", program, c.Name, quote(c.Summary))
	}
	for _, c := range all {
		on := fmt.Sprintf("complete -c %s -n '__fish_seen_subcommand_from %s'", program, c.Name)
		if len(c.Words) > 0 {
			fmt.Fprintf(w, "%s -f -a '%s'\n", on, strings.Join(c.Words, " "))
		}
		for _, o := range c.Options {
			name, takes := "-l "+strings.TrimLeft(o.Flag, "-"), ""
			if !strings.HasPrefix(o.Flag, "--") {
				name = "-s " + strings.TrimLeft(o.Flag, "-")
			}
			switch {
			case len(o.Values) > 0:
				takes = fmt.Sprintf(" -x -a '%s'", strings.Join(o.Values, " "))
			case o.Value != "":
				takes = " -r"
			}
			fmt.Fprintf(w, "%s %s%s -d '%s'\n", on, name, takes, quote(o.Usage))
		}
	}
}
