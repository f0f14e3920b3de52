"""The terminal scatter plot: every mark where its numbers say."""

from kvpareto.report.plot import Mark, scatter


def mark(x: float, loss: float, symbol: str) -> Mark:
    return Mark(x, loss, loss, loss, symbol)


def test_corners_budget_line_and_labels() -> None:
    text = scatter(
        [mark(2, 1.0, "a"), mark(10, 0.01, "b"), mark(2, 0.1, "c")],
        x_label="GB",
        y_label="loss",
        x_limit=6,
        width=21,
        height=3,
    )
    assert text.splitlines() == [
        "loss",
        "     1 % │          ┊         b",
        "         │c         ┊",
        "   100 % │a         ┊",
        "         └─────────────────────",
        "          2.0           10.0 GB",
    ]


def test_an_interval_is_a_column() -> None:
    marks = [Mark(1, 0.1, 0.01, 1.0, "o"), mark(2, 0.01, "x")]
    lines = scatter(marks, x_label="", y_label="", width=3, height=5).splitlines()[1:6]
    assert [line[10:] for line in lines] == ["╎ x", "╎", "o", "╎", "╎"]


def test_losses_below_what_is_resolved_are_drawn_there() -> None:
    text = scatter([mark(1, 0.0, "a"), mark(2, 0.1, "b")], x_label="", y_label="")
    assert "0.1 %" in text.splitlines()[1]
    assert "a" in text.splitlines()[1]


def test_one_point_has_a_place() -> None:
    assert "*" in scatter([mark(3, 0.1, "*")], x_label="GB", y_label="y")


def test_later_marks_cover_earlier_ones() -> None:
    marks = [mark(1, 1, "a"), mark(1, 1, "b"), mark(2, 0.1, "c")]
    text = scatter(marks, x_label="", y_label="")
    assert "b" in text
    assert "a" not in text


def test_nothing_to_draw() -> None:
    assert scatter([], x_label="GB", y_label="y") == ""
