package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// claims remembers in a file which IPv6 addresses are ours. It is not fsynced:
// a power loss takes the addresses with it.
type claims struct {
	file   string
	log    *slog.Logger
	warned bool // said once that the file is unreadable
}

// claimsFile is the content of the state file.
type claimsFile struct {
	Version   int            `json:"version"`
	Addresses []netip.Prefix `json:"addresses"`
}

const claimsVersion = 1

// load returns the claimed addresses. A file that cannot be read claims
// nothing: then an address stays that nobody removes, which is better than one
// removed that was not ours.
func (c *claims) load() []netip.Prefix {
	b, err := os.ReadFile(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var f claimsFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Version != claimsVersion {
		err = fmt.Errorf("version %d, expected %d", f.Version, claimsVersion)
	}
	if err != nil {
		if !c.warned {
			c.log.Warn("the list of our IPv6 addresses is unreadable, none counts as ours", "file", c.file, "err", err)
		}
		c.warned = true
		return nil
	}
	return f.Addresses
}

func (c *claims) add(p netip.Prefix) error {
	have := c.load()
	if slices.Contains(have, p) {
		return nil
	}
	return c.store(append(have, p))
}

func (c *claims) drop(p netip.Prefix) error {
	return c.store(slices.DeleteFunc(c.load(), func(q netip.Prefix) bool { return q == p }))
}

func (c *claims) store(ps []netip.Prefix) error {
	slices.SortFunc(ps, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	b, err := json.Marshal(claimsFile{Version: claimsVersion, Addresses: ps})
	if err != nil {
		return fmt.Errorf("remember our IPv6 addresses: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(c.file), filepath.Base(c.file)+".*")
	if err != nil {
		return fmt.Errorf("remember our IPv6 addresses: %w", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), c.file)
	}
	if err != nil {
		return fmt.Errorf("remember our IPv6 addresses: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
