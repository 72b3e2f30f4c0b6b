# Answers every request on the socket at descriptor 3 with the code in /app/code, read once at start.
import http.server
import socket

code = int(open("/app/code").read())


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(code).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("", 0), Answer, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
