package discovery

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolver asks a DNS server of the test that knows these records.
func resolver(t *testing.T, records ...string) *net.Resolver {
	t.Helper()
	var known []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, rr)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		exists := false
		for _, rr := range known {
			if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				exists = true
				if rr.Header().Rrtype == q.Question[0].Qtype {
					answer.Answer = append(answer.Answer, rr)
				}
			}
		}
		switch {
		case q.Question[0].Name == "broken.example.net.":
			answer.Rcode = dns.RcodeServerFailure
		case !exists:
			answer.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(answer)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		if err := <-ended; err != nil {
			t.Errorf("the DNS server: %v", err)
		}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestDNS(t *testing.T) {
	r := resolver(t,
		"k8s.example.net. 5 IN A 10.99.14.9", "k8s.example.net. 5 IN A 10.99.14.11", "k8s.example.net. 5 IN AAAA fd00::9",
		"six.example.net. 5 IN AAAA fd00::9",
		"cp1.example.net. 5 IN A 10.99.14.9", "cp2.example.net. 5 IN A 10.99.14.11",
		"_muster._udp.example.net. 5 IN SRV 0 0 9760 cp1.example.net.", "_muster._udp.example.net. 5 IN SRV 0 0 9760 cp2.example.net.",
		"_half._udp.example.net. 5 IN SRV 0 0 9760 cp1.example.net.", "_half._udp.example.net. 5 IN SRV 0 0 9760 gone.example.net.")
	for name, row := range map[string]struct {
		host, self string
		want       []netip.Addr
		err        string
	}{
		"addresses":       {"k8s.example.net", "10.99.14.9", addrs("10.99.14.9", "10.99.14.11"), ""},
		"IPv6":            {"k8s.example.net.", "fd00::1", addrs("fd00::9"), ""},
		"SRV":             {"_muster._udp.example.net", "10.99.14.9", addrs("10.99.14.9", "10.99.14.11"), ""},
		"half of a SRV":   {"_half._udp.example.net", "10.99.14.9", addrs("10.99.14.9"), "gone.example.net does not exist, says the resolver"},
		"no name":         {"nobody.example.net", "10.99.14.9", nil, "nobody.example.net does not exist, says the resolver"},
		"no SRV":          {"_nobody._udp.example.net", "10.99.14.9", nil, "_nobody._udp.example.net does not exist, says the resolver"},
		"other family":    {"six.example.net", "10.99.14.9", nil, "six.example.net has 1 addresses, none of the family of this server's private address 10.99.14.9"},
		"a broken server": {"broken.example.net", "10.99.14.9", nil, "fails on broken.example.net: server misbehaving"},
	} {
		t.Run(name, func(t *testing.T) {
			var found []netip.Addr
			err := DNS{Host: row.host, Self: at(row.self), Resolver: r}.Find(t.Context(), func(a netip.Addr) { found = append(found, a) })
			slices.SortFunc(found, netip.Addr.Compare)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if !slices.Equal(found, row.want) || row.err == "" && text != "" || !strings.Contains(text, row.err) {
				t.Errorf("found %v, error %q; want %v, %q", found, text, row.want, row.err)
			}
		})
	}
}

// A resolver that is silent holds the attempt up to its deadline, and is named.
func TestDNSSilent(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", silent.LocalAddr().String())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err = DNS{Host: "k8s.example.net", Self: at("10.0.0.1"), Resolver: r}.Find(ctx, func(netip.Addr) { t.Error("found an address") })
	if err == nil || !strings.Contains(err.Error(), "does not answer for k8s.example.net: /etc/resolv.conf must name one that this server reaches") {
		t.Errorf("it says %v", err)
	}
}
