"""How an engine serves, as fields of a document and as lines for a person."""

from collections.abc import Mapping
from typing import Any

from ...planner.serving import CardTerms, Serving, Sizes
from ...planner.units import GiB, format_bytes, format_count, format_tokens
from ..numbers import percent, seconds

Document = Mapping[str, Any]


def serving_document(serving: Serving) -> dict[str, Any]:
    """Bytes, tokens and seconds; `_low` and `_high` are ends of intervals."""
    speed = serving.speed
    throughput, alone = speed if speed is not None else (None, None)
    return {
        "version": serving.version,
        "measured": serving.measured,
        "starts": serving.starts,
        "may_start": serving.may_start,
        "users": serving.users,
        "max_model_len": serving.max_model_len,
        "longest_max_model_len": serving.longest,
        **_ends("cache_tokens", serving.cache_tokens),
        "sequences_at_once": serving.at_once_mean,
        "sequences_at_once_if_all_are_longest": serving.at_once_worst,
        "parallel": {
            "tensor": serving.parallel.tensor,
            "pipeline": serving.parallel.pipeline,
            "data": serving.parallel.data,
            "experts": serving.parallel.experts,
        },
        "tokens_per_second": throughput[0] if throughput else None,
        "tokens_per_second_low": throughput[1] if throughput else None,
        "tokens_per_second_high": throughput[2] if throughput else None,
        "ttft_alone_s": alone[0] if alone else None,
        "checkpoint": serving.checkpoint or None,
        "flags": dict(serving.flags),
        "environment": dict(serving.environment),
        "command": serving.command,
        "cards": [_card(card) for card in serving.cards],
    }


def _card(card: CardTerms) -> dict[str, Any]:
    return {
        "gpu": card.gpu,
        "memory": card.memory,
        "requested": card.requested,
        "weights": card.weights,
        **_ends("activation", card.activation),
        **_ends("other", card.other),
        **_ends("graphs", card.graphs),
        **_ends("cache", card.cache),
        **_ends("context", card.context),
        **_ends("graphs_beside", card.beside),
    }


def _ends(name: str, sizes: Sizes) -> dict[str, int]:
    return {name: sizes[0], f"{name}_low": sizes[1], f"{name}_high": sizes[2]}


def serves_line(point: Document) -> str:
    """For whom there is room, in a line."""
    one = point["serving"]
    if not one["starts"]:
        return "it does not start, or may not"
    low, worst = one["sequences_at_once"], one["sequences_at_once_if_all_are_longest"]
    room = f"room for {format_count(low, 'sequence')} at once"
    if worst != low:
        room += f", {worst:,} if all are of the longest"
    rate, users = one["tokens_per_second"], format_count(one["users"], "user")
    speed = f"; {rate:,.0f} tokens a second for {users}" if rate else ""
    return f"{room}; cache {one['cache_tokens_low']:,} tokens at least{speed}"


def card_rows(point: Document) -> list[tuple[str, str, str]]:
    """What each card holds, a row a term: label, bytes, comment. Alike cards are shown once."""
    cards = point["serving"]["cards"]
    rows: list[tuple[str, str, str]] = []
    kinds: list[tuple[Document, int]] = []
    for card in cards:
        if kinds and kinds[-1][0] == card:
            kinds[-1] = (card, kinds[-1][1] + 1)
        else:
            kinds.append((card, 1))
    for card, count in kinds:
        size = f"{card['memory'] / GiB:.2f} GiB"
        share = card["requested"] / card["memory"]
        name = card["gpu"] if count == 1 else f"each of {count} {card['gpu']}"
        rows.append((name, format_bytes(card["requested"]), f"{share:.1%} of its {size}:"))
        for key, label in _TERMS:
            low, high = card.get(f"{key}_low", card[key]), card.get(f"{key}_high", card[key])
            if high:
                ends = "" if low == high else f"{format_bytes(low)} to {format_bytes(high)}"
                rows.append((f"  {label}", format_bytes(card[key]), ends))
    return rows


_TERMS = (
    ("weights", "weights"),
    ("activation", "peak of the profiled step"),
    ("other", "outside torch"),
    ("graphs", "CUDA graphs"),
    ("cache", "cache"),
    ("context", "beside it: the driver's context"),
    ("graphs_beside", "beside it: CUDA graphs"),
)


def compared_words(row: Document, because: str) -> str:
    """One engine's plan of several, in a line."""
    if row["config"] is None:
        return f"none: {row['why_not']}"
    times = ""
    if row["ttft_s"] is not None:
        times = f", TTFT {seconds(row['ttft_s'])}, TPOT {seconds(row['tpot_s'])}"
    kept = f"{percent(row['retention'])}, at least {percent(row['low'])}"
    text = f"{row['config']}: at most {format_bytes(row['total_high'])}, {kept}{times}"
    return (
        f"{text}  <- taken: {because}" if row["taken"] else f"{text}; not taken: {row['why_not']}"
    )


def own_words(own: Document) -> str:
    """Our own runtime's plan for the same question, against a server's."""
    more, lost = own["bytes_more"], own["retention_lost"]
    memory = f"{format_bytes(abs(more))} {'less' if more > 0 else 'more'}" if more else "as much"
    kept = "keeps as much" if abs(lost) < 0.001 else f"keeps {percent(abs(lost))} "
    kept += "" if abs(lost) < 0.001 else "more" if lost > 0 else "less"
    return f"{own['config']} needs {memory} and {kept}"


def alone_words(point: Document) -> str:
    """The first token of one prompt on an idle server; nothing where it is not known."""
    alone = point["serving"]["ttft_alone_s"]
    return f"; alone {seconds(alone, like=point['ttft_s'])}" if alone else ""


def asked_words(document: Document) -> str:
    """The prompt lengths that were asked, where they are several."""
    lengths = document.get("lengths")
    if not lengths:
        return f"{format_tokens(document['context'])} + {document['output']} tokens"
    parts = ", ".join(f"{one['part']:.0%} {format_tokens(one['tokens'])}" for one in lengths)
    return f"{parts} + {document['output']} tokens"


def sequences(document: Document, point: Document) -> str:
    """How many run at once: a server's are its users."""
    return f"{'users' if 'serving' in point else 'batch'} {document['batch']}"
