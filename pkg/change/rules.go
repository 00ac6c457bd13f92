package change

import "strings"

// rule is what a change of one field means.
type rule struct {
	effect Effect
	why    string
}

// rules has every field of the cluster file, lists with [] behind them; of a list
// of mappings the rule at [] is about an element that comes or goes. A test holds
// it to the types, so that whoever adds a field thinks of those that have it not.
var rules = table([]group{
	{Anew, "another format is another program", `apiVersion kind`},
	{Anew, "it names the cluster, in kubeconfigs too", `metadata.name`},
	{Anew, "it names the cluster: servers with another id are never part of it", `spec.id`},
	{Anew, "servers with another secret neither hear nor enrol each other; `bootstrap rotate` changes it on servers that run", `secret`},
	{Anew, "the servers voted by it once, when the cluster formed, and a formed cluster ignores it; servers are added with `userdata render --join`",
		`spec.servers.expect spec.servers.quorum spec.servers.electors`},
	{Anew, "it is asked once, before the first control plane is built", `spec.time.require`},
	{Later, "`bootstrap rotate` writes it on each server, and it is that server's own", `acceptSecret`},
	{Anew, "it is in certificates, kubeconfigs and the state of the cluster",
		`spec.kubernetes.endpoint.address spec.kubernetes.endpoint.external spec.kubernetes.podSubnets spec.kubernetes.serviceSubnets spec.kubernetes.dnsDomain`},
	{Anew, "kubeadm stored it in the cluster when it formed, and joining servers read it there; edit the ConfigMap kubelet-config or kube-proxy in kube-system",
		`spec.kubernetes.kubelet spec.kubernetes.kubeProxy`},
	{Anew, "only kubeadm init asks for it", `spec.kubernetes.skipPhases`},
	{Anew, "all servers must use the same at the same time, and the directory keeps addresses with its port",
		`spec.ports.gossip spec.ports.agents spec.ports.enrolment spec.ports.directory`},

	{Later, "servers install when they first boot; those that are there keep what they have",
		`lock[] lock[].name lock[].version lock[].urls lock[].amd64.sha256 lock[].amd64.size lock[].arm64.sha256 lock[].arm64.size
		spec.artifacts.mirrors spec.artifacts.architectures
		spec.artifacts.versions.agent spec.artifacts.versions.containerd spec.artifacts.versions.runc spec.artifacts.versions.cniPlugins spec.artifacts.versions.crictl
		spec.artifacts.images[] spec.artifacts.images[].name spec.artifacts.images[].urls`},
	{Later, "servers that are there are upgraded with kubeadm, by hand and first; later ones need the version that the cluster has then", `spec.kubernetes.version`},
	{Later, "kubelets get it when their server joins; there it is in /var/lib/kubelet/kubeadm-flags.env", `spec.kubernetes.cloudProvider`},
	{Later, "only `userdata check` asks for it", `spec.kubernetes.cloudController.addon spec.kubernetes.cloudController.manual`},
	{Later, "only kubeadm init and join ask for it", `spec.kubernetes.ignorePreflightErrors`},
	{Later, "a server asks for its role once, when it comes; those that have one keep it",
		`spec.servers.eligible.tag spec.servers.eligible.hostname spec.servers.eligible.list spec.servers.eligible.all spec.servers.eligible.none spec.static[].tags`},
	{Later, "only `userdata render` asks for it", `spec.secretFrom.exec spec.secretFrom.env spec.secretFrom.file`},
	{Later, "it says which cluster servers with the user-data join", `spec.join.ca`},
	{Later, "a server that is there would take itself for another one: leave its file as it is", `spec.identity.source spec.static[].id`},
	{Later, "it is settled when a server joins; to change it there, take the server out and let it join again",
		`spec.static[].hostname spec.static[].addresses[] spec.static[].addresses[].address spec.static[].addresses[].public`},

	{Apply, "the directory gives roles by it: with more, eligible servers that come later become control planes, and workers stay workers; with fewer, none ceases to be one by itself", `spec.servers.controlPlanes`},
	{Apply, "control planes decide by it from their agent's next start on", `spec.servers.replace.by spec.servers.replace.after`},
	{Apply, "the servers exchange their agents for the pinned one, one after the other", `spec.agent.urls spec.agent.sha256`},
	{Apply, "the agent reads it at its next start; the metadata must name the server as before",
		`spec.platform spec.metadata.url spec.metadata.deadline spec.metadata.requireBGP`},
	{Later, "it travels with user-data only: on servers that are there, put it into /etc/muster/cluster.yaml and restart muster.service", `apiToken`},
	{Apply, "the agent reads it at its next start", `spec.discovery[] spec.discovery[].static spec.discovery[].subnet spec.discovery[].dns spec.discovery[].multicast
		spec.discovery[].packetAPI.url spec.discovery[].packetAPI.project spec.discovery[].packetAPI.tag spec.discovery[].packetAPI.metro spec.discovery[].eip
		spec.static[] spec.static[].match.hostname spec.static[].match.mac spec.static[].match.address spec.static[].match.all spec.report.userState spec.report.webhook spec.unsafe.stateFilesystem`},
	{Apply, "the agent compares addresses and routes at its next start, and mends", `spec.static[].addresses[].gateway
		spec.static[].bgpNeighbors[] spec.static[].bgpNeighbors[].customerAS spec.static[].bgpNeighbors[].customerIP spec.static[].bgpNeighbors[].peerAS
		spec.static[].bgpNeighbors[].peerIPs spec.static[].bgpNeighbors[].multihop spec.static[].bgpNeighbors[].md5`},
	{Apply, "the agent starts its own speaker, or lays kube-vip's manifest, at its next start, and takes away the other", `spec.network.bgp.controlPlane spec.network.bgp.kubeVIP.image`},
	{Apply, "the agent puts it on lo and announces it at its next start; certificates of API servers that are there do not name a new one",
		`spec.network.elasticIPs[] spec.network.elasticIPs[].address spec.network.elasticIPs[].on`},
	{Apply, "`bootstrap net render` prints the configuration of the speaker anew; apply that",
		`spec.network.bgp.services spec.network.bgp.namespace
		spec.network.loadBalancer.pools[] spec.network.loadBalancer.pools[].name spec.network.loadBalancer.pools[].addresses spec.network.loadBalancer.pools[].manual`},
	{Apply, "the agent writes the firewall's table at its next start", `spec.network.firewall.mode spec.network.firewall.trusted spec.network.firewall.apiServerFrom
		spec.network.firewall.allow[] spec.network.firewall.allow[].port spec.network.firewall.allow[].through spec.network.firewall.allow[].from`},
	{Apply, "a control plane applies what differs, in order, and takes away what the list no longer holds, but Namespaces and CRDs",
		`spec.addons[] spec.addons[].name spec.addons[].file spec.addons[].url spec.addons[].sha256 spec.addons[].inline spec.addons[].timeout
		spec.addons[].wait[] spec.addons[].wait[].rollout spec.addons[].wait[].condition spec.addons[].wait[].of spec.addons[].wait[].crd spec.addons[].wait[].namespace`},
	{Apply, "the agent writes containerd's configuration at its next start and restarts it; containers go on", `spec.containerd.extra`},
})

// group is a rule for several fields.
type group struct {
	effect Effect
	why    string
	fields string // separated by blanks
}

func table(groups []group) map[string]rule {
	out := map[string]rule{}
	for _, g := range groups {
		for _, field := range strings.Fields(g.fields) {
			out[field] = rule{g.effect, g.why}
		}
	}
	return out
}
