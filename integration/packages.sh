#!/bin/bash
# Installs what the integration tests need, or with the word demo only what the demo
# needs, with the word bench the yardsticks, with the word kubernetes what a node needs: as root on Debian by itself, elsewhere
# it says what is missing. Prints nothing when all is there. No service is started, also
# not by a package that comes with one.
set -euo pipefail

declare -A package=(
	[dockerd]=docker.io [docker]=docker.io [runc]=runc [ip]=iproute2 [curl]=curl [git]=git [unshare]=util-linux [nsenter]=util-linux
	[tar]=tar [tini]=tini [dumb-init]=dumb-init [gunicorn]=gunicorn [node]=nodejs [perl]=perl
	[start_server]=libserver-starter-perl [make]=make [gcc]=gcc [busybox]=busybox-static [rsync]=rsync [objcopy]=binutils
	[nginx]=nginx [haproxy]=haproxy [apache2]=apache2-bin [lighttpd]=lighttpd [caddy]=caddy [socat]=socat
	[redis-server]=redis-server [memcached]=memcached [uvicorn]=uvicorn [uwsgi]="uwsgi-core uwsgi-plugin-python3"
	[javac]=default-jdk-headless [puma]=puma [unicorn]=unicorn [php]=php-cli [starman]=starman [erl]=erlang-base [tclsh]=tcl
	[qemu-aarch64]=qemu-user [minisign]=minisign [promtool]=prometheus [chromium]=chromium [docker-compose]=docker-compose [rsyslogd]=rsyslog
	[zsh]=zsh [fish]=fish [mandoc]=mandoc [groff]=groff-base
)
# What is a library and no program: a file of it, or for Python a module.
declare -A header=([event2/http.h]=libevent-dev [microhttpd.h]=libmicrohttpd-dev [stdlib.h]=libc6-dev) # the race detector needs the last one
declare -A module=(
	[systemd.daemon]=python3-systemd [tornado]=python3-tornado [aiohttp]=python3-aiohttp
	[yaml]=python3-yaml [waitress]=python3-waitress [twisted.web]=python3-twisted [grpc]=python3-grpcio [prometheus_client]=python3-prometheus-client
)

programs=("${!package[@]}")
[ "${1:-}" = demo ] && programs=(dockerd docker runc unshare tar)
if [ "${1:-}" = bench ]; then
	package+=([catatonit]=catatonit [/usr/lib/nginx/modules/ngx_stream_module.so]=libnginx-mod-stream)
	programs=(tini dumb-init catatonit haproxy nginx /usr/lib/nginx/modules/ngx_stream_module.so perl make unshare nsenter)
fi
if [ "${1:-}" = kubernetes ]; then
	package+=([containerd]=containerd [etcd]=etcd-server [iptables]=iptables [ip]=iproute2 [openssl]=openssl [flock]=util-linux [setpriv]=util-linux
		[/usr/lib/cni/bridge]=containernetworking-plugins)
	programs=(containerd runc etcd iptables ip openssl unshare nsenter flock setpriv tar busybox make /usr/lib/cni/bridge)
fi

missing=()
for program in "${programs[@]}"; do
	command -v "$program" >/dev/null || [ -f "$program" ] || missing+=(${package[$program]})
done
if [ -z "${1:-}" ]; then
	for file in "${!header[@]}"; do
		[ -e "/usr/include/$file" ] || missing+=("${header[$file]}")
	done
	for name in "${!module[@]}"; do
		/usr/bin/python3 -c "import $name" 2>/dev/null || missing+=("${module[$name]}")
	done
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing for the ${1:-tests}, and to be installed by hand here (root on Debian has it done): ${missing[*]}" >&2
	exit 3
fi
echo "installing: ${missing[*]}"
log=$(mktemp)
policy=
trap 'rm -f "$log" $policy' EXIT
if [ ! -e /usr/sbin/policy-rc.d ]; then # the answer 101 keeps packages from starting their services
	policy=/usr/sbin/policy-rc.d
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
{
	apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
} >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
