package announce

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// md5Counters are the TCP segments that this network namespace's kernel dropped
// because of their MD5 signature (RFC 2385). They are of all connections; only
// BGP speakers sign.
type md5Counters struct {
	missing    uint64 // TCPMD5NotFound: unsigned, and a password is set for the peer
	unexpected uint64 // TCPMD5Unexpected: signed, and none is set
	wrong      uint64 // TCPMD5Failure: signed with another password
}

func (c md5Counters) since(before md5Counters) md5Counters {
	return md5Counters{missing: c.missing - before.missing, unexpected: c.unexpected - before.unexpected, wrong: c.wrong - before.wrong}
}

// readMD5Counters asks the kernel.
func readMD5Counters() (md5Counters, error) {
	const path = "/proc/net/netstat"
	b, err := os.ReadFile(path)
	if err != nil {
		return md5Counters{}, fmt.Errorf("read the kernel's TCP counters: %w", err)
	}
	c, err := parseMD5Counters(string(b))
	if err != nil {
		return c, fmt.Errorf("read the kernel's TCP counters from %s: %w", path, err)
	}
	return c, nil
}

// parseMD5Counters reads /proc/net/netstat: a line of names, then one of values,
// both beginning with "TcpExt:". A kernel without TCP MD5 lacks the names.
func parseMD5Counters(text string) (c md5Counters, err error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if len(fields) != len(names) {
			return c, fmt.Errorf("TcpExt has %d names and %d values", len(names)-1, len(fields)-1)
		}
		for i, name := range names {
			field := map[string]*uint64{"TCPMD5NotFound": &c.missing, "TCPMD5Unexpected": &c.unexpected, "TCPMD5Failure": &c.wrong}[name]
			if field == nil {
				continue
			}
			if *field, err = strconv.ParseUint(fields[i], 10, 64); err != nil {
				return c, fmt.Errorf("%s is %q, expected a number: %w", name, fields[i], err)
			}
		}
		return c, nil
	}
	return c, nil
}
