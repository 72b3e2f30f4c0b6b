"""A threaded HTTP server of the standard library, that knows nothing of swaps, at the port that PORT names."""
import http.server
import os
import sys

GENERATION = os.environ["ENTRYPOINT_GENERATION"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = sys.argv[1]

    def do_GET(self):
        body = ("v%s %d\n" % (GENERATION, os.getpid())).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
