"""A server's command as `docker run` and as a Kubernetes deployment, on request."""

import json
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ...planner.errors import BadInput

Document = Mapping[str, Any]
KINDS = ("docker", "k8s")
PORTS = {"vllm": 8000, "sglang": 30000}
IMAGES = {"vllm": "vllm/vllm-openai:v{}", "sglang": "lmsysorg/sglang:v{}"}
MODEL = ("model", "model_path")
"""The flag that names what is served."""
CACHE = "/root/.cache/huggingface"


def snippet(kind: str, document: Document) -> dict[str, str]:
    """`kind` and `text` for the recommended point of a plan. Raises BadInput for an unknown kind,
    and for engines that are no server."""
    check_kind(kind)
    serving = document["recommended"].get("serving")
    if serving is None:
        raise no_server(str(document["engine"]))
    engine = str(document["engine"])
    words = _words(engine, serving["flags"])
    write = _docker if kind == "docker" else _deployment
    return {"kind": kind, "text": write(engine, serving, words)}


def check_kind(kind: str) -> None:
    """Raise BadInput for a kind that there is not."""
    if kind not in KINDS:
        raise BadInput(f"no snippet is called {kind!r}", f"choose {' or '.join(KINDS)}")


def no_server(engine: str) -> BadInput:
    """What is said where the engine of a plan is no server."""
    return BadInput(
        f"--snippet is for servers, and the plan is for {engine}", "plan --engine vllm or sglang"
    )


def _words(engine: str, flags: Mapping[str, Any]) -> list[str]:
    """What the image's program is given. A folder of this machine is mounted: see _model."""
    words: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        text = _model(str(value)) if name in MODEL else str(value)
        words += [flag] if value is True else [flag, text]
    if engine == "sglang":
        return ["python3", "-m", "sglang.launch_server", "--host", "0.0.0.0", *words]
    return words


def _model(name: str) -> str:
    """A checkpoint in a folder here is at /models there."""
    return f"/models/{PurePosixPath(name).name}" if name.startswith(("./", "/")) else name


def _mounted(flags: Mapping[str, Any]) -> str:
    """The folder here that is /models there, for a shell; empty where a hub id is served."""
    name = next(str(value) for flag, value in flags.items() if flag in MODEL)
    if name.startswith("./"):
        return '"$PWD"'
    return shlex.quote(str(PurePosixPath(name).parent)) if name.startswith("/") else ""


def _docker(engine: str, serving: Document, words: list[str]) -> str:
    port, cards = PORTS[engine], len(serving["cards"])
    lines = [
        f"docker run --rm --gpus {cards} --ipc=host -p {port}:{port}",
        f"-v ~/.cache/huggingface:{CACHE} -e HF_TOKEN",
    ]
    if folder := _mounted(serving["flags"]):
        lines.append(f"-v {folder}:/models:ro")
    lines.append(IMAGES[engine].format(serving["version"]))
    lines.append(shlex.join(words))
    return " \\\n  ".join(lines)


def _deployment(engine: str, serving: Document, words: list[str]) -> str:
    port, cards = PORTS[engine], len(serving["cards"])
    command = [] if engine == "vllm" else ["command: " + json.dumps(words[:3])]
    arguments = words if engine == "vllm" else words[3:]
    models = any(word.startswith("/models/") for word in words)
    mounts = ["- {name: shm, mountPath: /dev/shm}", f"- {{name: cache, mountPath: {CACHE}}}"]
    volumes = ["- {name: shm, emptyDir: {medium: Memory}}", "- {name: cache, emptyDir: {}}"]
    if models:
        mounts.append("- {name: models, mountPath: /models, readOnly: true}")
        volumes.append("- {name: models, persistentVolumeClaim: {claimName: models}}")
    inside = "\n".join("            " + line for line in mounts)
    outside = "\n".join("        " + line for line in volumes)
    return f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: {engine}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {engine}}}}}
  template:
    metadata: {{labels: {{app: {engine}}}}}
    spec:
      containers:
        - name: {engine}
          image: {IMAGES[engine].format(serving["version"])}
{"".join("          " + line + chr(10) for line in command)}          args: {json.dumps(arguments)}
          ports: [{{containerPort: {port}}}]
          env:
            - name: HF_TOKEN
              valueFrom: {{secretKeyRef: {{name: huggingface, key: token, optional: true}}}}
          resources:
            limits: {{nvidia.com/gpu: {cards}}}
          readinessProbe:
            httpGet: {{path: /health, port: {port}}}
            failureThreshold: 180
          volumeMounts:
{inside}
      volumes:
{outside}
"""
