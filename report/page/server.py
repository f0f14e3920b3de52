"""`kvpareto ui`: the page, served on this machine alone, which plans as a person types.

Bound to 127.0.0.1; every request but the page's own first carries a random token, so that no other
site's script can ask. Planning goes through the functions that `plan --json` uses.
"""

import hmac
import json
import secrets
import sys
import webbrowser
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from ...planner.accuracy.task_kinds import TASKS
from ...planner.engines import NAMES
from ...planner.errors import BadInput, KVParetoError
from ...planner.search.recommend import Request, recommend
from ...planner.search.request import OBJECTIVES
from ...planner.typed_request import PlanWords, typed_request
from ..document import plan_document
from ..output import to_json
from ..profiles import list_document
from .build import build_page
from .data import page_data

_FIELDS = (
    "model", "gpu", "budget", "context", "engine", "ram", "output", "batch", "dtype", "max_loss",
    "objective", "task",
)  # fmt: skip
_MOST_QUERY = 2000
Asked = Mapping[str, str | None]


def serve(asked: Asked, port: int, *, open_browser: bool = True) -> None:
    """Serve until Ctrl-C. Raises BadInput where the port cannot be taken."""
    server = make_server(asked, port)
    address = f"http://127.0.0.1:{server.server_address[1]}/?token={server.token}"
    print(address, flush=True)
    print("Ctrl-C ends it", file=sys.stderr)
    if open_browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    finally:
        server.server_close()


def make_server(asked: Asked, port: int) -> "PlanServer":
    """A server that is bound and not yet running."""
    if not 0 <= port < 2**16:
        raise BadInput(f"{port} is no port", "ports are 1 to 65535; 0 takes a free one")
    try:
        return PlanServer(asked, port)
    except OSError as error:
        raise BadInput(
            f"port {port} cannot be taken: {error.strerror}", "leave --port out for a free one"
        ) from None


class PlanServer(ThreadingHTTPServer):
    """`token` is what every request must carry."""

    daemon_threads = True

    def __init__(self, asked: Asked, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.asked = asked
        self.token = secrets.token_urlsafe(24)
        self.hosts = {f"127.0.0.1:{self.server_address[1]}", f"localhost:{self.server_address[1]}"}


class _Handler(BaseHTTPRequestHandler):
    server: PlanServer
    server_version = "kvpareto"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        token = self.headers.get("X-Token") or query.get("token", "")
        # A page of another site may know the port, through a name of its own too, but no token.
        if self.headers.get("Host") not in self.server.hosts or not hmac.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "the address lacks its token")
        elif url.path == "/":
            self._send(HTTPStatus.OK, "text/html", _first_page(self.server))
        elif url.path == "/plan.json" and len(url.query) <= _MOST_QUERY:
            asked = {name: query.get(name) for name in _FIELDS}
            self._send(HTTPStatus.OK, "application/json", to_json(answer(asked)))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "nothing is here")

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


def answer(asked: Asked) -> dict[str, Any]:
    """The page's data for what was typed, or `error` and `hint`."""
    try:
        request = request_of(asked)
        document = json.loads(to_json(plan_document(recommend(request))))
        return page_data([(document, request)], is_live=True)
    except KVParetoError as error:
        return {"error": error.message, "hint": error.hint}


def request_of(asked: Asked) -> Request:
    """The Request that `plan` would make of the same words. Raises BadInput."""
    words = {name: text.strip() for name, text in asked.items() if text and text.strip()}
    model = words.pop("model", None)
    if model is None:
        raise BadInput("no model", "type a hub id or a folder")
    return typed_request(model, **cast(PlanWords, words))


def _first_page(server: PlanServer) -> str:
    known = list_document()
    live = {
        "token": server.token,
        "asked": {name: server.asked.get(name) for name in _FIELDS},
        "models": known["models"],
        "gpus": known["gpus"],
        "engines": list(NAMES),
        "objectives": list(OBJECTIVES),
        "tasks": list(TASKS),
    }
    data = answer(server.asked)
    if "error" in data:
        live["error"] = f"{data['error']}. {data['hint']}"
        data = {"schema": 1, "plans": [], "receipts": []}
    return build_page(data, live)
