"""The bench's results as a table: in the terminal, and in docs/performance.md. Nothing in here measures."""

from __future__ import annotations

from typing import Any

NONE = "-"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def table(results: dict[str, Any]) -> str:
    """Return everything that was measured, as Markdown."""
    parts: dict[str, Any] = results["parts"]
    lines = ["### Goals", "", "| goal | at most | reached | |", "| --- | --: | --: | --- |"]
    for part in parts.values():
        lines += [_goal(goal) for goal in part["goals"]]
    lines += ["", "### Figures", "", "| what | unit | ours | beside | theirs | ours ÷ theirs | n |"]
    lines += ["| --- | --- | --: | --- | --: | --: | --: |"]
    for part in parts.values():
        lines += [_figure(figure) for figure in part["figures"]]
    lines += ["", "### How", ""]
    for part in parts.values():
        lines += [f"- {note}" for note in part["notes"]]
    lines += ["", "### When", "", *(_when(name, part) for name, part in parts.items())]
    return "\n".join(lines)


def with_table(page: str, results: dict[str, Any]) -> str:
    """Return the page with the table between its two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"


def shown(value: float | None) -> str:
    """Print a number in three digits."""
    if value is None:
        return NONE
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _goal(goal: dict[str, Any]) -> str:
    verdict = "met" if goal["met"] else f"**missed** by {shown(goal['reached'] - goal['largest'])} {goal['unit']}"
    unit = goal["unit"]
    return f"| {goal['goal']} | {shown(goal['largest'])} {unit} | {shown(goal['reached'])} {unit} | {verdict} |"


def _figure(figure: dict[str, Any]) -> str:
    ratio = NONE if figure["ratio"] is None else f"{figure['ratio']:.2g}"
    theirs = shown(figure["theirs"]) if figure["theirs"] is not None else figure["note"] or NONE
    cells = [figure["what"], figure["unit"], shown(figure["ours"]), figure["peer"], theirs, ratio, str(figure["n"])]
    return f"| {' | '.join(cells)} |"


def _when(name: str, part: dict[str, Any]) -> str:
    where = part["machine"]
    return (
        f"- {name}: {part['made_at']}, {part['took_s']:.0f} s; load {where['load']} on {where['cores']} cores "
        f"({where['processor']}); Python {where['python']}, Airflow {where['airflow']}."
    )
