"""A chat server on this machine that answers by script and keeps what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from slurm_bench.scorers.base import ScoreRequest
from slurm_bench.scorers.server.scorer import OpenAIScorer


def says(content, refusal=None, logprobs=None, finish="stop", message=None, **fields) -> bytes:
    """The body of a chat completion; `message` and `fields` add to the message and to the body."""
    message = {"role": "assistant", "content": content, "refusal": refusal} | (message or {})
    choice = {"message": message, "logprobs": logprobs, "finish_reason": finish}
    return json.dumps({"choices": [choice]} | fields).encode()


KEY = "sk-very-secret-key"


def key_set(monkeypatch) -> None:
    """The key is in the environment, and no proxy stands between."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)


@dataclass
class Reply:
    body: bytes = says('{"overall": 7}')
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None


@dataclass
class Server:
    """Gives `replies` in order, and the last one for ever; or to each request what `script` says."""

    replies: list[Reply]
    asked: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    script: Callable[[dict], Reply] | None = None
    url: str = ""


@contextmanager
def serve(*replies: Reply, port: int = 0) -> Iterator[Server]:
    server = Server(list(replies))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with server.lock:
                server.asked.append(body)
                server.headers.append(dict(self.headers))
                server.paths.append(self.path)
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                reply = server.script(body) if server.script else reply
            reply.before()
            try:
                self.send_response(reply.status)
                for name, value in ({"content-length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
            except ConnectionError:
                pass

        do_GET = do_POST

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def request(number=0, **changes):
    fields = {
        "id": f"sample-{number}",
        "category": "physical",
        "instruction": "Let go of the ball",
        "sources": (Image.new("RGB", (40, 20), "red"),),
        "edited": Image.new("RGB", (20, 40), "blue"),
        "reference": None,
        "description": "",
        "rationale": "",
        "seed": 100 + number,
    }
    return ScoreRequest(**(fields | changes))


def scorer(server, **params):
    """A loaded scorer that gives a server up after a moment."""
    made = OpenAIScorer(server.url, "some-judge", **({"backoff": 0.001, "timeout": 20.0, "patience": 0.3} | params))
    made.check()
    made.load()
    return made


def judge(*replies, requests=None, **params):
    """Results, and the server that was asked."""
    with serve(*replies) as server:
        made = scorer(server, **params)
        results = made.score(requests or [request()])
        made.close()
        return results, server
