#!/bin/sh
# Answers one HTTP request on its standard streams.
read -r method path rest
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
case $path in /slow*) sleep 0.2 ;; esac
body="g$ENTRYPOINT_GENERATION served"
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' ${#body} "$body"
