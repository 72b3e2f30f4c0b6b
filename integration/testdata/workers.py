"""A threaded HTTP server, as plain as they come: it binds the port of its argument, or takes the socket that it inherits."""
import http.server
import os
import signal
import socket
import socketserver
import sys
import threading

VERSION = open("/app/version").read().strip()
WORKER = os.environ["ENTRYPOINT_WORKER"]

if VERSION == "broken" and WORKER == "3":
    sys.exit("this version has no fourth worker")
if VERSION == "hangs" and WORKER == "2":
    signal.pause()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/slow"):
            threading.Event().wait(0.06)
        body = f"{VERSION} {os.getpid()} {os.environ['ENTRYPOINT_GENERATION']} {WORKER}\n".encode()
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
    request_queue_size = 128


if "LISTEN_FDS" in os.environ:
    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=3)
else:
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.02)
server.server_close()
