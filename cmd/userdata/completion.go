package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/mustermetal/muster/pkg/layout"
	"github.com/mustermetal/muster/pkg/member"
	"github.com/mustermetal/muster/pkg/userdata"
)

// completionCommand is a function because it lists all commands, itself among them.
func completionCommand() command {
	return command{
		name: "completion", args: "bash|zsh|fish",
		summary: "print what makes a shell complete this command line",
		help: `Prints a script for bash, zsh or fish that completes commands, flags and their values.

Examples:
  source <(userdata completion bash)                                   # this shell
  userdata completion bash > /etc/bash_completion.d/userdata           # every shell
  userdata completion zsh > "${fpath[1]}/_userdata"
  userdata completion fish > ~/.config/fish/completions/userdata.fish
`,
		flags: func(*flag.FlagSet) func(context.Context, streams, []string) error {
			return func(_ context.Context, s streams, names []string) error {
				write := map[string]func(io.Writer, []completed){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}[strings.Join(names, " ")]
				if write == nil {
					return exitError{exitUsage, fmt.Errorf("which shell? expected one of bash, zsh, fish, got %q", strings.Join(names, " "))}
				}
				write(s.out, completions())
				return nil
			}
		},
	}
}

// completed is a command as shells complete it.
type completed struct {
	command
	options []option
	words   []string // that its argument may be; none: a file
}

// option is a flag as shells complete it.
type option struct {
	flag   string // with its dashes
	usage  string
	value  string   // what the value is; empty for a flag without one
	values []string // what it may be; none: anything, or a file
}

// flagValues are what flags may be; -o is the default or json.
func flagValues(f *flag.Flag) []string {
	switch f.Name {
	case "o":
		return []string{f.DefValue, "json"}
	case "format":
		var formats []string
		for _, f := range append(userdata.Formats, userdata.Tree) {
			formats = append(formats, string(f))
		}
		return formats
	case "limit":
		var names []string
		for _, p := range userdata.Platforms {
			names = append(names, p.Name)
		}
		return names
	case "prefix":
		var prefixes []string
		for _, p := range layout.Prefixes {
			prefixes = append(prefixes, string(p))
		}
		return prefixes
	case "role":
		return []string{string(member.ControlPlane), string(member.Worker)}
	}
	return nil
}

// completions asks every command for its flags.
func completions() []completed {
	var out []completed
	for _, c := range allCommands() {
		if c.hidden {
			continue
		}
		done := completed{command: c}
		if c.name == "completion" {
			done.words = []string{"bash", "zsh", "fish"}
		}
		set := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.flags(set)
		set.VisitAll(func(f *flag.Flag) {
			value, usage := flag.UnquoteUsage(f)
			done.options = append(done.options, option{dashes(f.Name), usage, value, flagValues(f)})
		})
		out = append(out, done)
	}
	return out
}

// dashes writes a flag as the help texts do.
func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func completeBash(w io.Writer, all []completed) {
	var names []string
	var values, flags strings.Builder
	for _, c := range all {
		names = append(names, c.name)
		words := c.words
		for _, o := range c.options {
			words = append(words, o.flag)
			switch {
			case len(o.values) > 0:
				fmt.Fprintf(&values, "\t'%s %s') COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", c.name, o.flag, strings.Join(o.values, " "))
			case o.value == "directory":
				fmt.Fprintf(&values, "\t'%s %s') COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n", c.name, o.flag)
			case o.value != "":
				fmt.Fprintf(&values, "\t'%s %s') COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", c.name, o.flag)
			}
		}
		fmt.Fprintf(&flags, "\t%s) words='%s' ;;\n", c.name, strings.Join(append(words, "--help"), " "))
	}
	fmt.Fprintf(w, `# bash completion of userdata; made by userdata completion bash
_userdata() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W '%s help' -- "$cur"))
		return
	fi
	case "${COMP_WORDS[1]} $prev" in
%s	esac
	case "${COMP_WORDS[1]}" in
%s	esac
	case "$cur" in
	-*) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
	*) COMPREPLY=($(compgen -W "${words%%%%-*}" -- "$cur") $(compgen -f -- "$cur")) ;;
	esac
}
complete -o filenames -F _userdata userdata
`, strings.Join(names, " "), values.String(), flags.String())
}

func completeZsh(w io.Writer, all []completed) {
	// What zsh itself reads in a specification.
	quote := strings.NewReplacer("'", "'\\''", "[", "\\[", "]", "\\]", ":", "\\:").Replace
	fmt.Fprint(w, "#compdef userdata\n# made by userdata completion zsh\n_userdata() {\n\tlocal -a commands=(\n")
	for _, c := range all {
		fmt.Fprintf(w, "\t\t'%s:%s'\n", c.name, quote(c.summary))
	}
	fmt.Fprint(w, "\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tlocal command=$words[2]\n\tshift words\n\t(( CURRENT-- ))\n\tcase $command in\n")
	for _, c := range all {
		fmt.Fprintf(w, "\t%s)\n\t\t_arguments \\\n", c.name)
		for _, o := range c.options {
			action := ""
			switch {
			case len(o.values) > 0:
				action = fmt.Sprintf(":%s:(%s)", o.value, strings.Join(o.values, " "))
			case o.value == "directory":
				action = ":directory:_directories"
			case o.value != "":
				action = ":" + o.value + ":_files"
			}
			fmt.Fprintf(w, "\t\t\t'%s[%s]%s' \\\n", o.flag, quote(o.usage), action)
		}
		rest := "_files"
		if len(c.words) > 0 {
			rest = "(" + strings.Join(c.words, " ") + ")"
		}
		fmt.Fprintf(w, "\t\t\t'--help[show help]' '*:argument:%s' ;;\n", rest)
	}
	fmt.Fprint(w, "\tesac\n}\nif [ \"$funcstack[1]\" = _userdata ]; then _userdata \"$@\"; else compdef _userdata userdata; fi\n")
}

func completeFish(w io.Writer, all []completed) {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	fmt.Fprint(w, "# made by userdata completion fish\ncomplete -c userdata -e\n")
	for _, c := range all {
		fmt.Fprintf(w, "complete -c userdata -f -n __fish_use_subcommand -a %s -d '%s'\n", c.name, quote(c.summary))
	}
	for _, c := range all {
		on := fmt.Sprintf("complete -c userdata -n '__fish_seen_subcommand_from %s'", c.name)
		if len(c.words) > 0 {
			fmt.Fprintf(w, "%s -f -a '%s'\n", on, strings.Join(c.words, " "))
		}
		for _, o := range c.options {
			name, takes := "-l "+strings.TrimLeft(o.flag, "-"), ""
			if !strings.HasPrefix(o.flag, "--") {
				name = "-s " + strings.TrimLeft(o.flag, "-")
			}
			switch {
			case len(o.values) > 0:
				takes = fmt.Sprintf(" -x -a '%s'", strings.Join(o.values, " "))
			case o.value != "":
				takes = " -r"
			}
			fmt.Fprintf(w, "%s %s%s -d '%s'\n", on, name, takes, quote(o.usage))
		}
	}
}
