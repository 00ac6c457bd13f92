package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// loResync finds a change whose event was lost.
	loResync = 30 * time.Second
	// loRetry is the pause before listening again after a failure.
	loRetry = time.Second
)

// watchLo reports the addresses of lo at once, after every address event and
// every 30 s, until ctx ends. When it cannot listen to the kernel it reads once
// a second.
func watchLo(ctx context.Context, log *slog.Logger, report func(map[netip.Prefix]bool)) {
	for {
		err := followLo(ctx, report)
		if ctx.Err() != nil {
			return
		}
		log.Warn("watching the addresses of lo failed, starting over", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(loRetry):
		}
	}
}

func followLo(ctx context.Context, report func(map[netip.Prefix]bool)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return fmt.Errorf("subscribe to address events: %w", err)
	}
	defer context.AfterFunc(ctx, s.Close)()
	defer s.Close()
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: int64(loResync / time.Second)}); err != nil {
		return fmt.Errorf("subscribe to address events: %w", err)
	}
	for {
		have, err := loAddresses()
		if err != nil {
			return err
		}
		report(have)
		// Only that something changed counts; EAGAIN is the time for a resync.
		if _, _, err := s.Receive(); err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("receive address events: %w", err)
		}
	}
}

// loAddresses lists the addresses of lo with their lengths.
func loAddresses() (map[netip.Prefix]bool, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	list, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of lo: %w", err)
	}
	have := make(map[netip.Prefix]bool, len(list))
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		have[netip.PrefixFrom(ip.Unmap(), ones)] = true
	}
	return have, nil
}
