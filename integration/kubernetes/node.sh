#!/bin/bash
# A complete Kubernetes node on this machine: etcd, API server, controller manager, scheduler, kubelet, kube-proxy and
# containerd, from Debian packages and the Go module proxy, without systemd and without pulling an image.
#
#   node.sh build               builds the node's programs once, into the cache
#   node.sh up [PID]            starts the node, and ends it when the process PID ends, at the latest
#   node.sh down                ends it and takes away what it left; nothing to do is fine
#   node.sh pid                 prints the node's first process, as this machine sees it; fails if no node runs
#   node.sh programs            prints the directory of its programs
#   node.sh image NAME DIR JSON makes an image of a directory, with that config, and gives it to the node
#   node.sh kubectl ARG…        kubectl inside
#   node.sh ctr ARG…            containerd's client inside
#   node.sh run CMD…            any command inside
#   node.sh logs [LINES]        the ends of all logs
#
# All of it runs in one pid, one mount and one network namespace: routes, packet rules, mounts and sysctls of the machine
# stay as they are, the node's files are on a tmpfs, and to kill the first process is to end everything. Its cgroups are
# below /entrypoint-k8s. One machine has one node at a time; a lock says so. Needs root.
set -euo pipefail

version=${K8S_VERSION:-1.34.4}
programs=(kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl)
here=$(dirname "$(readlink -f "$0")")
state=/run/entrypoint-k8s
logs=$state/log
files=$state/files # a tmpfs, seen inside only
bundle="${XDG_CACHE_HOME:-$HOME/.cache}/entrypoint-k8s/$version-$(go env GOVERSION)"
containerd=$files/containerd.sock
address=10.97.0.1 pods=10.98.0.0/24 services=10.99.0.0/24

fail() { echo "node.sh: $*" >&2; exit 1; }

# lock takes the node's lock for this process and what inherits descriptor 9 from it.
lock() { mkdir -p "$state"; exec 9>"$state.lock"; flock "$@" 9; }

# ---- the programs ----

build() {
	[ ! -x "$bundle/kubectl" ] || return 0
	mkdir -p "${bundle%/*}"
	exec 8>"${bundle%/*}/lock"
	flock 8 # another build may be under way: its result is ours
	[ ! -x "$bundle/kubectl" ] || return 0
	rm -rf "${bundle%/*}"/build-* # of a build that was killed
	aside=$(mktemp -d "${bundle%/*}/build-XXXXXX")
	trap 'rm -rf "$aside"' EXIT
	echo "building Kubernetes $version: about ten minutes of CPU time"
	wrapper "$aside"
	mkdir "$aside/bin"
	(cd "$aside" && CGO_ENABLED=0 GOWORK=off go build -mod=mod -trimpath -ldflags "$(stamps)" -o bin/ "${programs[@]/#/k8s.io/kubernetes/cmd/}") ||
		fail "cannot build Kubernetes $version"
	mv -T "$aside/bin" "$bundle"
}

