"""One training of `train`: prepares it, runs it, and saves all of it in a folder."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import jax
import typer

from convjax import distributed
from convjax.analysis._summary import summary
from convjax.chapter import training_plots
from convjax.chapter.session import Session
from convjax.chapter.training import Training
from convjax.cli.results_folder import check_new
from convjax.cli.train_agreement import agree_on_data, agree_on_options
from convjax.cli.train_config import check_same_images, resolved
from convjax.cli.train_devices import set_numerics, show_cpu_devices, training_devices
from convjax.cli.train_observers import TrainObserver, train_output
from convjax.cli.train_options import TrainCommand, TrainOptions
from convjax.data import DataError
from convjax.io.json_files import nonfinite_to_null
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.config import RunError, check_config, read_config
from convjax.runs.folder import RunFolder
from convjax.runs.interrupts import Interrupts
from convjax.runs.persistence import Keeping
from convjax.runs.predictions import Predictions
from convjax.stats.nonfinite import NonFiniteError
from convjax.terminal.closed_output import STATUS_CLOSED, ClosableOutput
from convjax.train._fit import FitResult, TrainingStopped, fit
from convjax.train.device_data import Images
from convjax.train.tree_arrays import CheckpointError

STATUS_NON_FINITE = 3
SIGPIPE = STATUS_CLOSED - 128  # which Windows does not have
STOPPING = "stopping after these steps, to save; a second signal stops at once."


class TrainRun:
    """One training, checked before anything is written.

    Args:
      out: the run's folder.
      command: what to do: a new run, a resumed or a repeated one.
      options: how the training runs and is saved.
      given: the given fields of a configuration; the others are those of the run that is resumed or
        repeated, or have their defaults.
      resume_command: for messages.

    Raises:
      ValueError: for invalid options, or data that cannot be loaded.
      ImportError: if a library is missing that the training or its report needs.
    """

    def __init__(
        self,
        out: Path,
        command: TrainCommand,
        options: TrainOptions,
        given: dict[str, Any],
        resume_command: str,
    ):
        self.out, self.command, self.options = out, command, options
        self.resume_command = resume_command
        source = out if command.resume else command.config
        if command.resume and command.config is not None:
            raise ValueError(
                "--config must be left out with --resume, which keeps the configuration of --out."
            )
        if command.resume and not (out / "config.json").exists():
            raise ValueError(
                f"--resume needs the folder of a run as --out, got {out}, which has no config.json."
            )
        _check_installed(options)
        base = None
        if command.resume:
            base = read_config(out, "Restore it from a copy, or start in another folder.")
        elif command.config is not None:
            base = read_config(
                command.config,
                "Take the config.json of a run's folder. To change it, give options such as "
                '--lr-max, or remove "checksums" from it.',
            )
        config = resolved(base, given, source=str(source))
        asked_devices = given.get("devices") or (base or {}).get("devices")
        agree_on_options(config, asked_devices, command, options)
        show_cpu_devices(asked_devices)
        set_numerics(config.precision, config.deterministic)
        # After the line above: `is_primary` initializes the devices. Only process 0 writes into the
        # folder, and it may have begun before the other processes are here.
        if not command.resume and distributed.is_primary():
            check_new(out)
        if "devices" not in given and distributed.process_count() > 1 and base is None:
            config = resolved(base, {**given, "devices": jax.device_count()}, str(source))
        self.config = config
        self.devices = training_devices(config.devices)
        self.session = Session(
            config.data,
            data_dir=options.data_dir,
            out=out,
            layout=config.layout,
            quick=config.quick,
        )
        self.full = config.full(self.session)
        agree_on_data(self.full)
        if command.resume:
            check_config(out, self.full, same_environment=False)
        if base is not None and "data" not in given:
            check_same_images(base, self.full, str(source))
        setting, seed = config.setting, config.seed
        self.plan = self.session.plan(setting, seed, config.piece)
        batch = self.plan.order(0).shape[1]
        if batch % config.devices:
            raise ValueError(
                f"devices must divide the batch, which has {batch} images because there are no "
                f"more, got {config.devices}."
            )
        # Raises for images that are too large.
        self.trainer = self.session.trainer(setting, config.watched, self.devices)

    def show(self) -> None:
        """Prints the configuration, the content of config.json."""
        if distributed.is_primary():
            typer.echo(json.dumps(nonfinite_to_null(self.full), indent=2, ensure_ascii=False))

    def train(self) -> int | None:
        """Trains, and returns the number of the signal that stopped the training, or None."""
        output = train_output(
            self.full,
            silent=not distributed.is_primary(),
            quiet=self.command.quiet,
            json_lines=self.command.json_lines,
        )
        reader = ClosableOutput(sys.stdout)
        with redirect_stdout(reader), output as observer, Interrupts(STOPPING) as interrupts:

            def asked_to_stop() -> bool:
                # As SIGPIPE would end another program. It is saved like after the other signals.
                return bool(interrupts) or reader.closed_by_reader

            try:
                fitted = self._train_and_save(observer, asked_to_stop)
                observer.finished(self.out, fitted.metrics)
            except TrainingStopped as stopped:
                observer.stopped(stopped.step, self.resume_command)
                # Another process may have received the signal.
                return interrupts.received or (SIGPIPE if reader.closed_by_reader else SIGTERM)
            except NonFiniteError as error:
                _fail(
                    f"{error} The record up to there is in {self.out}. Try a lower --lr-max, or "
                    "--non-finite go-on.",
                    STATUS_NON_FINITE,
                )
            except KeyboardInterrupt:
                saved = Checkpoints(self.out / "checkpoints").steps()
                state = "The saved files are complete" if saved else "Nothing was saved yet"
                _fail(
                    f"interrupted. {state}. Resume with: {self.resume_command}",
                    128 + (interrupts.received or SIGINT),
                )
            except (RunError, CheckpointError, DataError) as error:
                _fail(str(error), 2)
            except BrokenPipeError:  # of stderr
                raise
            except OSError as error:
                _fail(
                    f"cannot read or write {error.filename or self.out}: "
                    f"{error.strerror or error}. Files saved before are complete. Free the disk or "
                    f"make it writable, then resume with: {self.resume_command}",
                    2,
                )
            except (ValueError, ImportError) as error:
                # May be a lost peer, which `monitor_peers` reports.
                if distributed.process_count() > 1:
                    raise
                _fail(str(error), 2)
        return None

    def _train_and_save(
        self, observer: TrainObserver, asked_to_stop: Callable[[], bool]
    ) -> FitResult:
        """Trains; process 0 saves the training in its folder."""
        with ExitStack() as stack:
            # The end of the stack waits for the last checkpoint, even after an error.
            keeping = self._keeping(stack) if distributed.is_primary() else None
            fitted = self._fit(keeping, observer, asked_to_stop, stack)
            if keeping is not None:
                self._finish(fitted, keeping.folder, asked_to_stop)
        return fitted

    def _keeping(self, stack: ExitStack) -> Keeping:
        folder = stack.enter_context(RunFolder(self.out, self.full, resume=self.command.resume))
        if folder.moved:
            typer.echo(
                f"note: the run began with {'; '.join(folder.moved)}. The following steps may "
                "differ from an uninterrupted run in their last bits.",
                err=True,
            )
        kept = Checkpoints(self.out / "checkpoints", keep=self.options.keep)
        return Keeping(folder, stack.enter_context(kept), self.options.save_seconds)

    def _fit(
        self,
        keeping: Keeping | None,
        observer: TrainObserver,
        asked_to_stop: Callable[[], bool],
        stack: ExitStack,
    ) -> FitResult:
        session, setting, seed = self.session, self.config.setting, self.config.seed
        dataset = session.dataset_of(setting)
        shape = (setting.batch_size, *dataset.train.images.shape[1:])
        observer.network(str(summary(session.network(setting, seed), shape)))
        observer.training(setting, seed, session.steps(setting, seed), watched=True)
        events = None
        if self.options.tensorboard and keeping is not None:
            from convjax.runs.tensorboard import EventWriter

            # A process killed before its first checkpoint may have written events, too.
            events = stack.enter_context(EventWriter(self.out / "tensorboard", resume=True))
        fitted = fit(
            self.trainer,
            session.network(setting, seed),
            self._train_images(dataset.train),
            Images.put(dataset.test, self.devices),
            self.plan,
            keeping=keeping,
            stop=lambda: distributed.any_process(asked_to_stop()),
            stop_at_non_finite=self.config.non_finite == "stop",
            callback=observer,
            writer=events,
        )
        observer.trained(fitted.metrics)
        return fitted

    def _train_images(self, split: Any) -> Any:
        if self.options.stream:
            from convjax.data.stream import Stream

            return Stream(split.images, split.labels)
        return Images.put(split, self.devices)

    def _finish(
        self, fitted: FitResult, folder: RunFolder, asked_to_stop: Callable[[], bool]
    ) -> None:
        """Writes the plots, the predictions, the network and the report.

        Raises:
          TrainingStopped: if asked to stop before all are written; a resumed run writes them.
        """
        for step in self._last_files(fitted, folder):
            if asked_to_stop():
                raise TrainingStopped(fitted.record.steps)
            step()

    def _last_files(self, fitted: FitResult, folder: RunFolder) -> Iterator[Callable[[], None]]:
        """Yields functions that write the files after the training, one by one."""
        from convjax.report.build import write_report

        session, setting, seed = self.session, self.config.setting, self.config.seed
        dataset = session.dataset_of(setting)
        trainer = self.trainer
        model = trainer.model(fitted.state)
        training = Training(setting, seed, fitted.metrics, fitted.record, model)
        for name, figure in training_plots.of_training(training, trainer, dataset):
            yield partial(folder.add_plot, name, figure)

        def predictions() -> None:
            answers = Predictions.of(trainer, fitted.state, dataset.test, dataset.class_names)
            folder.write_predictions(answers)

        def report() -> None:
            folder.check()
            write_report(folder.path)

        yield predictions
        yield partial(folder.write_model, model)
        yield report
        yield lambda: None  # a signal may have come during the report


def _check_installed(options: TrainOptions) -> None:
    """Raises ImportError for a missing library that the training or its report needs."""
    needed = {"matplotlib": "plots", "jinja2": "pages", "plotly": "pages"}
    needed |= {"tensorboardX": "tensorboard"} if options.tensorboard else {}
    needed |= {"grain": "stream"} if options.stream else {}
    for name, extra in needed.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'{name} must be installed: pip install "convjax[{extra}]"')


def _fail(message: str, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status) from None
