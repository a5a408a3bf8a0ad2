"""The commands of `mitoscope import`, one per source. Thin, like cli.py."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mitoscope.paths import DATA

if TYPE_CHECKING:
    from mitoscope.datasets.importers import Found, Summary, Target
    from mitoscope.datasets.importers.classes import Classes

importing = typer.Typer(help="Bring images and annotations into data/.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Output folder; it appears only when it is complete.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the output folder if it is not empty.")]
Images = Annotated[Path, typer.Argument(help="Folder of the images; they may lie in folders.", metavar="IMAGES")]
AnnotationFiles = Annotated[
    list[Path], typer.Argument(help="Annotation files, or folders of them.", metavar="ANNOTATIONS...")
]
Add = Annotated[
    bool,
    typer.Option(
        "--add", help="Keep what is in the output folder; add images, and replace annotations of those there."
    ),
]
FieldTable = Annotated[
    Path | None,
    typer.Option("--fields", help="Table of patients and fields; fields.csv in the folder of the images by default."),
]
Order = Literal["row,col", "x,y"]
PatientPerImage = Annotated[bool, typer.Option("--patient-per-image", help="Every image is another patient.")]
PixelSize = Annotated[
    float | None, typer.Option(min=0.05, max=2, help="Pixel size in um, where the image files do not say it.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        envvar="MITOSCOPE_SCHEDULER",
        metavar="ADDRESS",
        help="Do the fields on the workers of the Dask scheduler with this address, such as tcp://HOST:8786.",
    ),
]
MitosisClasses = Annotated[
    list[str] | None,
    typer.Option("--mitosis", help="Class of mitoses; repeatable. By default `Mitosis` and its usual names."),
]
LookalikeClasses = Annotated[
    list[str] | None,
    typer.Option("--lookalike", help="Class of look-alikes; repeatable. By default `Look-alike` and its usual names."),
]


@importing.command()
def janowczyk(
    source: Annotated[
        Path, typer.Argument(help="The published archive (.tgz, .tar or .zip), or a folder in the same layout.")
    ],
    out: Out = DATA,
    replace: Replace = False,
    fields: FieldTable = None,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import fields in Janowczyk's layout: 01_01.tif, 01_01.csv, 01_01_cmask.png ..."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.janowczyk import import_janowczyk
    from mitoscope.progress import progress

    target = Target(out, replace, fields=fields, microns_per_pixel=microns_per_pixel, scheduler=scheduler)
    with progress() as show:
        summary = import_janowczyk(source, target, show)
    _say_imported(summary, out)


@importing.command()
def midog(
    images: Images,
    annotations: Annotated[Path, typer.Argument(help="The annotation file, such as MIDOG.json or MIDOG++.json.")],
    out: Out = DATA,
    replace: Replace = False,
    add: Add = False,
    fields: FieldTable = None,
    patient_per_image: PatientPerImage = False,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import MIDOG 2021, 2022, ++ or 2025, or COCO boxes: each numbered image is a patient."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.midog import import_midog
    from mitoscope.progress import progress

    target = Target(out, replace, add, fields, patient_per_image, microns_per_pixel, scheduler)
    with progress() as show:
        summary = import_midog(images, annotations, target, show)
    _say_imported(summary, out)


@importing.command()
def tupac(
    images: Annotated[
        Path, typer.Argument(help="Folder with a folder per patient, as in 05/01.tif.", metavar="IMAGES")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Folder of the CSV files, as in 05/01.csv; beside the images by default.")
    ] = None,
    out: Out = DATA,
    replace: Replace = False,
    add: Add = False,
    fields: FieldTable = None,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import AMIDA13 or TUPAC16, with the published or the alternative labels, or other folders per patient."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.tupac import import_tupac
    from mitoscope.progress import progress

    target = Target(out, replace, add, fields, microns_per_pixel=microns_per_pixel, scheduler=scheduler)
    with progress() as show:
        summary = import_tupac(images, labels, target, show)
    _say_imported(summary, out)


@importing.command()
def qupath(
    images: Images,
    annotations: AnnotationFiles,
    mitosis: MitosisClasses = None,
    lookalike: LookalikeClasses = None,
    out: Out = DATA,
    replace: Replace = False,
    add: Add = False,
    fields: FieldTable = None,
    patient_per_image: PatientPerImage = False,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import annotations of QuPath (GeoJSON), also the ones that detect writes: NAME.geojson for NAME.tif."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.qupath import read_qupath

    found = read_qupath(annotations, _classes(mitosis, lookalike))
    target = Target(out, replace, add, fields, patient_per_image, microns_per_pixel, scheduler)
    _import_found(images, annotations, found, target)


@importing.command()
def imagescope(
    images: Images,
    annotations: AnnotationFiles,
    mitosis: MitosisClasses = None,
    lookalike: LookalikeClasses = None,
    out: Out = DATA,
    replace: Replace = False,
    add: Add = False,
    fields: FieldTable = None,
    patient_per_image: PatientPerImage = False,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import annotations of Aperio ImageScope (XML): NAME.xml for NAME.tif."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.imagescope import read_imagescope

    found = read_imagescope(annotations, _classes(mitosis, lookalike))
    target = Target(out, replace, add, fields, patient_per_image, microns_per_pixel, scheduler)
    _import_found(images, annotations, found, target)


@importing.command()
def sliderunner(
    images: Images,
    database: Annotated[Path, typer.Argument(help="The database of SlideRunner, .sqlite.")],
    mitosis: MitosisClasses = None,
    lookalike: LookalikeClasses = None,
    out: Out = DATA,
    replace: Replace = False,
    add: Add = False,
    fields: FieldTable = None,
    patient_per_image: PatientPerImage = False,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import a database of SlideRunner (SQLite)."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.sliderunner import read_sliderunner

    found = read_sliderunner(database, _classes(mitosis, lookalike))
    target = Target(out, replace, add, fields, patient_per_image, microns_per_pixel, scheduler)
    _import_found(images, [database], found, target)


@importing.command("csv")
def centres_table(
    images: Images,
    annotations: AnnotationFiles,
    mitosis: MitosisClasses = None,
    lookalike: LookalikeClasses = None,
    order: Annotated[Order | None, typer.Option(help="Order of the columns of a table without names.")] = None,
    out: Out = DATA,
    replace: Replace = False,
    add: Add = False,
    fields: FieldTable = None,
    patient_per_image: PatientPerImage = False,
    microns_per_pixel: PixelSize = None,
    scheduler: Scheduler = None,
) -> None:
    """Import tables of centres, also the ones that detect writes: NAME.csv or NAME_mitoses.csv for NAME.tif."""
    from mitoscope.datasets.importers import Target
    from mitoscope.datasets.importers.table import read_centres_table

    found = read_centres_table(annotations, _classes(mitosis, lookalike), order)
    target = Target(out, replace, add, fields, patient_per_image, microns_per_pixel, scheduler)
    _import_found(images, annotations, found, target)


def _classes(mitosis: list[str] | None, lookalike: list[str] | None) -> "Classes":
    from mitoscope.datasets.importers.classes import LOOKALIKE_NAMES, MITOSIS_NAMES, Classes

    return Classes(tuple(mitosis or MITOSIS_NAMES), tuple(lookalike or LOOKALIKE_NAMES))


def _import_found(images: Path, annotations: list[Path], found: "Found", target: "Target") -> None:
    from mitoscope.datasets.fields import Description
    from mitoscope.datasets.importers import require_outside
    from mitoscope.datasets.importers.assemble import assemble
    from mitoscope.progress import progress

    for path in annotations:
        require_outside(path, target)
    with progress() as show:
        summary = assemble(images, found, target, Description(name=images.resolve().name), show)
    _say_imported(summary, target.out)


def _next(out: Path) -> str:
    """Return the commands that make use of the dataset in `out`; the pipeline takes only that of data/."""
    if out.resolve() == DATA.resolve():
        return "mitoscope validate; rm -f data.dvc; dvc add data; dvc repro"
    return f"mitoscope validate {shlex.quote(str(out))}; for training it must be {DATA}/"


def _say_imported(summary: "Summary", out: Path) -> None:
    from mitoscope.progress import console

    lookalikes = f" and {summary.lookalikes} look-alikes" if summary.lookalikes else ""
    names = f": {', '.join(summary.skipped[:5])}" if summary.skipped else ""
    more = f" and {len(summary.skipped) - 5} more" if summary.skipped[5:] else ""
    lines = (
        f"{summary.fields} fields of {summary.patients} patients with {summary.mitoses} mitoses{lookalikes} in {out}; "
        f"{len(summary.skipped)} other files left out{names}{more}",
        *(f"note: {note}" for note in summary.notes),
        f"next: {_next(out)}",
    )
    for line in lines:
        console.print(line, markup=False)
