"""A WSGI app, which knows nothing of swaps."""
import os

BODY = b"g%s served\n" % os.environb.get(b"ENTRYPOINT_GENERATION", b"0")


def application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]
