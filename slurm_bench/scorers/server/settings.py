"""How a server is reached: its address, the key, the headers, the form of pictures. Checked on the login node."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from slurm_bench.errors import UserError
from slurm_bench.logs import keep_secret
from slurm_bench.scorers.judge.options import json_mapping, number, text
from slurm_bench.scorers.server.chat import Access, ChatApi, Patience
from slurm_bench.scorers.server.pace import Pace
from slurm_bench.scorers.server.serve import OwnServer

# A variable's name; anything else may be the key itself, and isn't shown.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{1,20}")
_ENDPOINT = re.compile(r"/((chat/)?completions|responses|models|messages)/*$")


def check_asking(params: Any) -> None:
    """What decides how a server is asked, whatever it is asked. Raises UserError."""
    number(params, "max_tokens", 1, 1 << 20)
    number(params, "timeout", 0.1, 3600.0)
    number(params, "patience", 0.0, 86400.0)
    number(params, "max_retries", 0, 100)
    number(params, "backoff", 0.0, 600.0)
    number(params, "requests_per_minute", 1, 1 << 20, optional=True)
    text(params, "api_version", optional=True)
    _check_headers(params)
    json_mapping(params, "extra")
    if params.extra.get("stream"):
        raise UserError("'params.extra.stream' is on; whole answers are read here")
    _check_variable(params.api_key_env)


def make_api(params: Any, base_url: str, key: str | None, connections: int, server: OwnServer | None = None) -> ChatApi:
    """The client that these params ask for."""
    access = Access(base_url, key, params.headers, params.api_version)
    patience = Patience(params.patience, params.max_retries, params.backoff)
    return ChatApi(access, patience, params.timeout, Pace(params.requests_per_minute), connections, server)


def check_url(value: Any) -> None:
    if not _is_plain_address(value):
        raise UserError(
            "'params.base_url' is no plain address such as http://host:8000/v1 (no key within; Azure's version is "
            "params.api_version)"
        )
    if endpoint := _ENDPOINT.search(value):
        raise UserError(
            f"'params.base_url' ends in {endpoint.group().rstrip('/')}; take it off: the address is the part before, "
            f"{value[: value.rindex(endpoint.group())]}"
        )


def _is_plain_address(value: Any) -> bool:
    try:
        url = urlsplit(value if isinstance(value, str) else "")
        beside = url.username or url.password or url.query or url.fragment or url.port == 0
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname) and not beside


def _check_headers(params: Any) -> None:
    json_mapping(params, "headers")
    for name, value in params.headers.items():
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise UserError(f"'params.headers.{name}' is no text of printable ASCII letters (it isn't shown)")
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise UserError(f"'params.headers' has {name!r}, which is no header's name")


def _check_variable(name: Any) -> None:
    known = isinstance(name, str) and (_VARIABLE.fullmatch(name) or name in os.environ)
    if name is not None and not known:
        raise UserError(
            "'params.api_key_env' isn't the name of an environment variable that holds the key, as OPENAI_API_KEY is "
            "(what was given isn't shown: it may be the key itself); set it to null for a server that wants no key"
        )


def read_key(variable: str | None) -> str | None:
    """The key that this environment variable holds; None for a server that wants none. Raises UserError."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(
            f"'params.api_key_env': the environment variable {variable} holds no usable key; "
            "set it, or set api_key_env to null for a server that wants none"
        )
    keep_secret(key, variable)
    return key


def data_url(image: Image.Image, kind: str = "png", jpeg_quality: int = 95) -> str:
    """The image within a request; `kind` is png or jpeg."""
    buffer = io.BytesIO()
    options = {"quality": jpeg_quality} if kind == "jpeg" else {"compress_level": 1}
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def bounded(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image with at most `max_pixels`, in its own proportions."""
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
