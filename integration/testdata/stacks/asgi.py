"""An ASGI app."""
import asyncio
import os

BODY = b"g%s served\n" % os.environb[b"ENTRYPOINT_GENERATION"]


async def application(scope, receive, send):
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    headers = [(b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
