"""A WebSocket echo by aiohttp, that knows nothing of swaps: each word comes back behind the generation."""
import os

from aiohttp import web

GENERATION = os.environ["ENTRYPOINT_GENERATION"]


async def echo(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str("v%s %s" % (GENERATION, message.data))
    return ws


app = web.Application()
app.add_routes([web.get("/ws", echo), web.get("/", lambda request: web.Response(text="v%s\n" % GENERATION))])
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, handle_signals=False)
