"""What `train` does: prepares one training, runs it, and leaves all of it in a folder."""

import importlib.util
import json
import math
import signal
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import typer

from convjax import distributed
from convjax.analysis._summary import summary
from convjax.data import DataError
from convjax.io.json_files import nonfinite_to_null
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.config import RunError, check_config, read_config
from convjax.runs.folder import RunFolder
from convjax.runs.interrupts import Interrupts
from convjax.runs.persistence import Keeping
from convjax.runs.predictions import Predictions
from convjax.stats.nonfinite import NonFiniteError
from convjax.train._fit import Callback, FitResult, TrainingStopped, fit
from convjax.train.device_data import Images
from convjax.train.tree_arrays import CheckpointError
from experiments.cli.run_options import check_new
from experiments.cli.train_config import check_data, resolved
from experiments.cli.train_observers import EventOutput, ObserverPair, TrainObserver, speaking
from experiments.harness import training_plots
from experiments.harness.lab import Lab
from experiments.harness.training import Training

STATUS_NON_FINITE = 3
STOPPING = "stopping at the end of these steps, to save; once more stops at once."


class TrainOptions(NamedTuple):
    """How a training is run, on which its figures do not depend; see the command's help.

    Attributes:
      again: the command that goes on with it.
    """

    out: Path
    resume: bool = False
    config: Path | None = None
    data_dir: Path | None = None
    save_seconds: float = 30.0
    keep: int = 2
    stream: bool = False
    tensorboard: bool = False
    quiet: bool = False
    json_lines: bool = False
    again: str = ""


def several(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    cluster: bool,
    heartbeat: float,
) -> None:
    """Connects with the other processes, where there are to be any.

    Raises:
      ValueError: as `convjax.parallel.distributed.initialize`.
    """
    if not 0 < heartbeat < math.inf:
        raise ValueError(f"--heartbeat must be a positive number of seconds, got {heartbeat}.")
    named = (coordinator, processes, process_id)
    if cluster and any(value is not None for value in named):
        raise ValueError(
            "--cluster takes all from the cluster: leave --coordinator, --processes and "
            "--process-id out, or name all three without it."
        )
    if cluster or any(value is not None for value in named):
        distributed.initialize(*named, heartbeat=heartbeat)


