#!/bin/bash
# gofmt, go vet, staticcheck, govulncheck where its database can be had, a build for every architecture that must compile, and two builds
# that must be the same. The tools are run at a fixed version without being dependencies of the module.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

fail() { echo "lint: $1" >&2; failed=1; }

unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || fail "gofmt wants to change: $unformatted"
go vet ./... || fail "go vet"
go vet -tags integration,kubernetes ./... || fail "go vet -tags integration,kubernetes"
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags integration,kubernetes ./... || fail "staticcheck"
for arch in amd64 arm64 arm riscv64 s390x ppc64le; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOARM=7 go build ./... || fail "build for $arch"
done
CGO_ENABLED=0 GOOS=linux GOARCH=arm go vet ./... || fail "go vet for arm (32 bits)"
CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go vet ./... || fail "go vet for arm64"
for os in darwin windows; do # the plugin runs where people sit
	CGO_ENABLED=0 GOOS=$os GOARCH=arm64 go build -o /dev/null ./cmd/kubectl-hotswap || fail "build of the plugin for $os"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is known to be vulnerable and is called. VULNDB is another place of the database, a copy of it for instance. What a newer Go mends is
# told and no failure of ours: the machine chooses its Go.
if GOBIN=$work timeout 3m go install golang.org/x/vuln/cmd/govulncheck@v1.8.0 2>"$work/vuln"; then
	timeout 5m "$work/govulncheck" ${VULNDB:+-db "$VULNDB"} ./... >"$work/vuln" 2>&1
	code=$?
else
	code=1
fi
case $code in
0) ;;
3)
	cat "$work/vuln" >&2
	! grep -q '^ *Module: ' "$work/vuln" || fail "govulncheck: a module is vulnerable"
	;;
*) echo "lint: known vulnerabilities were not looked up: $(tail -n 1 "$work/vuln")" >&2 ;;
esac

# The same bytes, whoever builds them and wherever: here, with what was compiled before, and elsewhere with nothing of it.
here=$PWD
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
mkdir "$work/elsewhere" && tar -c --exclude=./.git --exclude=./bin --exclude=./test-logs . | tar -x -C "$work/elsewhere"
make -s build BIN="$work/one" VERSION=lint >/dev/null || fail "build"
(cd "$work/elsewhere" && GOCACHE="$work/cache" make -s build BIN="$work/two" VERSION=lint >/dev/null) || fail "build elsewhere"
for name in entrypoint kubectl-hotswap; do
	cmp "$work/one/$name" "$work/two/$name" || fail "$name: two builds differ ($here, and a copy of it)"
done
exit $failed
