#!/bin/sh
# nginx closes its idle connections in the moment it is told to quit. So TERM first makes a file, which has every answer say
# Connection: close; nginx is told when the clients have had time for one more request.
linger=1
home=/tmp/nginx-${ENTRYPOINT_GENERATION:-0}
mkdir -p "$home" && cd "$home" || exit 1
rm -f leaving

nginx -e stderr -p "$home" -c "${1:-/app/nginx.conf}" &
nginx=$!
trap 'touch leaving; sleep $linger; kill -QUIT $nginx' TERM
wait $nginx
wait $nginx # the first wait ends with the signal
