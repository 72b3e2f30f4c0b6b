# Registers its socket in an epoll set before it binds the address in its first argument, as some event loops do. Answers with what
# is in /app/version.
import os
import select
import socket
import sys

host, port = sys.argv[1].rsplit(":", 1)
text = "%s %d 0\n" % (open("/app/version").read(), os.getpid())
answer = ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)).encode()

server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
poll = select.epoll()
poll.register(server.fileno(), select.EPOLLIN)
server.bind((host, int(port)))
server.listen(16)
poll.modify(server.fileno(), select.EPOLLIN)
while True:
    for _ in poll.poll():
        client, _ = server.accept()
        client.settimeout(1)
        try:
            client.recv(4096)
            client.sendall(answer)
        except OSError:
            pass
        client.close()
