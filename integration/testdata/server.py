"""A threaded HTTP server on the sockets and the notify socket of libsystemd."""
import http.server
import signal
import socket
import socketserver
import threading

from systemd import daemon

VERSION = open("/app/version").read().strip()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/slow"):
            threading.Event().wait(0.06)
        body = (VERSION + " served\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = False
    block_on_close = True


(fd,) = daemon.listen_fds()
server = Server(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=fd)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
daemon.notify("READY=1")
server.serve_forever(poll_interval=0.02)
server.server_close()
