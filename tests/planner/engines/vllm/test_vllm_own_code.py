"""A server's plan says where code of the model's repository may be asked for, and types no leave
to run it."""

import pytest

import kvpareto


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("model", "said"), [("moonshotai/Kimi-K2-Instruct", True), ("Qwen/Qwen3-8B", False)]
)
def test_own_code_is_said_and_not_run(engine: str, model: str, said: bool) -> None:
    plan = kvpareto.plan(model, engine=engine, gpu="8xB300", context="8k", offline=True)
    notes = [note for note in plan["warnings"] if "--trust-remote-code" in note]
    assert bool(notes) is said
    assert all("trust" not in command["command"] for command in plan["commands"])
