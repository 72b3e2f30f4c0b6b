"""An aiohttp server."""
import asyncio
import os
import sys

from aiohttp import web

TEXT = f"g{os.environ['ENTRYPOINT_GENERATION']} served\n"


async def answer(request):
    return web.Response(text=TEXT)


async def slow(request):
    await asyncio.sleep(0.2)
    return web.Response(text=TEXT)


app = web.Application()
app.add_routes([web.get("/", answer), web.get("/slow", slow)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