class TrainRun:
    """One training, checked before anything is written.

    Args:
      given: the fields of a configuration that were given; the others are those of the
        configuration to go on with or to repeat, or have their defaults.

    Raises:
      ValueError: for whatever cannot be.
      ImportError: for a library that the training or its report needs.
    """

    def __init__(self, options: TrainOptions, given: dict[str, Any]):
        self.options = options
        source = options.out if options.resume else options.config
        if options.resume and options.config is not None:
            raise ValueError("--resume goes on as --out was set up: leave --config out.")
        if options.resume and not (options.out / "config.json").exists():
            raise ValueError(
                f"--resume needs the folder of a run as --out, got {options.out}, which has no "
                "config.json."
            )
        _check_installed(options)
        base = None
        if options.resume:
            base = read_config(options.out, "Put a copy of it back, or begin in another folder.")
        elif options.config is not None:
            base = read_config(options.config)
        _show_devices(given.get("devices") or (base or {}).get("devices"))
        # Only now: asking which process this is asks for the devices, too. Process 0 alone writes
        # there, and may have begun before another looks.
        if not options.resume and distributed.is_primary():
            check_new(options.out)
        if "devices" not in given and distributed.process_count() > 1 and base is None:
            given = {**given, "devices": jax.device_count()}
        self.config = config = resolved(base, given, source=str(source))
        self.devices = _devices(config.devices)
        self.lab = Lab(
            config.data,
            data_dir=options.data_dir,
            out=options.out,
            layout=config.layout,
            quick=config.quick,
        )
        self.full = config.full(self.lab)
        if options.resume:
            check_config(options.out, self.full, same_environment=False)
        if base is not None and "data" not in given:
            check_data(base, self.full, str(source))
        setting, seed = config.setting, config.seed
        self.plan = self.lab.plan(setting, seed, config.piece)
        batch = self.plan.order(0).shape[1]
        if batch % config.devices:
            raise ValueError(
                f"devices must divide the batch, which is {batch} where there are no more images, "
                f"got {config.devices}."
            )
        # Images that are too large show now.
        self.trainer = self.lab.trainer(setting, config.watched, self.devices)

    def show(self) -> None:
        """Prints the configuration as config.json would have it."""
        if distributed.is_primary():
            typer.echo(json.dumps(nonfinite_to_null(self.full), indent=2, ensure_ascii=False))

    def train(self) -> int | None:
        """Trains, and returns the number of the signal that stopped it, if one did."""
        options = self.options
        silent = not distributed.is_primary()
        speaks = speaking(
            self.full, silent=silent, quiet=options.quiet, json_lines=options.json_lines
        )
        with speaks as observer, Interrupts(STOPPING) as interrupts:
            try:
                fitted = self._kept(observer, interrupts)
                observer.finished(options.out, fitted.metrics)
            except TrainingStopped as stopped:
                observer.stopped(stopped.step, options.again)
                # Another process may have had the signal.
                return interrupts.received or signal.SIGTERM
            except NonFiniteError as error:
                _fail(
                    f"{error} The record up to there is in {options.out}. Try a lower --lr-max, or "
                    "--non-finite go-on.",
                    STATUS_NON_FINITE,
                )
            except KeyboardInterrupt:
                saved = Checkpoints(options.out / "checkpoints").steps()
                told = "What was saved is whole" if saved else "Nothing was saved yet"
                _fail(f"interrupted. {told}; go on with: {options.again}", 130)
            except (RunError, CheckpointError, DataError) as error:
                _fail(str(error), 2)
            except BrokenPipeError:  # of what is printed, as by `| head`
                raise
            except OSError as error:
                _fail(
                    f"cannot read or write {error.filename or options.out}: "
                    f"{error.strerror or error}. What was saved before is whole: free the disk or "
                    f"make it writable, then go on with: {options.again}",
                    2,
                )
            except (ValueError, ImportError) as error:
                if distributed.process_count() > 1:  # may be a lost peer, which its watch tells
                    raise
                _fail(str(error), 2)
        return None

    def _kept(self, observer: TrainObserver, interrupts: Interrupts) -> FitResult:
        """Trains; process 0 keeps the training in its folder."""
        with ExitStack() as held:
            # At its end the last checkpoint is waited for, whatever happened.
            keeping = self._keeping(held) if distributed.is_primary() else None
            fitted = self._fit(keeping, observer, interrupts, held)
            if keeping is not None:
                self._finish(fitted, keeping.folder)
        return fitted

    def _keeping(self, held: ExitStack) -> Keeping:
        options = self.options
        folder = held.enter_context(RunFolder(options.out, self.full, resume=options.resume))
        if folder.moved:
            typer.echo(
                f"note: the run began with {'; '.join(folder.moved)}. What follows may differ "
                "in its last bits from a run that nobody stopped.",
                err=True,
            )
        kept = Checkpoints(options.out / "checkpoints", keep=options.keep)
        return Keeping(folder, held.enter_context(kept), options.save_seconds)

    def _fit(
        self,
        keeping: Keeping | None,
        observer: TrainObserver,
        interrupts: Interrupts,
        held: ExitStack,
    ) -> FitResult:
        lab, setting, seed = self.lab, self.config.setting, self.config.seed
        dataset = lab.dataset_of(setting)
        shape = (setting.batch_size, *dataset.train.images.shape[1:])
        observer.network(str(summary(lab.network(setting, seed), shape)))
        observer.training(setting, seed, lab.steps(setting, seed), watched=True)
        listener: Callback = observer
        if self.options.tensorboard and keeping is not None:
            events = held.enter_context(closing(EventOutput(self.options.out / "tensorboard")))
            listener = ObserverPair(observer, events)
        fitted = fit(
            self.trainer,
            lab.network(setting, seed),
            self._train_images(dataset.train),
            Images.put(dataset.test, self.devices),
            self.plan,
            keeping=keeping,
            stop=lambda: distributed.any_process(bool(interrupts)),
            stop_at_non_finite=self.config.non_finite == "stop",
            listener=listener,
        )
        observer.trained(fitted.metrics)
        return fitted

    def _train_images(self, split: Any) -> Any:
        if self.options.stream:
            from convjax.data.stream import Stream

            return Stream(split.images, split.labels)
        return Images.put(split, self.devices)

    def _finish(self, fitted: FitResult, folder: RunFolder) -> None:
        """Writes what is made of the trained network."""
        from convjax.report.build import write_report

        lab, setting, seed = self.lab, self.config.setting, self.config.seed
        dataset = lab.dataset_of(setting)
        trainer = self.trainer
        model = trainer.model(fitted.state)
        training = Training(setting, seed, fitted.metrics, fitted.record, model)
        for name, figure in training_plots.of_training(training, trainer, dataset).items():
            folder.add_plot(name, figure)
        predictions = Predictions.of(trainer, fitted.state, dataset.test, dataset.class_names)
        folder.write_predictions(predictions)
        folder.write_model(model)
        write_report(folder.path)


def _check_installed(options: TrainOptions) -> None:
    """Raises ImportError for a library that would be missed in or after the training."""
    needed = {"matplotlib": "plots", "jinja2": "pages", "plotly": "pages"}
    needed |= {"tensorboardX": "tensorboard"} if options.tensorboard else {}
    needed |= {"grain": "stream"} if options.stream else {}
    for name, extra in needed.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'{name} is not installed: pip install "convjax[{extra}]"')


def _show_devices(count: Any) -> None:
    """Lets JAX show so many devices where they are CPUs; before anything asks which there are."""
    if isinstance(count, int) and count > distributed.process_count():
        with suppress(RuntimeError):  # a program that has used JAX before has the devices it has
            jax.config.update("jax_num_cpu_devices", count // distributed.process_count())


def _devices(count: int) -> list[jax.Device] | None:
    """Returns the devices to train on, None for JAX's default one.

    Raises:
      ValueError: if there are not so many.
    """
    processes = distributed.process_count()
    if count == processes == 1:
        return None
    if count % processes:
        raise ValueError(f"devices must be a multiple of the {processes} processes, got {count}.")
    there = jax.devices()
    if count > len(there) or (processes > 1 and count != len(there)):
        rule = "at most" if processes == 1 else "all"
        raise ValueError(
            f"devices must be {rule} {len(there)}, as many as JAX shows here, got {count}."
        )
    return there[:count]


def _fail(message: str, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status) from None
