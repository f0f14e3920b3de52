"""JSON Schema of every document, from its type, and which document a command prints."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from . import measuring, others, planning, running

RECORDS: Mapping[str, type] = {
    "plan": planning.PlanRecord,
    "max_context": planning.MaxContextRecord,
    "estimate": planning.EstimateRecord,
    "calibrate": measuring.CalibrationRecord,
    "verify": measuring.ReceiptRecord,
    "verify_sweep": measuring.SweepRecord,
    "run": running.RunRecord,
    "run_batch": running.RunBatchRecord,
    "chat": running.ChatRecord,
    "profiles_list": others.ProfilesListRecord,
    "profiles_show": others.ProfileRecord,
    "profiles_check": others.CheckRecord,
    "profiles_export": others.ExportRecord,
    "profiles_import": others.ImportRecord,
    "report": others.ReportRecord,
    "failure": others.FailureRecord,
    "text": others.TextRecord,
}
"""Names of the files in docs/schemas and the types behind them."""

OPEN = ("failure",)
"""Documents with further fields than those named."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the document `name`; no further fields but where OPEN says so."""
    schema = TypeAdapter(RECORDS[name]).json_schema()
    if name not in OPEN:
        _close(schema)
    return {"$schema": _DIALECT, "title": name, **{k: v for k, v in schema.items() if k != "title"}}


def kind_of(document: Mapping[str, Any]) -> str:
    """Which of RECORDS a document is, by its fields."""
    marks = (
        ("receipts", "verify_sweep"),
        ("terms", "verify"),
        ("recommended", "plan"),
        ("max_context", "max_context"),
        ("answers", "run_batch"),
        ("turns", "chat"),
        ("finish", "run"),
        ("memory", "estimate"),
        ("expected_error", "calibrate"),
        ("models", "profiles_list"),
        ("facts", "profiles_show"),
        ("configs", "profiles_check"),
        ("report", "report"),
        ("error", "failure"),
        ("text", "text"),
        ("file", "profiles_export"),
        ("folder", "profiles_import"),
    )
    return next(name for mark, name in marks if mark in document)


def _close(schema: Any) -> None:
    """Allow no field that a type does not name."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for value in schema.values():
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)
