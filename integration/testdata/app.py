"""A WSGI app for gunicorn."""
import time

VERSION = open("/app/version").read().strip()


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.06)
    body = (VERSION + " served\n").encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
