package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// flagSet are the flags of one subcommand with its help text, which ends in
// examples and exit codes.
type flagSet struct {
	*flag.FlagSet
	help   string
	stdout io.Writer
}

func newFlags(name, help string, stdout io.Writer) flagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	// Errors are printed once, by run; help goes to stdout, where a pager can have it.
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	return flagSet{set, help, stdout}
}

// parse turns a wrong command line into exit code 64 and --help, which prints
// itself, into 0.
func (f flagSet) parse(args []string) error {
	has := false
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		if ask, is := f.stdout.(*asking); is {
			ask.set = f.FlagSet
			return exitError{0, err}
		}
		fmt.Fprint(f.stdout, f.help)
		f.VisitAll(func(*flag.Flag) { has = true })
		if has {
			fmt.Fprint(f.stdout, "\nFlags:\n")
		}
		f.SetOutput(f.stdout)
		f.PrintDefaults()
		return exitError{0, err}
	case err == nil && f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err != nil {
		return f.wrong(err)
	}
	return nil
}

// parseOperand parses a command line with one word that is no flag, anywhere
// between the flags; it is empty when there is none.
func (f flagSet) parseOperand(args []string) (string, error) {
	if err := f.Parse(args); err == nil && f.NArg() > 0 {
		return f.Arg(0), f.parse(f.Args()[1:])
	}
	return "", f.parse(args)
}

// wrong is an error of the command line.
func (f flagSet) wrong(err error) error {
	return exitError{exitUsage, fmt.Errorf("%w; bootstrap %s --help shows its flags", err, f.Name())}
}
