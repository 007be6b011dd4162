"""`python -m experiments gallery`: the chapter's pictures in its order, as one HTML file.

Every picture is drawn from arrays: the chapter's three, a photograph, and the records of three
trainings of one seed, with one-cycle, with batch norm, and on images in colour.
"""

from pathlib import Path
from typing import Annotated

import typer

from experiments.terminal.options import Data, DataDir, mistakes_reported, prepare_file


def run_gallery(
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option(help="New HTML file.")] = Path("gallery.html"),
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Three steps of training: passes through all the code, shows little."
        ),
    ] = False,
) -> None:
    """Draws the chapter's pictures, trains three small networks for them, and writes one page."""
    from convjax.io.atomic import atomic_write
    from experiments.gallery.operation import equation_section, kernel_sections
    from experiments.gallery.page import page
    from experiments.gallery.training import training_sections
    from experiments.harness.compilation_cache import use_compilation_cache
    from experiments.harness.lab import Lab
    from experiments.terminal import console as view

    use_compilation_cache()
    shown = view.console()
    observer = view.ConsoleObserver(shown)
    with mistakes_reported("stopped; nothing was written."):
        lab = Lab(data, data_dir=data_dir, out=out.parent, quick=quick, observer=observer)
        lab.dataset  # noqa: B018  # a wrong name or a missing file shows before any work
        prepare_file(out)
        with observer.progress:
            sections = [*kernel_sections(), equation_section(), *training_sections(lab)]
        written = page(
            sections,
            lead="Convolutions and the training of convolutional networks, drawn from arrays in "
            "the order of the chapter. Single channels are drawn as ink, 0 white and 255 black; "
            "positive numbers are red, negative ones blue.",
            foot=f"Drawn by convjax. Trainings: data {lab.data}, seed 0"
            + (", cut to three steps." if quick else "."),
        )
        with atomic_write(out) as file:
            file.write(written.encode())
    count = sum(len(section.pictures) for section in sections)
    shown.print(f"{count} pictures: {out}", highlight=False, soft_wrap=True)
