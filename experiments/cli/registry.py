"""The registry of claims: the experiments' files, first those of the chapter in its order."""

from importlib import import_module
from types import ModuleType

from convjax._checks import near_match
from experiments.harness.claim import Claim

# The chapter's claims.
FILES = (
    "edge_kernels",
    "loop_cost",
    "arithmetic",
    "equations",
    "colour_images",
    "spreadsheet",
    "layouts",
    "three_or_seven",
    "constant_rate",
    "one_cycle",
    "one_cycle_parts",
    "super_convergence",
    "lr_finder",
    "batch_norm",
    "batch_norm_modes",
    "first_kernel_size",
    "batch_size",
    "batch_norm_benefits",
    "norm_layers",
    "hand_features",
)
# The claims of papers on residual networks, which train at another size with --full.
RESIDUAL_FILES = ("skip_connections", "zero_init", "channel_doubling", "statistics_noise")

# Names that stand for the claims of several files.
GROUPS = {"chapter": FILES, "residual": RESIDUAL_FILES}


class UnknownNameError(ValueError):
    """A name is neither a claim nor an experiment's file."""


def experiment(file: str) -> ModuleType:
    """Returns the module of an experiment's file."""
    return import_module(f"experiments.{file}")


def all_claims() -> list[tuple[str, Claim]]:
    """Returns a pair (file, claim) for every claim."""
    return [
        (file, claim)
        for files in GROUPS.values()
        for file in files
        for claim in experiment(file).CLAIMS
    ]


def find(names: list[str]) -> list[Claim]:
    """Returns the claims with these names, each once, in the order of `all_claims`.

    Args:
      names: claims' ids, experiments' files with or without .py, or names of GROUPS.

    Raises:
      UnknownNameError: for any other name; the message suggests a near match.
    """
    claims = all_claims()
    files = {file for file, _ in claims}
    known = [*(claim.id for _, claim in claims), *files, *GROUPS]
    wanted: set[str] = set()
    for name in names:
        stem = name.rsplit("/", 1)[-1].removesuffix(".py")
        if stem not in known:
            raise UnknownNameError(
                f"NAME must be a claim, an experiment's file, {' or '.join(map(repr, GROUPS))}, "
                f"got {name!r}{near_match(stem, known)} (`python -m experiments list` shows all)."
            )
        wanted |= {stem, *GROUPS.get(stem, ())}
    return [claim for file, claim in claims if wanted & {claim.id, file}]
