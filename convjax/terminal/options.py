"""Options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str,
    typer.Option(
        help="mnist5k (embedded), mnist, fashion_mnist, kmnist, qmnist, emnist_letters, cifar10, "
        "cifar100, or a folder."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the IDX files or the archive of a data set (default: "
        "$CONVJAX_DATA_DIR), or with images of cifar10."
    ),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        help="Order of the axes in the networks: NHWC, NCHW, CHWN, or auto (CHWN on CPU, NHWC "
        "elsewhere)."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds: 0 to N − 1.")]
Rounds = Annotated[
    int, typer.Option(min=1, help="Measurements of each case, in turns; the medians are shown.")
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Run all the code at its smallest size; the figures mean nothing."
    ),
]
OutFile = Annotated[Path, typer.Option(help="New file for the results (JSON).")]
OutPage = Annotated[Path, typer.Option(help="New file for the page (HTML).")]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the results, new or empty (see --resume). Default: runs/DATE-TIME."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print the configuration, and stop.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the folder, at the end.")]
