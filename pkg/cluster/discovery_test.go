package cluster

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDiscovery holds what is said about each way to find peers.
func TestDiscovery(t *testing.T) {
	const api = "packetAPI: {url: 'https://api.example.net/metal/v1', project: 93125c2a"
	const token = "12:18: warning: spec.discovery[0].packetAPI: the token lies in user-data, which whoever reaches the metadata service can read (make it read-only, and of this project alone)"
	for name, row := range map[string]struct {
		discovery string // the elements, in YAML
		want      []string
	}{
		"all":     {"subnet: private}, {dns: k8s.example.net}, {dns: _muster._udp.example.net.}, {multicast: true}, {eip: true}, {static: [10.99.14.9]", nil},
		"a range": {"subnet: 10.99.16.0/20", nil},
		"two ways in one": {"static: [10.99.14.9], dns: k8s.example.net", []string{
			"12:6: spec.discovery[0]: says static and dns; an element is one way (write each as an element of its own: - static: …)",
		}},
		"no range": {"subnet: local", []string{
			`12:15: spec.discovery[0].subnet: "local" is no range of addresses (private, or a range such as 10.99.14.0/24)`,
		}},
		"crooked range": {"subnet: 10.99.14.9/24", []string{
			"12:15: spec.discovery[0].subnet: 10.99.14.9/24 has bits set to the right of its length (write 10.99.14.0/24)",
		}},
		"large range": {"subnet: 10.0.0.0/19}, {subnet: 'fd00::/64'", []string{
			"12:15: spec.discovery[0].subnet: 10.0.0.0/19 has too many addresses to ask each (at most 4096 addresses, a /20; several ranges are several elements of discovery)",
			"12:38: spec.discovery[1].subnet: fd00::/64 has too many addresses to ask each (at most 4096 addresses, a /116; several ranges are several elements of discovery)",
		}},
		"pods in the range": {"subnet: 172.16.4.0/24", []string{
			"12:15: spec.discovery[0].subnet: discovery range 172.16.4.0/24 overlaps pod range 172.16.0.0/12, in line 16 (set kubernetes.podSubnets to a range that shares no address with others, such as [10.244.0.0/16])",
		}},
		"names that are none": {"dns: 10.99.14.9}, {dns: 'k8s example'}, {dns: -k8s", []string{
			"12:12: spec.discovery[0].dns: 10.99.14.9 is an address, expected a name (write - static: [10.99.14.9])",
			`12:31: spec.discovery[1].dns: "k8s example" is no DNS name (such as k8s.example.net, or _muster._udp.example.net for SRV records)`,
			`12:53: spec.discovery[2].dns: "-k8s" is no DNS name (such as k8s.example.net, or _muster._udp.example.net for SRV records)`,
		}},
		"an API":          {api + ", tag: muster, metro: ny}", []string{token}},
		"no project":      {"packetAPI: {url: 'https://api.example.net'}", []string{"12:7: spec.discovery[0].packetAPI.project: is missing (such as project: 93125c2a-8b78-4d4f-a3c4-7367d6b7cca8)", token}},
		"a plain API":     {"packetAPI: {url: 'http://10.0.0.2/metal/v1', project: a/b}", []string{token, "12:24: warning: spec.discovery[0].packetAPI.url: the token goes over the network in the clear (use https)", `12:61: spec.discovery[0].packetAPI.project: "a/b" is no id of a project (the id, not the name)`}},
		"a password":      {"packetAPI: {url: 'https://u:p@api.example.net', project: a}", []string{token, `12:24: spec.discovery[0].packetAPI.url: "https://u:p@api.example.net" is not an http or https URL of a host, without user, query and fragment (such as https://api.example.net/metal/v1)`}},
		"the token in it": {api + ", token: abc}", []string{token, "12:79: spec.discovery[0].packetAPI.token: unknown key (keys here: url, project, tag, metro)"}},
		"founders by the EIP": {"eip: true", []string{
			"12:5: spec.discovery: eip finds a cluster that has formed; founding servers do not find each other by it (add another way, such as - subnet: private)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			file := strings.Replace(good, "    - static: [10.99.14.9, 10.99.14.11]", "    [{"+row.discovery+"}]", 1)
			_, problems := Parse("c.yaml", []byte(file))
			if diff := cmp.Diff(row.want, render(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestToken: the token never stands in the operator's file, always in a server's
// that needs it, and never in a problem.
func TestToken(t *testing.T) {
	api := strings.Replace(good, "static: [10.99.14.9, 10.99.14.11]", "packetAPI: {url: 'https://api.example.net', project: a}", 1)
	secret := "secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
	errors := func(problems []Problem) (out []string) {
		for _, p := range problems {
			if p.Severity == SeverityError {
				out = append(out, p.Path+" "+p.Message)
			}
		}
		return out
	}
	for name, row := range map[string]struct {
		file  string
		parse func(string, []byte) (Cluster, []Problem)
		want  []string
	}{
		"operator's": {api + "apiToken: hunter2\n", Parse, []string{"apiToken does not belong into the cluster file, which people share"}},
		"missing":    {api + secret, ParseServer, []string{"apiToken is missing"}},
		"blank":      {api + secret + "apiToken: hunter 2\n", ParseServer, []string{"apiToken the token has blanks or characters that no HTTP header carries; expected one word, as the API gave it"}},
		"server's":   {api + secret + "apiToken: hunter2\n", ParseServer, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, problems := row.parse("c.yaml", []byte(row.file))
			if diff := cmp.Diff(row.want, errors(problems)); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if text := fmt.Sprint(problems) + fmt.Sprintf("%+v %#v", c, c); strings.Contains(text, "hunter") {
				t.Errorf("the token shows in %s", text)
			}
		})
	}
	if got, err := ParseToken([]byte("# read-only\n\n hunter2 \n")); err != nil || got.Reveal() != "hunter2" {
		t.Errorf("token is %q, %v", got.Reveal(), err)
	}
	for _, bad := range []string{"", "a\nb\n", "a b\n", strings.Repeat("x", 2000)} {
		if _, err := ParseToken([]byte(bad)); err == nil || strings.Contains(err.Error(), "xxx") {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

// The examples of the documentation are right.
func TestDiscoveryPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/discovery.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?m)^    discovery:\n(?:      .*\n)+`).FindAllString(string(page), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d examples, expected 2", len(blocks))
	}
	for _, b := range blocks {
		file := strings.Replace(good, "  discovery:\n    - static: [10.99.14.9, 10.99.14.11]\n", strings.ReplaceAll(b, "\n  ", "\n")[2:], 1)
		if _, problems := Parse("c.yaml", []byte(file)); Err(problems) != nil || file == good {
			t.Errorf("%s%v", b, problems)
		}
	}
}

func TestReport(t *testing.T) {
	parse := func(report string) (Cluster, []string) {
		c, problems := Parse("c.yaml", []byte(strings.Replace(good, "  discovery:", "  report: "+report+"\n  discovery:", 1)))
		return c, render(problems)
	}
	if c, problems := parse("{webhook: 'https://hooks.example.net/a?b=c'}"); problems != nil || !c.Spec.Report.TellsPlatform() {
		t.Errorf("a webhook: %v", problems)
	}
	if c, problems := parse("{userState: false}"); problems != nil || c.Spec.Report.TellsPlatform() {
		t.Errorf("without user_state: %v", problems)
	}
	_, problems := parse("{webhook: 'ftp://hooks/SECRET'}")
	if diff := cmp.Diff([]string{"11:21: spec.report.webhook: this is not an http or https URL of a host (such as https://hooks.example.net/muster)"}, problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
