#!/bin/bash
# gofmt, go vet, staticcheck, and a build for every architecture that must compile.
# staticcheck is run at a fixed version without being a dependency of the module.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

fail() { echo "lint: $1" >&2; failed=1; }

unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || fail "gofmt wants to change: $unformatted"
go vet ./... || fail "go vet"
go vet -tags integration ./... && go vet -tags integration,examples ./integration || fail "go vet -tags integration"
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags integration ./... || fail "staticcheck"
for arch in arm64 arm riscv64 s390x ppc64le; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build ./... || fail "build for $arch"
done
CGO_ENABLED=0 GOOS=linux GOARCH=arm go vet ./... || fail "go vet for arm (32 bits)"
CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go vet ./... || fail "go vet for arm64"
exit $failed
