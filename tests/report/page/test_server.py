"""`kvpareto ui` answers this machine's own page with what `plan --json` prints, and nobody else."""

import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from kvpareto.cli import run
from kvpareto.planner.errors import BadInput
from kvpareto.report.page.server import PlanServer, make_server


@pytest.fixture(scope="module")
def server() -> Iterator[PlanServer]:
    made = make_server({"model": "Qwen/Qwen3-8B", "gpu": "4090", "budget": None}, 0)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def get(server: PlanServer, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.server_address[:2])
    connection.request("GET", path, headers=headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def plan_json(server: PlanServer, **asked: str) -> dict[str, Any]:
    token = {"X-Token": server.token}
    status, text = get(server, "/plan.json?" + urlencode(asked), **token)
    assert status == 200
    return json.loads(text)


def test_the_page_is_for_who_has_the_token(server: PlanServer) -> None:
    assert get(server, "/")[0] == 403
    assert get(server, "/?token=wrong")[0] == 403
    assert get(server, "/plan.json?model=recall&budget=1GB")[0] == 403
    status, page = get(server, f"/?token={server.token}")
    assert status == 200
    assert "connect-src 'self'" in page
    assert get(server, f"/other?token={server.token}")[0] == 404


def test_another_name_for_this_machine_is_refused(server: PlanServer) -> None:
    assert get(server, f"/?token={server.token}", Host="evil.example")[0] == 403


def test_it_listens_on_this_machine_alone(server: PlanServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_numbers_are_those_of_plan_json(
    server: PlanServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"model": "Qwen/Qwen3-8B", "gpu": "4090", "budget": "10GB", "context": "8k"}
    (plan,) = plan_json(server, **asked)["plans"]
    line = [part for name, value in asked.items() for part in (f"--{name}", value)]
    assert run(["plan", *line, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert plan["document"]["recommended"] == printed["recommended"]
    assert plan["document"]["budget"] == printed["budget"]


def test_all_of_a_gpu_is_the_budget_where_none_is_typed(server: PlanServer) -> None:
    asked = {"model": "Qwen/Qwen3-8B", "gpu": "4090", "budget": ""}
    (plan,) = plan_json(server, **asked)["plans"]
    assert 20 * 10**9 < plan["document"]["budget"] < 24 * 2**30


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "", "gpu": "4090"}, "no model"),
        ({"model": "nobody/nothing-here", "gpu": "4090"}, "nobody/nothing-here"),
        ({"model": "Qwen/Qwen3-8B"}, "no budget"),
        ({"model": "Qwen/Qwen3-8B", "budget": "2GB"}, "fits"),
        ({"model": "Qwen/Qwen3-8B", "budget": "much"}, "much"),
        ({"model": "Qwen/Qwen3-8B", "gpu": "zork"}, "zork"),
        ({"model": "Qwen/Qwen3-8B", "gpu": "4090", "engine": "zork"}, "zork"),
    ],
)
def test_what_cannot_be_planned_is_said(
    server: PlanServer, asked: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = plan_json(server, **asked)
    assert said in answer["error"]
    assert answer["hint"]


def test_a_port_that_is_taken_is_one_line(server: PlanServer) -> None:
    with pytest.raises(BadInput, match="cannot be taken"):
        make_server({}, server.server_address[1])
    with pytest.raises(BadInput, match="no port"):
        make_server({}, 70_000)


@pytest.mark.parametrize("line", [["--gpu", "nope"], ["--budget", "nope"], ["nope"]])
def test_the_first_values_are_refused_before_a_page_is_served(
    line: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kvpareto.report.page.server.serve", pytest.fail)
    assert run(["ui", *line]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert "nope" in error
    assert hint.startswith("hint: ")
