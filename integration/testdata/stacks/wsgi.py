"""A WSGI app."""
import os
import time

BODY = b"g%s served\n" % os.environb[b"ENTRYPOINT_GENERATION"]


def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    start_response("200 OK", [("Content-Length", str(len(BODY)))])
    return [BODY]
