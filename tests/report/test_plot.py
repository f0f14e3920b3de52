"""The terminal scatter plot: every mark where its numbers say."""

from kvpareto.report.plot import Mark, scatter


def test_corners_budget_line_and_labels() -> None:
    text = scatter(
        [Mark(2, 0.5, "a"), Mark(10, 1.0, "b")],
        x_label="GB",
        y_label="retention",
        x_limit=6,
        width=21,
        height=3,
    )
    assert text.splitlines() == [
        "retention",
        " 100.0 % │          ┊         b",
        "         │          ┊",
        "  50.0 % │a         ┊",
        "         └─────────────────────",
        "          2.0           10.0 GB",
    ]


def test_one_point_has_a_place() -> None:
    assert "*" in scatter([Mark(3, 0.9, "*")], x_label="GB", y_label="y")


def test_later_marks_cover_earlier_ones() -> None:
    text = scatter([Mark(1, 1, "a"), Mark(1, 1, "b"), Mark(2, 0, "c")], x_label="", y_label="")
    assert "b" in text
    assert "a" not in text


def test_nothing_to_draw() -> None:
    assert scatter([], x_label="GB", y_label="y") == ""
