"""A judge's server as a program: python stand_in_judge.py --port PORT …, and what may be wrong with it."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPLY = json.dumps({"choices": [{"message": {"content": '{"overall": 7}'}, "finish_reason": "stop"}]}).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--binds-after", type=float, default=0.0, help="seconds before it takes its port")
    parser.add_argument("--healthy-after", type=float, default=0.0, help="seconds before it says that it is up")
    parser.add_argument("--answers-after", type=float, default=0.0, help="seconds that it thinks")
    parser.add_argument("--dies-at", type=int, default=0, help="the request that it ends at, in so many starts:")
    parser.add_argument("--deaths", type=int, default=1)
    parser.add_argument("--poison", default="", help="a word in a request that it ends at, always")
    parser.add_argument("--folder", type=Path, required=True, help="where it notes its starts")
    options = parser.parse_args()
    start = len(list(options.folder.glob("start-*")))
    child = subprocess.Popen(["sleep", "600"])  # as vLLM's engine: a process of its own, which holds the GPU
    note = options.folder / f".start-{start}"
    note.write_text(json.dumps({"pids": [os.getpid(), child.pid], **facts(options)}))
    note.rename(options.folder / note.name.lstrip("."))
    time.sleep(options.binds_after)
    begin, asked = time.monotonic(), itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            up = self.path == "/health" and time.monotonic() - begin >= options.healthy_after
            self.answer(200 if up else 503, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            number = next(asked)
            (options.folder / f"asked-{start}-{number}").touch()
            deadly = bool(options.poison) and options.poison in body
            if deadly or (number == options.dies_at and start < options.deaths):
                print("the engine is out of luck", flush=True)
                os._exit(3)
            time.sleep(options.answers_after)
            self.answer(200, REPLY)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    print("loading weights", flush=True)
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


def facts(options: argparse.Namespace) -> dict[str, object]:
    return {"port": options.port, "model": options.model, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


if __name__ == "__main__":
    main()
