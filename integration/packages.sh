#!/bin/bash
# Installs what the integration tests need, or with the word demo only what the demo
# needs: as root on Debian by itself, elsewhere it says what is missing. Prints nothing
# when all is there. No service is started.
set -euo pipefail

declare -A package=(
	[dockerd]=docker.io [docker]=docker.io [runc]=runc [unshare]=util-linux [nsenter]=util-linux
	[tar]=tar [tini]=tini [dumb-init]=dumb-init [gunicorn]=gunicorn [node]=nodejs [perl]=perl
	[start_server]=libserver-starter-perl [make]=make [gcc]=gcc [busybox]=busybox-static
)

programs=("${!package[@]}")
[ "${1:-}" = demo ] && programs=(dockerd docker runc unshare tar)

missing=()
for program in "${programs[@]}"; do
	command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
if [ "${1:-}" != demo ]; then
	[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev) # the race detector links with the C library
	/usr/bin/python3 -c 'import systemd.daemon' 2>/dev/null || missing+=(python3-systemd)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing for the ${1:-tests}, and to be installed by hand here (root on Debian has it done): ${missing[*]}" >&2
	exit 3
fi
echo "installing: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
	apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
} >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
