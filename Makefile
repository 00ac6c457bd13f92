# muster. Go is the one prerequisite; every target installs what else it lacks
# and says so (test/need.sh), builds it once, and keeps it in $(MUSTER_CACHE).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help
.PHONY: help build install dist test fuzz check-fence check-kubeadm e2e crash-table faults image demo demo-down shell bench bench-gossip lint lab go root sysroot

ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
export MUSTER_CACHE := $(abspath $(or $(MUSTER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/muster))
SYSROOT = $(MUSTER_CACHE)/$(notdir $(shell images/sysroot.sh --cache $(ARCH)))
# Variables and flags that link dqlite in, for the shell.
DQLITE = eval "$$(images/sysroot.sh --env $(SYSROOT) $(ARCH))"
# The linker warns of name look-ups in a static program; netgo does ours.
UNWARN = { grep --line-buffered -vE "^\# .*(\.test|cmd/bootstrap)$$|/ld: .*: in function |warning: Using '[a-z_]*' in statically linked" || true; }
# The commit is stamped where git answers; it refuses a tree of another owner, and
# go build would fail with it.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)
# Programs that reach no C library.
PURE = env CGO_ENABLED=0 GOFLAGS=

help: ## list the targets
	sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-11s %s\n", $$1, $$2 }'

build: go sysroot ## build bin/userdata and bin/bootstrap
	mkdir -p bin
	$(PURE) go build -trimpath -buildvcs=$(VCS) -ldflags '-s -w' -o bin/userdata ./cmd/userdata
	$(DQLITE)
	# grpcnotrace: GoBGP's gRPC otherwise links html/template, whose use of reflection
	# keeps 4 MB of methods that nobody calls. nethttpomithttp2: 0.5 MB; the agent
	# asks and answers in HTTP/1.1, which mirrors and API servers all speak.
	go build -trimpath -buildvcs=$(VCS) -tags "$$GO_TAGS grpcnotrace nethttpomithttp2" -ldflags "$$GO_LDFLAGS" -o bin/bootstrap ./cmd/bootstrap 2>&1 | $(UNWARN) >&2

install: ## install both programs, manual pages and completions that make build made: PREFIX=/usr/local DESTDIR=
	DESTDIR="$(DESTDIR)" PREFIX="$(or $(PREFIX),/usr/local)" images/install.sh bin

dist: go ## build a release into dist/, with checksums (CHECK=1: twice, and compare)
	test/need.sh dist
	images/dist.sh $(if $(CHECK),--check) dist

# The packages whose goroutines share most.
RACE := ./pkg/election/... ./pkg/bootstrap/... ./pkg/gossip/... ./pkg/discovery/... ./pkg/events/... ./pkg/rpc/... ./pkg/identity/... ./pkg/metadata/... ./pkg/network/... ./pkg/firewall/...

test: build ## vet and test everything that needs no servers
	test/need.sh test
	[ $$(id -u) = 0 ] || echo "make test: not root: tests in network namespaces and with mounts are skipped" >&2
	$(DQLITE)
	echo "make test: go vet" >&2
	go vet ./...
	echo "make test: go test" >&2
	go test -timeout 5m ./... 2>&1 | $(UNWARN)
	echo "make test: go test -race" >&2
	env -u CGO_CFLAGS -u CGO_LDFLAGS -u CC GOFLAGS= CGO_ENABLED=1 go test -race -timeout 5m $(RACE)

# Package, function and inputs of each fuzz test: some 70 s on two cores. A count,
# because go test calls it a failure now and then when time runs out within an
# input. Their seeds run with every go test.
FUZZ := election/FuzzDecodeState/150000 election/FuzzDecodeMessage/150000 durable/FuzzJudge/40000 shape/FuzzShapes/80000 cluster/FuzzParse/150000 userdata/FuzzParse/60000 discovery/FuzzDevices/40000 discovery/FuzzAnswer/40000

fuzz: go ## fuzz what comes from outside and from disk, side by side
	# Compiled before, so that what they share is not compiled by each of them.
	for package in $(sort $(foreach f,$(FUZZ),$(firstword $(subst /, ,$f)))); do
		$(PURE) go test -c -fuzz . -o /dev/null "./pkg/$$package"
	done
	pids=()
	for f in $(FUZZ); do
		IFS=/ read -r package name inputs <<< "$$f"
		$(PURE) go test -run '^$$' -fuzz "^$$name$$" -fuzztime "$${inputs}x" -fuzzminimizetime 100x -parallel 1 "./pkg/$$package" &
		pids+=($$!)
	done
	failed=0
	for p in "$${pids[@]}"; do wait "$$p" || failed=1; done
	exit $$failed

check-fence: go ## search every schedule of the fence, the large cases too
	$(PURE) go test -count=1 -v -timeout 4h -run 'TestFence|TestChecker|TestReductions|TestTally|TestLearned' ./pkg/election/ -deep | grep --line-buffered -v '^=== RUN'

check-kubeadm: go ## show what is rendered for kubeadm to that of the next Kubernetes too (cold: it compiles it, 4 minutes)
	version=$$($(PURE) go -C images/components/kubeadm-next list -m -f '{{.Version}}' k8s.io/kubernetes)
	minor=$${version#v1.}
	stamp=k8s.io/component-base/version
	echo "make check-kubeadm: compiling kubeadm $$version" >&2
	$(PURE) go -C images/components/kubeadm-next build -trimpath -o $(CURDIR)/bin/kubeadm-next \
		-ldflags "-s -w -X $$stamp.gitVersion=$$version -X $$stamp.gitMajor=1 -X $$stamp.gitMinor=$${minor%%.*}" k8s.io/kubernetes/cmd/kubeadm
	MUSTER_KUBEADM=$(CURDIR)/bin/kubeadm-next $(PURE) go test -count=1 -v -run 'TestRealKubeadmValidates|DryRun' ./pkg/kubeadm

image: root build ## build the disk of the test servers (cold: about 10 minutes)
	test/need.sh e2e
	$(PURE) go run ./images/recipe --agent bin/bootstrap > bin/image.json

e2e: image ## form real clusters of systemd-nspawn servers and test them (ALL=1: also what takes long)
	MUSTER_E2E=$(if $(ALL),all,1) MUSTER_IMAGE=$(CURDIR)/bin/image.json $(PURE) go test -count=1 -v -p 1 -timeout 60m ./test/rig/... ./test/e2e/...

crash-table: image ## take the power from a server at every point of its way into the cluster, and print the table (45 minutes; ROUND=05: one of 21 formations)
	rm -f bin/crash-table.md
	MUSTER_E2E=crash MUSTER_CRASH_TABLE=$(CURDIR)/bin/crash-table.md MUSTER_IMAGE=$(CURDIR)/bin/image.json $(PURE) go test -count=1 -v -timeout 120m -run '^TestCrashTable$$$(if $(ROUND),/^round_$(ROUND)$$)' ./test/e2e
	printf '| where the power went | on the disk then | on the disk at power-on | run again | ready after |\n|---|---|---|---|---|\n'
	cat bin/crash-table.md

faults: root build $(if $(filter race,$(AGENT)),bin/bootstrap-race) ## run agents under faults: make faults RUNS=200 SEED=1 AGENT=race SHORT=1
	test/need.sh e2e
	MUSTER_FAULTS=1 MUSTER_AGENT=$(CURDIR)/bin/bootstrap$(if $(filter race,$(AGENT)),-race) MUSTER_FAULTS_RUNS=$(or $(RUNS),5) MUSTER_FAULTS_SEED=$(SEED) \
		$(PURE) go test -count=1 -v $(if $(SHORT),-short) -timeout 12h ./test/faults

# The agent with the race detector in it, linked statically all the same.
.PHONY: bin/bootstrap-race
bin/bootstrap-race: go sysroot
	echo "make: building the agent with the race detector (cold: about 2 minutes)" >&2
	$(DQLITE)
	go build -race -trimpath -buildvcs=$(VCS) -tags "$$GO_TAGS grpcnotrace nethttpomithttp2" -ldflags "$$GO_LDFLAGS" -o $@ ./cmd/bootstrap 2>&1 | $(UNWARN) >&2

demo: root build ## form 3 control planes and 2 workers and leave them running
	test/need.sh e2e
	$(PURE) go run ./test/demo

demo-down: root ## stop the demo and remove its traces
	$(PURE) go run ./test/demo --down

shell: root ## open a shell on a server of the demo: make shell NAME=cp1
	if [ -z "$(NAME)" ]; then
		echo "make shell: which server? for instance: make shell NAME=cp1" >&2
		exit 64
	fi
	$(PURE) go run ./test/demo --shell "$(NAME)"

lab: go ## tell the servers of a lab what they are: make lab INVENTORY=lab.yaml LISTEN=10.99.14.1:80
	$(PURE) go run ./test/labmetadata --inventory "$(or $(INVENTORY),lab.yaml)" --listen "$(or $(LISTEN),:80)" $(if $(FILES),--files "$(FILES)")

bench: root build ## measure against the budgets
	test/need.sh e2e
	$(PURE) go run ./test/bench

bench-gossip: go ## measure the roll call of 1,000 servers in virtual time, of 100 processes in namespaces (root; 8 minutes)
	test/need.sh test
	[ $$(id -u) = 0 ] || echo "make bench-gossip: not root: the processes in namespaces are skipped" >&2
	$(PURE) go test -count=1 -v -timeout 20m -run 'TestScale' ./pkg/gossip -servers 1000
	for way in static subnet; do $(PURE) go test -count=1 -v -run 'TestNamespaces' ./pkg/gossip -processes 100 -way $$way; done

lint: go sysroot bin/golangci-lint ## run golangci-lint
	$(DQLITE)
	bin/golangci-lint run

bin/golangci-lint: test/lint/go.mod test/lint/go.sum
	echo "make lint: compiling golangci-lint from its pinned source (about 2 minutes)" >&2
	$(PURE) go -C test/lint build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

sysroot:
	test/need.sh build
	if [ -e $(SYSROOT) ] || [ $$(id -u) = 0 ]; then
		images/sysroot.sh $(ARCH) $(SYSROOT)
	else
		echo "make: unpacking the sysroot needs root, once; asking sudo" >&2
		sudo images/sysroot.sh $(ARCH) $(SYSROOT)
	fi

go:
	if ! command -v go >/dev/null; then
		echo "make: go is missing. Go 1.26 or newer is the one thing to install by hand: https://go.dev/dl/" >&2
		exit 69
	fi
	version=$$(go env GOVERSION)
	if [ "$$(printf '%s\n' go1.26 "$$version" | sort -V | head -n 1)" != go1.26 ]; then
		echo "make: this is $$version; muster needs Go 1.26 or newer: https://go.dev/dl/" >&2
		exit 69
	fi

root:
	if [ $$(id -u) != 0 ]; then
		echo "make: test servers are made of namespaces, mounts and cgroups, which only root can make; run: sudo make $(MAKECMDGOALS)" >&2
		exit 77
	fi