# wrapper is a module that requires Kubernetes. Its own go.mod replaces k8s.io/api and others by folders that only its
# repository has; they are published as modules of their own, with 0 in place of 1.
wrapper() {
	local theirs
	theirs=$(cd / && go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
	[ -r "$theirs" ] || fail "cannot download the module k8s.io/kubernetes v$version"
	{
		echo "module node"
		grep -E '^(go|godebug) ' "$theirs"
		echo "require k8s.io/kubernetes v$version"
		sed -nE "s,^\s*(k8s.io/\S+) => ./staging/.*,replace \1 => \1 v0.${version#*.},p" "$theirs"
	} >"$1/go.mod"
}

# stamps sets the version: programs that do not know theirs refuse to work together.
stamps() {
	local package minor=${version#*.}
	printf -- '-s -w'
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		printf -- ' -X %s.%s' "$package" "gitVersion=v$version" "$package" "gitMajor=${version%%.*}" "$package" "gitMinor=${minor%%.*}" \
			"$package" "gitTreeState=clean" "$package" "buildDate=2026-01-01T00:00:00Z"
	done
}

# ---- the node, from outside ----

pid() {
	local parent child
	parent=$(cat "$state/pid" 2>/dev/null) && child=$(cat "/proc/$parent/task/$parent/children" 2>/dev/null) && [ -n "$child" ] && echo "${child% }"
}

inside() {
	local node
	node=$(pid) || fail "no node runs; start one by: node.sh up"
	exec nsenter -t "$node" -m -n -p -- env PATH="$bundle:$PATH" KUBECONFIG="$state/kubeconfig" HOME="$files" "$@"
}

up() {
	local owner=${1:-} begun=$SECONDS
	[ "$(id -u)" = 0 ] || fail "a node needs root"
	build
	(lock -n) || fail "a node runs already; end it by: node.sh down"
	setsid bash "$here/node.sh" serve "$owner" >/dev/null 2>&1 </dev/null 8>&- &
	local serving=$!
	until answers; do
		if ! kill -0 "$serving" 2>/dev/null || [ $((SECONDS - begun)) -ge 120 ]; then
			logs 50 >&2
			kill "$serving" 2>/dev/null || true
			fail "the node is not ready after $((SECONDS - begun)) s"
		fi
		sleep 0.3
	done
	CGO_ENABLED=0 go -C "$here" build -trimpath -ldflags '-s -w' -o "$state/pause/pause" ./pause
	image localhost/pause:local "$state/pause" '{"Entrypoint":["/pause"]}'
}

# answers tells whether pods can be made.
answers() {
	[ -s "$state/kubeconfig" ] && (inside kubectl wait --for=condition=Ready --timeout=1s node/node) >/dev/null 2>&1 &&
		(inside kubectl get serviceaccount default) >/dev/null 2>&1
}

# serve lives outside for as long as the node does: it ends the node with its owner, and cleans up after it.
serve() {
	lock -n || exit 1
	sweep
	mkdir -p "$logs" "$state/pause"
	credentials
	groups_for_pods
	setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private -- \
		bash "$here/node.sh" boot >"$logs/node.log" 2>&1 &
	local node=$! ending=
	echo "$node" >"$state/pid"
	trap 'ending=yes' TERM
	while [ -z "$ending" ] && kill -0 "$node" 2>/dev/null && { [ -z "$1" ] || kill -0 "$1" 2>/dev/null; }; do sleep 0.5; done
	kill -9 "$node" 2>/dev/null || true
	wait || true
	sweep
}

down() {
	local node
	node=$(cat "$state/pid" 2>/dev/null) && ! (lock -n) && kill -9 "$node" 2>/dev/null
	(lock -w 30) || fail "the node does not end"
	lock -w 30
	sweep
	rm -rf "$state" "$state.lock"
}

# sweep takes away what a node left on the machine. The logs stay.
sweep() {
	local dir try
	for dir in /sys/fs/cgroup/entrypoint-k8s /sys/fs/cgroup/*/entrypoint-k8s; do
		for try in {1..50}; do
			[ -d "$dir" ] || break
			[ "$try" = 1 ] || sleep 0.1 # what was killed may not have left yet
			find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
		done
	done
	[ ! -e "$state/made" ] || while read -r dir; do rmdir "$dir" 2>/dev/null || true; done <"$state/made"
	rm -rf "$state"/{pid,made,kubeconfig,tokens,key,pause,files}
}

credentials() {
	local token
	token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	umask 077
	echo "$token,admin,1,system:masters" >"$state/tokens"
	openssl genrsa -out "$state/key" 2048 2>/dev/null
	cat >"$state/kubeconfig" <<-END
		apiVersion: v1
		kind: Config
		clusters: [{name: node, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
		users: [{name: admin, user: {token: $token}}]
		contexts: [{name: node, context: {cluster: node, user: admin}}]
		current-context: node
	END
	umask 022
}

# groups_for_pods makes the cgroup below which the kubelet works, in every hierarchy that there is.
groups_for_pods() {
	local dir file
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		mkdir -p /sys/fs/cgroup/entrypoint-k8s
		return
	fi
	for dir in /sys/fs/cgroup/*/; do
		mkdir -p "$dir/entrypoint-k8s"
		for file in cpuset.cpus cpuset.mems; do # empty at first, and nothing may enter then
			[ ! -e "$dir/$file" ] || cat "$dir/$file" >"$dir/entrypoint-k8s/$file"
		done
	done
}

# image writes the archive that `docker save` would, and waits until the kubelet's side of containerd knows it.
image() {
	local name=$1 dir=$2 config=$3 work layer sum try
	work=$(mktemp -d)
	layer=$work/layer.tar
	tar --sort=name --numeric-owner --mtime=@0 -C "$dir" -cf "$layer" .
	printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
		"$(go env GOARCH)" "$config" "$(sha256sum <"$layer" | cut -d' ' -f1)" >"$work/config"
	sum=$(sha256sum <"$work/config" | cut -d' ' -f1)
	mv "$work/config" "$work/$sum.json"
	printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$sum" "$name" >"$work/manifest.json"
	tar -C "$work" -c manifest.json "$sum.json" layer.tar | (ctr images import - >/dev/null) || { rm -rf "$work"; fail "containerd does not take the image $name"; }
	rm -rf "$work"
	for try in {1..100}; do
		(ctr images ls "name==$name" | grep -q io.cri-containerd.image=managed) && return
		sleep 0.05
	done
	fail "the kubelet is not told of the image $name"
}

ctr() { inside ctr --address "$containerd" --namespace k8s.io "$@"; }

logs() {
	local file
	for file in "$logs"/*.log; do
		[ -s "$file" ] || continue
		echo "== the end of ${file##*/} =="
		tail -n "$1" "$file"
	done
}

# ---- the node, from inside ----

# boot is the node's first process. It ends when a component does.
boot() {
	exec 9>&- # the lock belongs to serve, which outlives us
	private_folders
	private_sysctls
	network
	configuration
	ulimit -n "$(ulimit -Hn)"
	export PATH="$bundle:$PATH" KUBECONFIG="$state/kubeconfig" HOME="$files"
	declare -A name
	component containerd --config "$files/containerd.toml"
	component etcd --data-dir "$files/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
	component kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$address" --secure-port=6443 \
		--cert-dir="$files/pki" --token-auth-file="$state/tokens" --authorization-mode=RBAC --allow-privileged=true \
		--feature-gates=SizeBasedListCostEstimate=false --service-cluster-ip-range="$services" --service-account-issuer=https://kubernetes.default.svc \
		--service-account-key-file="$state/key" --service-account-signing-key-file="$state/key" --kubelet-preferred-address-types=InternalIP
	until kubectl get --raw=/readyz >/dev/null 2>&1; do sleep 0.2; done
	component kube-controller-manager --kubeconfig="$state/kubeconfig" --leader-elect=false \
		--service-account-private-key-file="$state/key" --root-ca-file="$files/pki/apiserver.crt"
	component kube-scheduler --kubeconfig="$state/kubeconfig" --leader-elect=false
	component kube-proxy --config="$files/proxy.yaml"
	# A kubelet may die of its own race at start (a map of its capacities read and written at once): as under systemd it begins again.
	component again kubelet --config="$files/kubelet.yaml" --kubeconfig="$state/kubeconfig" --root-dir="$files/kubelet" \
		--hostname-override=node --node-ip="$address"
	local dead code=0
	wait -n -p dead || code=$?
	echo "${name[$dead]} has ended with $code: the node ends"
}

component() {
	local log=$1
	[ "$log" != again ] || log=$2
	"$@" >"$logs/$log.log" 2>&1 &
	name[$!]=$log
}

# again runs a program up to three times, until it ends without an error.
again() {
	local try code
	for try in 1 2 3; do
		code=0
		"$@" || code=$?
		echo "run $try of $1 has ended with $code"
		[ "$code" != 0 ] || break
	done
	return "$code"
}

# private_folders are those whose place is fixed in one of the programs.
private_folders() {
	local dir
	mount --make-rshared / # volumes of pods have to reach containerd
	for dir in "$files" /run/containerd /var/lib/cni /var/lib/kubelet /var/log/containers; do
		[ -d "$dir" ] || { mkdir -p "$dir"; echo "$dir" >>"$state/made"; }
		mount -t tmpfs -o mode=755 node "$dir"
	done
}

# private_sysctls puts plain files over the machine's sysctls that a kubelet insists on setting.
private_sysctls() {
	local key
	mkdir "$files/sysctl"
	for key in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
		echo "${key#*=}" >"$files/sysctl/$(basename "${key%=*}")"
		[ ! -e "/proc/sys/${key%=*}" ] || mount --bind "$files/sysctl/$(basename "${key%=*}")" "/proc/sys/${key%=*}"
	done
}

# network: there is nothing outside; a default route is there because the programs look for one.
network() {
	ip link set lo up
	ip link add outside type bridge
	ip addr add "$address/24" dev outside
	ip link set outside up
	ip route add default dev outside
}

configuration() {
	mkdir -p "$files/cni"
	cat >"$files/containerd.toml" <<-END
		version = 2
		root = "$files/containerd"
		state = "/run/containerd"
		[grpc]
		  address = "$containerd"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "localhost/pause:local"
		  netns_mounts_under_state_dir = true
		  restrict_oom_score_adj = true      # a lower one needs a capability that root may lack
		  disable_hugetlb_controller = true
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      SystemdCgroup = false
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		    conf_dir = "$files/cni"
	END
	cat >"$files/cni/pods.conflist" <<-END
		{"cniVersion": "0.4.0", "name": "pods", "plugins": [
		 {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
		  "ipam": {"type": "host-local", "dataDir": "$files/ipam", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		 {"type": "portmap", "capabilities": {"portMappings": true}}]}
	END
	cat >"$files/kubelet.yaml" <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
		authorization: {mode: AlwaysAllow}
		containerRuntimeEndpoint: unix://$containerd
		cgroupDriver: cgroupfs
		cgroupRoot: /entrypoint-k8s
		failCgroupV1: false
		failSwapOn: false
		oomScoreAdj: 0
		resolvConf: ""
		podLogsDir: $files/pods
		volumePluginDir: $files/plugins
		syncFrequency: 10s
		nodeStatusUpdateFrequency: 2s
		evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
		imageGCHighThresholdPercent: 100
		imageGCLowThresholdPercent: 99
	END
	cat >"$files/proxy.yaml" <<-END
		apiVersion: kubeproxy.config.k8s.io/v1alpha1
		kind: KubeProxyConfiguration
		mode: iptables
		hostnameOverride: node
		clientConnection: {kubeconfig: $state/kubeconfig}
		conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
	END
}

main() {
	case ${1:-} in
	build | up | down | pid | image | ctr | serve | boot) "$@" ;;
	logs) logs "${2:-50}" ;;
	programs) echo "$bundle" ;;
	kubectl) inside "$@" ;;
	run) shift && inside "$@" ;;
	*) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
	esac
}

# Read as one, because this file may be another one when a build has ended.
{ main "$@"; exit; }
