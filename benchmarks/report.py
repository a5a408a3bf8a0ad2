"""Draw results.md and a picture per module from what was measured."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Growth, Measured, Row, Table
from mitoscope.files import atomic_path, write_text
from mitoscope.reporting.colours import BLUE, ORANGE, line_cycle

_PICTURES = "pictures"
_COLUMNS = 3  # of panels
_LONG = 10_000  # a number that leaves room for few others on an axis
_INTRODUCTION = """\
# Measured speed

`make bench` measures this and writes this page. All variants of a table are measured in turn in one run, one round
after the other (A B C A B C ...); the tables show medians of the rounds, the lowest and the highest round, and medians
as multiples of the one in bold (in brackets: of the first line). In the pictures of variants a dot is a round.
"""


def write_page(page: Path, results: dict[str, Measured]) -> None:
    """Write the page atomically; the pictures are in a folder next to it."""
    machines: list[dict[str, str]] = []
    for measured in results.values():
        if measured.machine not in machines:
            machines.append(measured.machine)
    parts = [_INTRODUCTION, *(_machines(machines) if machines else ["Nothing is measured yet.\n"])]
    for name, measured in sorted(results.items()):
        parts.append(f"## {measured.title}\n")
        if machines[1:]:
            parts.append(f"On machine {machines.index(measured.machine) + 1}.\n")
        parts.append(f"![{measured.title}]({_PICTURES}/{name}.png)\n")
        for table in measured.tables:
            parts += [f"### {table.title}\n", "\n".join(_lines(table)) + "\n"]
            parts += [f"{table.note}\n"] if table.note else []
    write_text(page, "\n".join(parts))


def write_picture(page: Path, name: str, measured: Measured) -> None:
    """Draw the tables of one module side by side, atomically."""
    count = len(measured.tables)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, table in zip(panels, measured.tables, strict=False):
        axes.set_prop_cycle(line_cycle())
        if isinstance(table, Row):
            _draw_row(axes, table)
        else:
            _draw_growth(axes, table)
        axes.set_title(table.title.replace("`", ""), fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in panels[count:]:
        axes.remove()
    with atomic_path(page.parent / _PICTURES / f"{name}.png") as temporary:
        figure.savefig(temporary, dpi=80)


def _machines(machines: list[dict[str, str]]) -> Iterable[str]:
    """The table of the machines, one column each."""
    numbers = [f"machine {number}" for number in range(1, len(machines) + 1)] if machines[1:] else [""]
    names = dict.fromkeys(name for machine in machines for name in machine)
    rows = [[name, *(machine.get(name, "") for machine in machines)] for name in names]
    yield "\n".join(_table(["", *numbers], rows)) + "\n"


def _lines(table: Table) -> list[str]:
    if isinstance(table, Row):
        rows = []
        for name, values in table.variants.items():
            shown = f"**{name}**" if name == table.baseline else name
            spread = f"{number(min(values))} to {number(max(values))}"
            rows.append([shown, number(median(values)), spread, number(table.ratio(name))])
        return _table(["", table.unit, "rounds", "ratio"], rows)
    rows = []
    for value in sorted({value for series in table.series.values() for value in series}):
        cells = [number(value)]
        for series in table.series.values():
            if value in series:
                middle, first = (median(series[place]) for place in (value, min(series)))
                cells.append(f"{number(middle)} ({number(middle / first)})")
            else:
                cells.append("")
        rows.append(cells)
    return _table([table.over, *(f"{name}, {table.unit}" for name in table.series)], rows)


def _table(heading: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heading, rule, *rows)]


def number(value: float) -> str:
    """Write a number with three digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.6f}"


def _draw_row(axes: Axes, row: Row) -> None:
    for place, (name, values) in enumerate(row.variants.items()):
        axes.barh(place, median(values), color=ORANGE if name == row.baseline else BLUE, height=0.6)
        axes.plot(values, [place] * len(values), "ko", ms=2.5)
    axes.set_yticks(range(len(row.variants)), list(row.variants))
    axes.invert_yaxis()
    axes.set_xlabel(row.unit, fontsize=7)
    axes.set_xlim(0, 1.05 * axes.dataLim.xmax)
    if axes.dataLim.xmax >= _LONG:
        axes.locator_params(axis="x", nbins=4)


def _draw_growth(axes: Axes, growth: Growth) -> None:
    for name, series in growth.series.items():
        axes.plot(list(series), [median(values) for values in series.values()], marker="o", ms=3, label=name)
    axes.set_xlabel(growth.over, fontsize=7)
    axes.set_ylabel(growth.unit, fontsize=7)
    axes.set_xlim(0, 1.05 * axes.dataLim.xmax)
    axes.set_ylim(0, 1.05 * axes.dataLim.ymax)
    axes.legend(fontsize=6)
