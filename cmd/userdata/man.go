package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/mustermetal/muster/pkg/completion"
)

// manCommand is hidden: it is for who packages the program. It is a function
// because it lists all commands, itself among them.
func manCommand() command {
	return command{
		name: "man", args: "> userdata.1", hidden: true,
		summary: "print the manual page userdata(1)",
		help: `Prints the manual page of all commands, in the language of man(7).

Example:
  userdata man > /usr/local/share/man/man1/userdata.1

Exit codes: 0 done, 64 wrong command line.
`,
		flags: func(*flag.FlagSet) func(context.Context, streams, []string) error {
			return func(_ context.Context, s streams, names []string) error {
				if len(names) > 0 {
					return exitError{exitUsage, fmt.Errorf("unexpected argument %q", names[0])}
				}
				writeManual(s.out)
				return nil
			}
		},
	}
}

func writeManual(w io.Writer) {
	fmt.Fprint(w, `.TH USERDATA 1 2026-11-26 muster "muster manual"
.SH NAME
userdata \- make the user-data that turns servers into a Kubernetes cluster
.SH SYNOPSIS
.B userdata
.I COMMAND
.RI [ flags ]
.SH DESCRIPTION
From one cluster file
.B userdata
makes the user-data that every server of a cluster boots with. What a command
makes goes to standard output, what it has to say to standard error.
.SH COMMANDS
`)
	for _, c := range allCommands() {
		if !c.hidden {
			c.writeManual(w)
		}
	}
	fmt.Fprint(w, `.SH FILES
.TP
.I cluster.yaml
the cluster file; docs/cluster\-file.md has every key
.TP
.I cluster.lock.yaml
what servers install, by sha256
.TP
.I NAME.secret
what servers enrol with; readable by its owner only
.SH EXIT STATUS
.TP
.B 0
done
.TP
.B 1
failed; a retry makes sense
.TP
.B 64
the command line is wrong
.TP
.B 65
the cluster file, or another file, is wrong
.SH SEE ALSO
docs/guide.md, docs/cluster\-file.md, docs/cookbook
`)
}

// writeManual is the section of one command.
func (c command) writeManual(w io.Writer) {
	fmt.Fprintf(w, ".SS userdata %s %s\n", roff(c.name), roff(c.args))
	literal := false
	gap := false // an empty line that may begin a paragraph
	for line := range strings.Lines(strings.TrimSpace(c.help)) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			gap = true
			continue
		}
		if indented := strings.HasPrefix(line, "  "); indented != literal {
			if literal = indented; literal {
				fmt.Fprint(w, ".PP\n.nf\n.RS 4\n")
			} else {
				fmt.Fprint(w, ".RE\n.fi\n.PP\n")
			}
		} else if gap && !literal {
			fmt.Fprint(w, ".PP\n")
		}
		gap = false
		fmt.Fprintln(w, roff(strings.TrimPrefix(line, "  ")))
	}
	if literal {
		fmt.Fprint(w, ".RE\n.fi\n")
	}
	set := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.flags(set)
	set.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(w, ".TP\n.B %s", roff(completion.Dashes(f.Name)))
		if value != "" {
			fmt.Fprintf(w, " \\fI%s\\fR", roff(value))
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(w, "\n%s\n", roff(usage))
	})
}

// roff writes text so that man shows it as it is: hyphens that can be pasted, and
// no line that begins like a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}
