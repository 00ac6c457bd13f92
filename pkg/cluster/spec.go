package cluster

// SpecMax bounds the spec of a cluster as its servers share it, in bytes. Kubernetes
// keeps a copy in a ConfigMap, which holds at most 1 MiB.
const SpecMax = 512 << 10

// Shared is what all servers of a cluster have in common of their cluster files: the
// spec without the secret, and without what only user-data carries.
func Shared(c Cluster) Cluster {
	c.Secret, c.AcceptSecret, c.APIToken, c.Lock = "", "", "", nil
	c.Spec.Join, c.Spec.Artifacts, c.Spec.SecretFrom = Join{}, Artifacts{}, SecretSource{}
	c.Spec.Servers.Eligible.None = false
	return c
}

// ParseSpec reads a cluster file for a cluster that has formed: an operator's, with
// what lies beside it, or what Shared left of one. What servers install is not asked
// for.
func ParseSpec(name string, data []byte, beside Beside) (Cluster, []Problem) {
	beside.Formed, beside.noLock = true, true
	return parse(name, data, false, beside)
}

// CheckFormed says what is wrong with the cluster file of a server in a cluster that
// has formed.
func CheckFormed(name string, c Cluster) []Problem {
	data, err := Marshal(c)
	if err != nil {
		return []Problem{{File: name, Message: err.Error(), Severity: SeverityError}}
	}
	_, problems := parse(name, data, true, Beside{Formed: true})
	return problems
}
