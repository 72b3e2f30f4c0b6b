"""An ASGI app, and a uvicorn that takes leave of its clients."""
import asyncio
import os

import uvicorn

BODY = b"g%s served\n" % os.environb.get(b"ENTRYPOINT_GENERATION", b"0")
LINGER = 1.0  # so long clients have for one more request, whose answer tells them


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
    await send({"type": "http.response.body", "body": BODY})


class Leave:
    """ASGI middleware: once it leaves, every answer says Connection: close."""

    def __init__(self, app):
        self.app = app
        self.leaving = False

    async def __call__(self, scope, receive, send):
        async def tell(message):
            if self.leaving and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


class Server(uvicorn.Server):
    """Serves on for the linger before it does what uvicorn does when it is told to stop."""

    def handle_exit(self, sig, frame):
        if not leave.leaving:
            leave.leaving = True
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, LINGER, super().handle_exit, sig, frame)


leave = Leave(app)
port = int(os.environ.get("PORT", "8080"))
Server(uvicorn.Config(leave, host="0.0.0.0", port=port, lifespan="off", log_level="warning", timeout_keep_alive=75)).run()
