// Package guide is what tells the servers of a test of each other by other means than
// lists of addresses: DNS, and an API of the shape that Packet had.
package guide

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/mustermetal/muster/test/faults/fabric"
	"github.com/mustermetal/muster/test/rig/metadata"
)

// What the guide knows of servers by.
const (
	Name    = "muster.lab"       // A records
	Service = "_muster._udp.lab" // SRV records
	Project = "lab"              // of the API
	Token   = "token-of-the-lab"
	port    = 8080
)

// PacketAPI is the element of spec.discovery for the API of a guide at this address.
func PacketAPI(at netip.Addr) string {
	return fmt.Sprintf("packetAPI: {url: 'http://%s/metal/v1', project: %s, tag: muster, metro: lab}", netip.AddrPortFrom(at, port), Project)
}

// Hook is the webhook of a guide at this address.
func Hook(at netip.Addr) string {
	return fmt.Sprintf("http://%s/hook/SECRET", netip.AddrPortFrom(at, port))
}

// Guide tells servers of each other: a DNS server and an API with a list of devices.
// What they tell its webhook it keeps.
type Guide struct {
	Heard metadata.Log

	dns *dns.Server
	api *http.Server
}

// Open opens both at an address of a network namespace, for servers at these
// addresses.
func Open(netns string, at netip.Addr, servers []netip.Addr) (*Guide, error) {
	g := &Guide{
		dns: &dns.Server{Handler: records(servers)},
	}
	mux := deviceList(servers)
	mux.Handle("POST /hook/SECRET", &g.Heard)
	g.api = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	var listener net.Listener
	err := fabric.In(netns, func() (err error) {
		if g.dns.PacketConn, err = net.ListenPacket("udp4", netip.AddrPortFrom(at, 53).String()); err != nil {
			return err
		}
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(at, port).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("guide: %w", err)
	}
	go func() { _ = g.dns.ActivateAndServe() }()
	go func() { _ = g.api.Serve(listener) }()
	return g, nil
}

// Close ends the services.
func (g *Guide) Close(ctx context.Context) error {
	return errors.Join(g.dns.ShutdownContext(ctx), g.api.Close())
}

// records answers for the two names; one target does not exist, as that of a server
// which was never made.
func records(addrs []netip.Addr) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		asked := q.Question[0]
		header := dns.RR_Header{Name: asked.Name, Rrtype: asked.Qtype, Class: dns.ClassINET, Ttl: 5}
		exists := false
		for i, a := range addrs {
			own := fmt.Sprintf("n%d.lab.", i)
			switch name := strings.ToLower(asked.Name); {
			case name == Name+"." || name == own:
				exists = true
				if asked.Qtype == dns.TypeA {
					answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
				}
			case name == Service+"." && asked.Qtype == dns.TypeSRV:
				exists = true
				answer.Answer = append(answer.Answer, &dns.SRV{Hdr: header, Port: 9760, Target: own})
			}
		}
		if strings.EqualFold(asked.Name, Service+".") && asked.Qtype == dns.TypeSRV {
			answer.Answer = append(answer.Answer, &dns.SRV{Hdr: header, Port: 9760, Target: "never-made.lab."})
		}
		if !exists {
			answer.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(answer) // the asker asks again
	})
}

// deviceList answers as the API of Packet's shape does, two devices a page whatever
// was asked, with one that belongs to somebody else.
func deviceList(addrs []netip.Addr) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metal/v1/projects/"+Project+"/devices", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != Token {
			http.Error(w, `{"errors":["Invalid authentication token"]}`, http.StatusUnauthorized)
			return
		}
		devices := []map[string]any{{"hostname": "other", "state": "active", "tags": []string{"other"}, "metro": map[string]string{"code": "lab"},
			"ip_addresses": []map[string]any{{"address": "10.77.0.250", "public": false, "management": true}}}}
		for i, a := range addrs {
			devices = append(devices, map[string]any{"hostname": fmt.Sprintf("n%d", i), "state": "active", "tags": []string{"muster"}, "metro": map[string]string{"code": "lab"},
				"ip_addresses": []map[string]any{{"address": "203.0.113.9", "public": true, "management": true}, {"address": a.String(), "public": false, "management": true}}})
		}
		const size = 2
		page := 1
		if _, err := fmt.Sscan(r.URL.Query().Get("page"), &page); err != nil || page < 1 {
			page = 1
		}
		from := min((page-1)*size, len(devices))
		_ = json.NewEncoder(w).Encode(map[string]any{
			"devices": devices[from:min(from+size, len(devices))],
			"meta":    map[string]int{"current_page": page, "last_page": (len(devices) + size - 1) / size, "total": len(devices)},
		})
	})
	return mux
}
