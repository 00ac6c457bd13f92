// Command rigd holds the parts of a rig that outlive its driver. It is started by
// package rig and by nobody else.
package main

import (
	"fmt"
	"os"

	"github.com/mustermetal/muster/test/rig/metadata"
	"github.com/mustermetal/muster/test/rig/supervise"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "rigd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "supervise":
		return supervise.Run(args[1])
	case len(args) == 4 && args[0] == "metadata":
		return metadata.ServeStore(args[1], metadata.Store{Dir: args[2]}, args[3])
	}
	return fmt.Errorf("arguments %q; expected supervise FILE or metadata ADDRESS STORE FILES", args)
}
