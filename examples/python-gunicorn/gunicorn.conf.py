"""Gunicorn takes leave of its clients by two hooks; the app stays as it is."""
import os
import signal
import socket

bind = "0.0.0.0:" + os.environ.get("PORT", "8080")
workers = 2
worker_class = "gthread"  # the sync worker has no keep-alive
threads = 8
keepalive = 75
graceful_timeout = 25  # less than ENTRYPOINT_DRAIN_TIMEOUT; more than the linger and the longest request

LINGER = 1.0  # so long clients have for one more request, whose answer tells them
leaving = False  # of this worker


def when_ready(server):
    """Gunicorn sets this before it listens, where it does not reach the connections of a socket that the init holds."""
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def post_worker_init(worker):
    """TERM ends a worker at once, with its idle connections: have it linger before."""

    def leave(signum, frame):
        global leaving
        if not leaving:
            leaving = True
            signal.setitimer(signal.ITIMER_REAL, LINGER)

    def stop(signum, frame):
        worker.alive = False

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGALRM, stop)


def pre_request(worker, request):
    if leaving:
        request.force_close()  # answers Connection: close; the app cannot, gunicorn drops that header
