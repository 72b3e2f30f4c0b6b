"""A Tornado server with two processes on one socket, bound before the fork."""
import asyncio
import os
import sys

import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.process
import tornado.web

TEXT = f"g{os.environ['ENTRYPOINT_GENERATION']} served\n"


class Answer(tornado.web.RequestHandler):
    def get(self):
        self.write(TEXT)


class Slow(tornado.web.RequestHandler):
    async def get(self):
        await asyncio.sleep(0.2)
        self.write(TEXT)


async def serve(sockets):
    app = tornado.web.Application([("/", Answer), ("/slow", Slow)])
    tornado.httpserver.HTTPServer(app).add_sockets(sockets)
    await asyncio.Event().wait()


listeners = tornado.netutil.bind_sockets(int(sys.argv[1]), "127.0.0.1")
tornado.process.fork_processes(2)
asyncio.run(serve(listeners))
