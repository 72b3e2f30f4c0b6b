"""gRPC without stubs: as "server PORT" it echoes a stream of bytes behind its generation; as "client ADDRESS" it passes lines of its
standard input to one stream and prints what comes back, and a line "call" makes a call of its own."""
import os
import queue
import sys
from concurrent import futures

import grpc


def serve(port):
    generation = os.environ["ENTRYPOINT_GENERATION"].encode()

    def echo(stream, context):
        for message in stream:
            yield b"v" + generation + b" " + message

    handler = grpc.method_handlers_generic_handler("test.Echo", {"Talk": grpc.stream_stream_rpc_method_handler(echo)})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    server.wait_for_termination()


def ask(address):
    with grpc.insecure_channel(address) as channel:
        talk = channel.stream_stream("/test.Echo/Talk")
        lines = queue.Queue()
        answers = talk(iter(lines.get, None))
        for line in sys.stdin:
            line = line.strip().encode()
            if line == b"call":
                print(next(talk(iter([b"alone"]))).decode(), flush=True)
                continue
            lines.put(line)
            print(next(answers).decode(), flush=True)
        lines.put(None)
        for _ in answers:
            pass
        print(answers.code(), flush=True)


{"server": serve, "client": ask}[sys.argv[1]](sys.argv[2])
