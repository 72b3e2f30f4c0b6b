#!/bin/sh
# A CGI program.
[ "$QUERY_STRING" = slow ] && sleep 0.2
body="g$ENTRYPOINT_GENERATION served"
printf 'Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body"
