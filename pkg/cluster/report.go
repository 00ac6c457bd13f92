package cluster

import (
	"net/url"
)

// Report says who outside is told how far a server is: at each phase a POST of
// {"state": "running", "code": 1002, "message": "k8s-bgp/cp1: roll-call"}. It is best
// effort, and nothing waits for it.
type Report struct {
	// UserState tells the platform, where the metadata name an address for that
	// (user_state_url). Default: true. Phone-home is never called.
	UserState *bool `yaml:"userState,omitempty"`
	// Webhook is an http or https URL that is told the same. Its path often is a
	// secret: it lies in user-data then, and shows in no log.
	Webhook string `yaml:"webhook,omitempty"`
}

// TellsPlatform says whether the platform is told.
func (r Report) TellsPlatform() bool { return r.UserState == nil || *r.UserState }

func (v *validator) reports() {
	hook := v.Spec.Report.Webhook
	if u, err := url.Parse(hook); hook != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "") {
		v.errorf("spec.report.webhook", "such as https://hooks.example.net/muster", "this is not an http or https URL of a host")
	}
}
