"""Measure the speed: `python -m benchmarks [ROWS]`."""

import tempfile
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

import typer

from benchmarks import report, results, rows
from benchmarks.bench import Bench
from mitoscope.errors import InputError
from mitoscope.learning.devices import join
from mitoscope.progress import console, progress

HERE = Path(__file__).parent
NAMES = sorted(module.name for module in iter_modules(rows.__path__))
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW]...", help=f"All by default: {', '.join(NAMES)}.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each variant is measured.")] = 3,
    project: Annotated[
        Path | None,
        typer.Option(help="A project whose pipeline has run, for the row commands.", exists=True, file_okay=False),
    ] = None,
    tiatoolbox: Annotated[
        Path | None,
        typer.Option(help="The Python of an environment with TIAToolbox, for the row stain.", exists=True),
    ] = None,
    samples: Annotated[int, typer.Option(min=100, help="Size of the largest store of the row store.")] = 20_000,
    out: Annotated[
        Path, typer.Option(help="Folder of results.json, results.md and pictures/.", file_okay=False)
    ] = HERE,
    draw: Annotated[bool, typer.Option("--draw", help="Only draw what is in results.json.")] = False,
) -> None:
    """Measure the speed of the project; rewrite only the results of the rows that are measured."""
    names = only or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        raise typer.BadParameter(f"there is no row {unknown[0]}; there are {', '.join(NAMES)}")
    try:
        out.mkdir(parents=True, exist_ok=True)  # measuring takes minutes
        with join() as device, tempfile.TemporaryDirectory() as scratch, progress() as show:
            bench = Bench(rounds, device, Path(scratch), show, project, tiatoolbox, samples=samples)
            for name in () if draw else names:
                console.print(f"measuring {name}")
                measure(name, bench, out)
        write_all(out)
    except (InputError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from error


def measure(name: str, bench: Bench, out: Path) -> None:
    """Measure one row and put it into `out`/results.json. A GPU's results stand beside a processor's."""
    module = import_module(f"{rows.__name__}.{name}")
    title = str(module.__doc__).splitlines()[0].rstrip(".")
    cuda = bench.device.torch.type == "cuda"
    tables = module.measure(bench)
    if not tables:
        return
    found = results.read(out / "results.json")
    key, title = (f"{name}-cuda", f"{title}, on a GPU") if cuda else (name, title)
    found[key] = results.Measured(title, results.describe_machine(bench.device), tables)
    results.write(out / "results.json", found)


def write_all(out: Path) -> None:
    """Write results.md and the pictures from `out`/results.json."""
    found = results.read(out / "results.json")
    for name, measured in found.items():
        report.write_picture(out / "results.md", name, measured)
    report.write_page(out / "results.md", found)
    console.print(f"{out / 'results.md'}")


if __name__ == "__main__":
    app()
