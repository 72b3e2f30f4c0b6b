#!/bin/bash
# The tests on a Kubernetes node: installs what is missing when root on Debian, builds the node's programs unless they are in
# the cache, runs the tests, and takes away what they left. The log goes to test-logs/kubernetes.json. With the word tally the
# last line counts it.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
log=test-logs/kubernetes
failed=0
node=(bash integration/kubernetes/node.sh)

say() { echo "== $* =="; }
fail() { echo "make test-k8s: $*" >&2; failed=1; }

mkdir -p test-logs
rm -f "$log".*

say "kubernetes: packages and programs"
begun=$SECONDS
bash integration/packages.sh kubernetes || fail "packages are missing"
timeout 60m "${node[@]}" build || fail "the node's programs cannot be built"
make -s build || fail "the build failed"
echo "ready after $((SECONDS - begun)) s"

say "kubernetes: tests"
begun=$SECONDS
borrowed=$("${node[@]}" pid) || borrowed=
if [ "$failed" = 0 ]; then
	ENTRYPOINT_BINARY="$PWD/bin/entrypoint" go test -json -count=1 -tags kubernetes -parallel 3 -timeout 15m ./integration/kubernetes >"$log.json" 2>"$log.err" ||
		{ fail "see $log.json" && "${node[@]}" logs 50 >&2; }
	go test -json -count=1 -tags integration -run '^TestDeploy(Fields|Kustomize)$' ./integration >>"$log.json" 2>>"$log.err" || fail "see $log.json"
fi
[ -n "$borrowed" ] || "${node[@]}" down || fail "the node cannot be taken down"
echo "ended after $((SECONDS - begun)) s"

if [ "${1:-}" = tally ]; then
	cat "$log.err" >&2
	go run ./integration/tally -required kubernetes -failed "$failed" "$log.json"
	failed=$?
fi
exit "$failed"
