"""`python -m experiments gallery`: the chapter's pictures in its order, as one HTML file.

Every picture is drawn from arrays: the chapter's three, a photograph, and the records of three
trainings of one seed: with one-cycle, with batch norm, and on images in colour. In a quick run each
takes three steps.
"""

from pathlib import Path

from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported, prepare_file
from convjax.terminal.options import Data, DataDir, OutPage, Quick


def run_gallery(
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    out: OutPage = Path("gallery.html"),
    quick: Quick = False,
) -> None:
    """Draws the chapter's pictures, for which it trains three small networks; writes one page."""
    from convjax.io.atomic import atomic_write
    from convjax.terminal.compilation_cache import use_compilation_cache
    from convjax.terminal.console import console, print_line
    from convjax.terminal.console_observer import ConsoleObserver
    from experiments.gallery.operation import equation_section, kernel_sections
    from experiments.gallery.page import page
    from experiments.gallery.training import training_sections
    from experiments.harness.lab import Lab

    use_compilation_cache()
    shown = console()
    observer = ConsoleObserver(shown)
    with mistakes_reported(NOTHING_WRITTEN):
        lab = Lab(data, data_dir=data_dir, out=out.parent, quick=quick, observer=observer)
        lab.dataset  # noqa: B018  # loads it before any work
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
    print_line(shown, f"{count} pictures: {out}")
