"""Every command; those of `mitoscope import` are in cli_import.py.

Thin: the modules that do the work are imported when their command runs.
"""

import atexit
import gc
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from mitoscope import __version__
from mitoscope.cli_import import Out, Replace, Scheduler, importing
from mitoscope.errors import InputError, printable
from mitoscope.paths import require_project

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
registry = typer.Typer(
    help="Show the registered versions with their aliases and scores; `registry retire` withdraws one."
)
_STAGES, _DATA, _FIELDS, _LOOK = "Stages (run by dvc repro)", "Data", "Whole fields", "Look"
_REGISTRY = "Registry"
app.add_typer(importing, name="import", rich_help_panel=_DATA)
app.add_typer(registry, name="registry", rich_help_panel=_REGISTRY, invoke_without_command=True)

Network = Annotated[str, typer.Argument(help="Name of a network under `train` in params.yaml.", metavar="NETWORK")]
Fold = Annotated[
    int | None, typer.Option(min=0, help="Use this fold of the cross-validation instead of the project's own split.")
]


class InProject(typer.core.TyperCommand):
    """A command that needs a project's folder; its help does not."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, or say where to go."""
        require_project()
        return super().invoke(ctx)


_GUIDE = """\
mitoscope trains mitosis detectors on H&E fields, reproducibly. In a project's folder:

  bring data     dvc pull data.dvc           the synthetic sample
                 mitoscope import -h         or published fields; then: dvc add data
  check it       mitoscope validate
  run            dvc repro                   extract, train, evaluate: what has changed
  look           mitoscope compare           scores side by side; also: mitoscope report, mitoscope ui
  promote        mitoscope promote           the best detector, if it passes the gate
  use            mitoscope detect FIELD.tif --model models:/mitoscope@champion --out detected

mitoscope status says where this project stands, mitoscope -h lists every command.
"""


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mitoscope {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train mitosis detectors on H&E fields, reproducibly. `dvc repro` runs the stages in order."""
    if context.invoked_subcommand is None:
        typer.echo(_GUIDE, nl=False)


@app.command(cls=InProject, rich_help_panel=_STAGES)
def settings() -> None:
    """Write the settings of each network that differ from the defaults; later stages depend on them."""
    from mitoscope.stages.settings import settings as run

    run()


@app.command(cls=InProject, rich_help_panel=_STAGES)
def split(fold: Fold = None) -> None:
    """Assign patients to train, validation and test."""
    from mitoscope.stages.split import split as run

    run(fold)


@app.command(cls=InProject, rich_help_panel=_STAGES)
def extract(scheduler: Scheduler = None) -> None:
    """Cut patches around mitoses and blue-ratio candidates out of the fields."""
    from mitoscope.stages.extract import extract as run

    run(scheduler)


@app.command(cls=InProject, rich_help_panel=_STAGES)
def weights(network: Network) -> None:
    """Prepare the weights that a network starts from."""
    from mitoscope.stages.weights import weights as run

    run(network)


@app.command(cls=InProject, rich_help_panel=_STAGES)
def search(network: Network, fold: Fold = None) -> None:
    """Search for a better learning rate and rotations; processes that run at once share the trials.

    A search that was stopped continues when you start it again. Its trials are in .work/search.db, or in the database
    that `search.storage` in params.yaml or MITOSCOPE_SEARCH_STORAGE names: postgresql://... for several machines.
    """
    from mitoscope.stages.search import search as run

    run(network, fold)


@app.command(cls=InProject, rich_help_panel=_STAGES)
def train(network: Network, fold: Fold = None) -> None:
    """Train a network and log it to MLflow; a training that was stopped continues from its last epoch.

    On several GPUs: torchrun --standalone --nproc-per-node=4 --no-python mitoscope train NETWORK
    """
    from mitoscope.stages.train import train as run

    run(network, fold)


@app.command(cls=InProject, rich_help_panel=_STAGES)
def detector(network: Network, fold: Fold = None) -> None:
    """Make a detector from a trained network: fit its field head or calibration, and its threshold."""
    from mitoscope.stages.detector import detector as run

    run(network, fold)


@app.command(rich_help_panel=_STAGES)
def evaluate(
    network: Annotated[
        str | None, typer.Argument(help="Name of a network under `train` in params.yaml.", metavar="NETWORK")
    ] = None,
    fold: Fold = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of labelled fields in the form of data/, for an external test.")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="With --data: the detector, a file detector.pt, runs:/RUN_ID/detector, or models:/mitoscope@champion."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --data: output folder; those of an earlier external test are replaced.")
    ] = None,
    bootstrap: Annotated[
        int | None, typer.Option(min=100, help="With --data: resamplings of the patients for the intervals; 1000.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With --data: random seed of the resampling; 0.")] = None,
) -> None:
    """Score a network's detector on the patches and whole fields of the test patients.

    mitoscope evaluate NETWORK [--fold K] is the stage, in a project's folder.

    mitoscope evaluate --data FOLDER --detector FILE --out FOLDER is the external test, in any folder.

    It scores a detector in the whole fields of labelled images, and rejects patients and images that it knows.
    """
    chosen = {name: value for name, value in (("bootstrap", bootstrap), ("seed", seed)) if value is not None}
    if network is None and fold is None and data and detector and out:
        from mitoscope.commands.external import evaluate_folder
        from mitoscope.params import Evaluate

        evaluate_folder(data, model=detector, out=out, settings=Evaluate(**chosen))
    elif network is not None and not (data or detector or out or chosen):
        require_project()
        from mitoscope.stages.evaluate import evaluate as run

        run(network, fold)
    else:
        raise InputError(
            "evaluate: give NETWORK [--fold K] in a project, or --data FOLDER --detector FILE --out FOLDER "
            "[--bootstrap N] [--seed N] for an external test"
        )


@app.command(cls=InProject, rich_help_panel=_STAGES)
def pool(network: Network) -> None:
    """Pool the results of all folds of a cross-validation; `mitoscope crossvalidate` runs this."""
    from mitoscope.stages.pool import pool as run

    run(network)


@app.command(cls=InProject, rich_help_panel=_REGISTRY)
def promote(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the gate's conditions and change nothing.")] = False,
) -> None:
    """Register the evaluated detectors; the best on validation becomes champion if it passes the gate."""
    from mitoscope.commands.promote import promote as run

    run(dry_run=dry_run)


@app.command(cls=InProject, rich_help_panel=_REGISTRY)
def rollback() -> None:
    """Make the previous champion the champion again; the gate will not promote the current one again."""
    from mitoscope.commands.registry import rollback as run

    run()


@registry.callback()
def _show_registry(context: typer.Context) -> None:
    from mitoscope.commands.registry import registry as run

    if context.invoked_subcommand is None:
        require_project()
        run()


@registry.command(cls=InProject)
def retire(
    version: Annotated[int, typer.Argument(help="Version number, as listed by `mitoscope registry`.")],
) -> None:
    """Withdraw a version: it is no longer champion, and new detectors are no longer compared with it.

    Use it when the champion has learnt from a patient who is now tested, so that no detector can be compared with it.
    """
    from mitoscope.commands.registry import retire as run

    run(version)


@app.command(rich_help_panel=_DATA)
def validate(
    data: Annotated[Path, typer.Argument(help="Folder of fields and their CSV files.")] = Path("data"),
) -> None:
    """Check a dataset; print its fields, patients and mitoses, and every problem with its file and row."""
    from mitoscope.commands.validate import validate as run

    if run(data).problems:
        raise typer.Exit(2)


@app.command(cls=InProject, rich_help_panel=_DATA)
def suspects(
    network: Network,
    out: Annotated[
        Path,
        typer.Option(help="Output folder; an earlier list there is replaced, but never a corrected one."),
    ],
    count: Annotated[int, typer.Option(min=1, help="List this many, the most suspicious first.")] = 100,
) -> None:
    """List the labels that look wrong, for QuPath: mitoses that score low, other places that score high.

    The scores are held out: of the network's cross-validation, or else of the project's own test patients. The folder
    gets a table, a picture of the first 60, and a GeoJSON per field with all its annotations and the suspects.

    A pathologist corrects the GeoJSON in QuPath, and `mitoscope import qupath data FOLDER --add` brings it back. A
    suspect without annotation has the class `mitoscope suspect`, which is left out unless it was changed to `Mitosis`.
    """
    from mitoscope.commands.suspects import suspects as run

    run(network, out=out, count=count)


@app.command("fields", rich_help_panel=_DATA)
def field_table(
    folder: Annotated[Path, typer.Argument(help="Folder of the images; they may lie in folders.")],
    out: Annotated[Path | None, typer.Option(help="The table; fields.csv in the folder by default.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the table if it is there.")] = False,
) -> None:
    """Write a first fields.csv for images with any names, with what can be known; complete it in a spreadsheet."""
    from mitoscope.commands.fields import fields as run

    run(folder, out, replace=replace)


@app.command(rich_help_panel=_DATA)
def synthesize(
    out: Out = Path("data"),
    patients: Annotated[int, typer.Option(min=3, max=99, help="Number of patients.")] = 12,
    fields: Annotated[int, typer.Option(min=1, max=99, help="Fields per patient.")] = 2,
    size: Annotated[
        int, typer.Option(min=200, max=4000, help="Side length of a field in px, at 0.25 um per pixel.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    replace: Replace = False,
) -> None:
    """Draw a synthetic dataset with known mitoses, like the sample."""
    from mitoscope.datasets.synthetic import synthesize as run
    from mitoscope.files import atomic_folder
    from mitoscope.progress import console, progress

    with atomic_folder(out, replace=replace) as folder, progress() as show:
        done = iter(range(1, patients * fields + 1))
        run(
            folder,
            seed=seed,
            patients=patients,
            fields_per_patient=fields,
            size=size,
            on_field=lambda name: show("synthesize", next(done), patients * fields),
        )
    console.print(f"{patients * fields} synthetic fields of {patients} patients in {out}")


@app.command("export-patches", cls=InProject, rich_help_panel=_DATA)
def export_patches(
    out: Annotated[Path, typer.Argument(help="Output folder; it appears only when it is complete.")],
    network: Annotated[
        str | None, typer.Option(help="Network in params.yaml whose rotations are written; the first one by default.")
    ] = None,
    replace: Replace = False,
) -> None:
    """Write the patches of all patients, except those at edges, as 01_02_class0_center0_rot45.png."""
    from mitoscope.commands.export_patches import export_patches as run

    run(out, network=network, replace=replace)


@app.command(cls=InProject, rich_help_panel=_REGISTRY)
def export(
    model: Annotated[
        str,
        typer.Option(
            help="The detector: models/NETWORK/detector.pt, runs:/RUN_ID/detector, or models:/mitoscope@champion."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder; it appears only when it is complete.")],
    replace: Replace = False,
) -> None:
    """Write a detector for programs without torch: its network as ONNX in float32 and int8, all else as JSON.

    The table says what int8 costs in the validation patients' fields. Needs the packages of the extra `onnx`.
    """
    from mitoscope.commands.export import export as run

    run(model, out=out, replace=replace)


@app.command(rich_help_panel=_FIELDS)
def page(
    out: Annotated[Path, typer.Option(help="Output folder; it appears only when it is complete.")],
    export: Annotated[Path, typer.Option(help="Folder that `mitoscope export` wrote.")] = Path("exported"),
    int8: Annotated[
        bool, typer.Option("--int8", help="The network with int8 weights: a quarter of the size, other scores.")
    ] = False,
    replace: Replace = False,
) -> None:
    """Write a web page that finds the mitoses of a field in the browser, also on a phone and offline."""
    from mitoscope.commands.page import page as run

    run(export, out=out, int8=int8, replace=replace)


@app.command(rich_help_panel=_FIELDS)
def detect(
    images: Annotated[
        list[Path],
        # Whether a file can be read is said per file, so that the others are done.
        typer.Argument(
            help="Image files of fields, such as FOLDER/*.tif: tif, png, jpg or bmp, 8-bit RGB, any size.",
            readable=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The detector: models/NETWORK/detector.pt, runs:/RUN_ID/detector, or models:/mitoscope@champion."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Output folder; results of other fields from the same model stay, and are in summary.csv."),
    ],
    microns_per_pixel: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=2,
            help="Pixel size of all images in um; by default from fields.csv beside the image, the image file, "
            "dataset.yaml, or the model.",
        ),
    ] = None,
    points: Annotated[bool, typer.Option("--points", help="Write points into the GeoJSON, not outlines.")] = False,
    evaluator: Annotated[
        bool,
        typer.Option(
            "--evaluator",
            help="Also write NAME_mitoses.json, in mm, as MIDOG's and grand-challenge's evaluators read; if the output "
            "folder has one of a field, it is written again without this option.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Remove earlier results from the output folder, also corrected GeoJSON files."),
    ] = False,
    scheduler: Scheduler = None,
) -> None:
    """Find the mitoses in fields: CSV, GeoJSON for QuPath, overlay, and the count per mm2.

    A file that cannot be read as an image is reported and skipped; the exit code is then 1. After a call that was
    stopped, the same call does all its fields again; those that were done are in summary.csv until then.
    """
    from mitoscope.commands.detect import detect as run

    options = {"points": points, "evaluator": evaluator, "replace": replace}
    if run(images, model=model, out=out, microns_per_pixel=microns_per_pixel, scheduler=scheduler, **options):
        raise typer.Exit(1)


@app.command(rich_help_panel=_FIELDS)
def serve(
    model: Annotated[
        str,
        typer.Option(
            help="The detector: models:/mitoscope@champion, which is followed when it moves, "
            "models/NETWORK/detector.pt, or runs:/RUN_ID/detector."
        ),
    ] = "models:/mitoscope@champion",
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; one that other machines can reach needs a token in MITOSCOPE_TOKEN."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 = any that is free.")] = 8080,
    most_mb: Annotated[int, typer.Option(min=1, max=1000, help="Size that a request may have, MB.")] = 50,
    most_requests: Annotated[
        int, typer.Option(min=1, max=1000, help="How many requests are taken at once; they are computed in turn.")
    ] = 32,
    look_every: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which to look whether the alias has moved.")
    ] = 30,
    page: Annotated[Path | None, typer.Option(help="Folder that `mitoscope page` wrote, to show at /.")] = None,
) -> None:
    """Answer fields over HTTP: the mitoses with their probabilities, the count and the density, as JSON or GeoJSON.

    The page /docs shows how to ask; /health, /ready and /metrics are for machines. With the variable MITOSCOPE_TOKEN,
    requests must carry `Authorization: Bearer TOKEN`. Needs the packages of the extra `serve`.
    """
    from mitoscope.commands.serve import serve as run

    limits = {"most_mb": most_mb, "most_requests": most_requests}
    run(model, host=host, port=port, look_every=look_every, page=page, **limits)


@app.command(cls=InProject, rich_help_panel=_FIELDS)
def crossvalidate(network: Network) -> None:
    """Test every patient once: train and evaluate a network in each fold, and pool the counts.

    Runs `dvc repro crossvalidation/dvc.yaml:pool@NETWORK`: unchanged folds come from DVC's cache, and a run that was
    stopped continues where it was. The project's own split and results stay as they are.
    """
    from mitoscope.commands.crossvalidate import crossvalidate as run

    run(network)


@app.command(cls=InProject, rich_help_panel=_LOOK)
def status() -> None:
    """Say where the project stands: data, stages out of date, scores, champion, and what comes next."""
    from mitoscope.commands.status import status as run

    run()


@app.command(cls=InProject, rich_help_panel=_LOOK)
def compare() -> None:
    """Print the test scores of all networks side by side."""
    from mitoscope.commands.compare import compare as run

    run()


@app.command(cls=InProject, rich_help_panel=_LOOK)
def report(
    out: Annotated[Path, typer.Option(help="Path of the HTML page.")] = Path("results/report.html"),
) -> None:
    """Write one HTML page on all runs on the current data: scores, curves, errors, settings, hashes, commands.

    The page needs no other file and no network. It is also logged to the networks' MLflow runs as report.html.
    """
    from mitoscope.commands.report import report as run

    run(out)


@app.command(cls=InProject, rich_help_panel=_LOOK)
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 = this machine only.")] = "127.0.0.1",
) -> None:
    """Start the MLflow UI on this project's runs and print its address."""
    from mitoscope.commands.ui import ui as run

    run(host, port)


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2, a failing disk or network with 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    gc.set_threshold(20_000)  # the default takes an eighth of the time of importing torch and MLflow
    atexit.register(_skip_last_search)
    try:
        app()
    except InputError as error:
        _say_error(str(error))
        sys.exit(2)
    except OSError as error:  # no such file, no permission, disk full, connection lost
        _say_error(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
        sys.exit(1)


def _skip_last_search() -> None:
    """Spare Python its last search for garbage, which takes half a second after importing torch or MLflow.

    So files and connections have to be closed, not left to the garbage collector. Triton needs the search: it would
    print a list of objects that were not freed.
    """
    if "triton" not in sys.modules:
        gc.freeze()


def _say_error(line: str) -> None:
    from rich.console import Console  # which knows NO_COLOR

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {printable(line)}", style="red", markup=False)
