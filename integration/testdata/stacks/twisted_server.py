"""A Twisted web server."""
import os
import sys

from twisted.internet import reactor
from twisted.web import resource, server

BODY = b"g%s served\n" % os.environb[b"ENTRYPOINT_GENERATION"]


class Answer(resource.Resource):
    isLeaf = True

    def render_GET(self, request):
        if request.path != b"/slow":
            return BODY
        reactor.callLater(0.2, self.finish, request)
        return server.NOT_DONE_YET

    def finish(self, request):
        request.write(BODY)
        request.finish()


reactor.listenTCP(int(sys.argv[1]), server.Site(Answer()), interface="127.0.0.1")
reactor.run()
