"""`convjax demo`: a training that fails, one that works, and what the diagnosis says of both."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported, prepare_file

if TYPE_CHECKING:
    from convjax.stats.record import Record


class DemoTraining(NamedTuple):
    """One of the two trainings.

    Attributes:
      title: what it is.
      page: the file of its page.
      norm: normalisation of the network, or None.
      one_cycle: whether the rate follows a one-cycle schedule; it is constant otherwise.
    """

    title: str
    page: str
    norm: str | None
    one_cycle: bool


# The chapter's first network for ten digits, which fails, and its last, which works, with the same
# seed, batches and highest rate. 15 passes over the 4,000 images have about as many updates as the
# chapter's epoch.
RATE, BATCH, PASSES = 0.06, 512, 15
TRAININGS = (
    DemoTraining("constant rate", "fails.html", None, False),
    DemoTraining("one-cycle and batch norm", "works.html", "batch", True),
)
LAYER = "blocks.3.conv"  # the one before the last
PICTURE = "demo.png"


def run_demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the picture and the pages, which are replaced.")
    ] = Path("convjax-demo"),
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page of the training that fails.")
    ] = True,
) -> None:
    """Trains twice, once in vain, and shows what `diagnose` says: a picture and two pages."""
    with mistakes_reported(NOTHING_WRITTEN):
        typer.echo("Two trainings of the chapter's network for ten digits, each of 105 steps:")
        pages = [out / each.page for each in TRAININGS]
        for file in (out / PICTURE, *pages):
            if file.is_file():
                file.unlink()
            prepare_file(file)
        _write(out)
    typer.echo(f"the picture: {out / PICTURE}")
    typer.echo(f"the pages: {pages[0]} and {pages[1]}")
    if show:
        webbrowser.open(pages[0].absolute().as_uri())


def _write(out: Path) -> None:
    """Trains, prints and writes everything."""
    from convjax import diagnose, plots
    from convjax.data import load
    from convjax.io.atomic import save_figure
    from convjax.report import write_report
    from convjax.terminal.compilation_cache import use_compilation_cache

    use_compilation_cache()
    load("mnist5k")  # a missing extra is reported before anything is compiled
    records, titles = [], []
    for training in TRAININGS:
        record, accuracy = train(training)
        titles.append(f"{training.title}: accuracy {accuracy:.3f}")
        typer.echo(f"\n{titles[-1]}")
        diagnosis = diagnose(record)
        typer.echo(str(diagnosis))
        write_report(record, out / training.page, diagnosis=diagnosis)
        records.append(record)
    save_figure(plots.color_dim(records, LAYER, titles), out / PICTURE)
    typer.echo()


def train(training: DemoTraining) -> tuple["Record", float]:
    """Returns the record and the accuracy of one of the trainings."""
    import numpy as np
    from flax import nnx

    import convjax
    from convjax.data import epoch_order, load, normalization

    data = load("mnist5k")
    mean, std = normalization(data.train.images)
    model = convjax.digits_net(norm=training.norm, rngs=nnx.Rngs(0))
    watch = convjax.Watch.everything()
    trainer = convjax.Trainer(model, convjax.adam(), mean=mean, std=std, watch=watch)
    order = np.concatenate([epoch_order(4000, BATCH, seed=0, epoch=i) for i in range(PASSES)])
    schedule = convjax.one_cycle(len(order), RATE) if training.one_cycle else convjax.constant(RATE)
    images, test = convjax.Images.put(data.train), convjax.Images.put(data.test)
    state, record = trainer.run(trainer.start(model), images, order, schedule.table(len(order)))
    return record, trainer.evaluate(state, test).accuracy
