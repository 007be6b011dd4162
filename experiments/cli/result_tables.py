"""The tables of all files of results, in Markdown."""

from collections.abc import Callable
from typing import Any

from experiments.bench.devices import markdown_devices
from experiments.bench.record import markdown_records
from experiments.bench.report import markdown_bars
from experiments.bench.stream import markdown_streams
from experiments.bench.sweep import markdown_costs
from experiments.bench.targets import markdown_targets
from experiments.bench.watched_loop import markdown_watched
from experiments.cli.ledger import markdown_ledger
from experiments.diagnosis_study.report import tables
from experiments.diagnosis_study.results import DiagnosisResult
from experiments.diagnosis_study.sets_report import sets_tables
from experiments.harness.claim import Result
from experiments.layout_study.report import markdown_layouts
from experiments.layout_study.targets import markdown_layouts_by_target
from experiments.receptive_fields.run import markdown_fields

# The writer of the Markdown, by the key that only that command's results have.
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "claims": lambda found: markdown_ledger(list(map(Result.from_json, found["claims"]))),
    "bars": markdown_bars,
    "diagnosed": lambda found: "\n\n".join(sets_tables(found["diagnosed"])),
    "devices": lambda found: markdown_devices(found["devices"]),
    "fields": lambda found: markdown_fields(found["fields"]),
    "layouts": markdown_layouts,
    "layouts_by_target": lambda found: markdown_layouts_by_target(found["layouts_by_target"]),
    "records": lambda found: markdown_records(found["records"]),
    "watched_loops": lambda found: markdown_watched(found["watched_loops"]),
    "streams": lambda found: markdown_streams(found["streams"]),
    "sweeps": lambda found: markdown_costs(found["sweeps"]),
    "compiled_steps": lambda found: markdown_targets(found["compiled_steps"]),
    "trainings": lambda found: "\n\n".join(
        tables([DiagnosisResult(**row) for row in found["trainings"]])
    ),
}
