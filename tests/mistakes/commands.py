"""Mistakes on the command line: the words after `convjax` or `python -m experiments`, in a folder
that holds what `make_files` makes."""

import shutil
from pathlib import Path

import numpy as np

from tests.mistakes import Mistake

ROOT = Path(__file__).parents[2]
GOLDEN = "tests/golden"


def make_files(folder: Path) -> None:
    """Makes what the commands name."""
    (folder / "text.txt").write_text("hello")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "list.json").write_text("[1, 2]")
    (folder / "folder").mkdir()
    (folder / "half" / "train").mkdir(parents=True)
    (folder / "images" / "train" / "a").mkdir(parents=True)
    (folder / "images" / "train" / "a" / "1.png").write_text("no image")
    shutil.copytree(folder / "images" / "train", folder / "images" / "test")
    run = folder / "out" / "runs" / "digits" / "seed-0"
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    np.savez(folder / "arrays.npz", x=np.arange(3))
    shutil.copy(ROOT / "tests/golden/mnist5k_onecycle_batchnorm.npz", folder / "golden.npz")
    content = (folder / "golden.npz").read_bytes()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])


def _rows(*rows: tuple[str, tuple[str, ...]]) -> list[Mistake]:
    return [Mistake(what, None, holds) for what, holds in rows]


# The three kinds of --out that commands with one file for all figures refuse.
OUT = {
    "folder": ("--out must be a file, got the folder folder", "Add the file's name"),
    "text.txt": ("--out must be a new file, got text.txt", "Choose another"),
    "text.txt/x": ("--out must lie in a folder, got text.txt/x", "text.txt is a file"),
}
NO_TRAIN = ("has no folder train or training", "train/CLASS/*.png", "Rename or move")
ROWS = _rows(
    # --- names of commands and options ---------------------------------------------------------
    ("lst", ("No such command 'lst'", "Did you mean 'list'")),
    ("galler", ("No such command 'galler'", "Did you mean", "gallery")),
    ("list everything", ("unexpected extra argument", "everything")),
    ("run one-cycle --seed 1", ("No such option: --seed", "--seeds")),
    ("diagnosis --fast", ("No such option: --fast",)),
    # --- train ---------------------------------------------------------------------------------
    (
        "train --norm bacth",
        ("--norm must be one of none, batch", "'bacth'", "did you mean 'batch'"),
    ),
    ("train --schedule onecycle", ("--schedule must be one of constant", "mean 'one-cycle'?")),
    ("train --network dgits", ("--network must be one of digits", "did you mean 'digits'?")),
    ("train --watch al", ("--watch must be one of nothing, activations, everything, got 'al'",)),
    ("train --non-finite halt", ("--non-finite must be one of stop, go-on, got 'halt'",)),
    ("train --lr-max 0", ("--lr-max must be a positive number, got 0.0",)),
    ("train --lr-max nan", ("--lr-max must be a positive number, got nan",)),
    ("train --lr-max fast", ("--lr-max", "must be a valid number", "'fast'")),
    ("train --epochs 0", ("--epochs must be at least 1, got 0",)),
    ("train --batch-size -5", ("--batch-size must be at least 1, got -5",)),
    ("train --scores 0", ("--scores must be at least 1, got 0",)),
    ("train --first-kernel 0", ("--first-kernel must be at least 1, got 0",)),
    ("train --seed -1", ("--seed must be a whole number, at least 0, got -1",)),
    ("train --watch-every 0", ("--watch-every must be a whole number, at least 1, got 0",)),
    ("train --layout nchw", ("layout must be one of 'NHWC'", "got 'nchw'")),
    (
        "train --data mnits",
        ("--data must be one of mnist5k", "got 'mnits'", "did you mean 'mnist'?"),
    ),
    ("train --data half", ("has no folder test", "if there is only one folder of images")),
    ("train --lr 0.1", ("No such option: --lr", "--lr-max")),
    ("train --keep 0", ("--keep", "must be greater than or equal to 1, got '0'")),
    ("train --save-seconds -1", ("--save-seconds", "must be greater than or equal to 0, got '-1'")),
    ("train --quiet --json", ("--quiet and --json exclude each other",)),
    ("train --resume", ("--resume needs the folder of the run as --out, got none",)),
    ("train --resume --out new", ("--resume needs the folder of a run", "new", "no config.json")),
    ("train --resume --out folder", ("folder, which has no config.json",)),
    ("train --resume --out folder --config list.json", ("--config must be left out",)),
    ("train --out images", ("--out must be a new or empty folder, got images", "--resume")),
    ("train --out text.txt", ("--out must be a new or empty folder", "which is a file")),
    ("train --config nowhere", ("the configuration nowhere cannot be read", "config.json")),
    ("train --config text.txt", ("text.txt", "config.json of a run")),
    ("train --config list.json", ("list.json", "config.json of a run")),
    (
        "train --config out/runs/digits/seed-0",
        ("is not the configuration of a training", "'setting'"),
    ),
    ("train --devices 0", ("--devices must be a whole number, at least 1, got 0",)),
    ("train --devices 3", ("--batch-size must be a multiple of the number of devices, 3, got 64",)),
    ("train --devices 64", ("devices must be at most", "as many as JAX shows here, got 64")),
    ("train --processes 2", ("several processes needs the folder of the run as --out, got none",)),
    (
        "train --processes 2 --out new",
        ("got no coordinator and no process_id", "--process-id"),
    ),
    ("train --heartbeat -1", ("--heartbeat must be a positive number of seconds, got -1.0",)),
    ("train --wait 0", ("--wait must be a positive number of seconds, got 0.0",)),
    ("train --piece 0", ("--piece must be a whole number, at least 1, got 0",)),
    ("train --data ~unknownx/y", ("~unknownx/y is not a folder", "Give the path")),
    ("train --cluster --processes 2 --out new", ("--cluster must be given without --coordinator",)),
    (
        "train --coordinator here --processes 2 --process-id 0 --out new",
        ("coordinator must be HOST:PORT", "got 'here'"),
    ),
    (
        "train --coordinator localhost:7000 --processes 2 --process-id 2 --out new",
        ("process_id must be from 0 to processes − 1, got 2 of 2",),
    ),
    # --- report and events ---------------------------------------------------------------------
    ("report", ("Missing argument 'RUN...'",)),
    ("report nowhere", ("nowhere does not exist", "Give the folder of a run")),
    ("report folder", ("folder", "holds no run")),
    ("report out", ("out/runs/digits/seed-0",)),
    ("report out/runs/digits/seed-0 folder", ("folder",)),
    ("events nowhere", ("nowhere",)),
    ("events out", ("out/runs/digits/seed-0",)),
    ("run edge-values --quiet --json", ("--quiet and --json exclude each other",)),
    # --- run -----------------------------------------------------------------------------------
    ("run", ("Missing argument 'NAME...'",)),
    ("run one-cicle", ("NAME must be a claim", "got 'one-cicle'", "did you mean 'one-cycle'?")),
    ("run edge_kernals.py", ("got 'edge_kernals.py'", "did you mean 'edge_kernels'?")),
    ("run ''", ("NAME must be a claim", "got ''", "experiments list")),
    ("run one-cycle --seeds 0", ("--seeds", "must be greater than or equal to 1, got '0'")),
    ("run one-cycle --full", ("--full is for the claims on residual networks", "run residual")),
    ("run one-cycle --seeds two", ("--seeds", "must be a valid integer")),
    ("run one-cycle --layout nhwc", ("layout must be one of 'NHWC'", "'auto'", "got 'nhwc'")),
    (
        "run one-cycle --data Mnist",
        ("--data must be one of mnist5k", "got 'Mnist'", "did you mean 'mnist'?"),
    ),
    ("run one-cycle --data ''", ("--data must be one of mnist5k", "got ''", "Choose one of them")),
    ("run one-cycle --data text.txt", ("--data must be one of mnist5k", "got 'text.txt'")),
    ("run one-cycle --data folder/", ("folder", *NO_TRAIN)),
    ("run one-cycle --data half", ("half has no folder test", "Rename or move the folders")),
    ("run one-cycle --data images", ("1.png cannot be decoded", "Replace it", "remove the file")),
    (
        "run one-cycle --data-dir folder",
        ("--data-dir must go with mnist", "got 'folder' with 'mnist5k'", "Leave it out"),
    ),
    ("run one-cycle --data mnist --data-dir none", ("none is not a folder", "Correct --data-dir")),
    (
        "run one-cycle --data mnist --data-dir folder",
        ("--data-dir must hold the four IDX files", "got folder, which has none"),
    ),
    ("run one-cycle --data cifar10 --data-dir folder", ("folder", *NO_TRAIN)),
    ("run one-cycle --out text.txt", ("--out must be a new or empty folder, got text.txt",)),
    ("run one-cycle --out images", ("--out must be a new or empty folder, got images", "--resume")),
    ("run one-cycle --out text.txt/x", ("cannot read or write text.txt/x", "another --out")),
    ("run one-cycle --resume", ("--resume needs the folder of a run as --out", "got no --out")),
    ("run one-cycle --resume --out folder", ("--resume needs the folder of a run", "got folder")),
    ("run spreadsheet --spreadsheet none.xlsx", ("--spreadsheet", "'none.xlsx' does not exist")),
    ("run spreadsheet --spreadsheet folder", ("--spreadsheet", "'folder' is a directory")),
    ("run spreadsheet --spreadsheet text.txt", ("--spreadsheet must be", "is not a spreadsheet")),
    # --- parity --------------------------------------------------------------------------------
    ("parity", ("Missing argument 'FILE...'",)),
    ("parity none.npz", ("FILE none.npz does not exist", "Correct its path")),
    ("parity folder", ("FILE folder is not a complete .npz file", "it is a folder")),
    ("parity text.txt", ("FILE text.txt is not a complete .npz file", "Take another copy")),
    ("parity cut.npz", ("FILE cut.npz is not a complete .npz file",)),
    ("parity arrays.npz", ("FILE arrays.npz is not a trajectory", "it lacks config", GOLDEN)),
    ("parity golden.npz --layout HWCN", ("layout must be one of 'NHWC'", "got 'HWCN'")),
    ("parity golden.npz --data-dri x", ("No such option: --data-dri", "--data-dir")),
    # --- table ---------------------------------------------------------------------------------
    ("table", ("Missing argument 'FILE'",)),
    ("table none.json", ("FILE none.json cannot be read: No such file",)),
    ("table folder", ("FILE folder cannot be read: Is a directory",)),
    ("table text.txt", ("FILE text.txt is not a results.json",)),
    ("table deep.json", ("FILE deep.json is not a results.json",)),
    ("table list.json", ("FILE list.json is not a results.json",)),
    # --- explore -------------------------------------------------------------------------------
    ("explore --run none", ("--run must be the folder of a training", "got none", "not exist")),
    ("explore --run text.txt", ("--run must be the folder", "got text.txt", "is a file")),
    ("explore --run folder", ("got folder, which has no config.json",)),
    ("explore --run out/runs/digits", ("no config.json; did you mean out/runs/digits/seed-0?",)),
    ("explore --run out", ("no config.json; did you mean out/runs/digits/seed-0?",)),
    ("explore --run out/runs/digits/seed-0", ("no complete epoch", "metrics.jsonl is missing")),
    ("explore --run out --spreadsheet x.xlsx", ("--run and --spreadsheet exclude each other",)),
    ("explore --spreadsheet none.xlsx", ("--spreadsheet must be", "the file does not exist")),
    ("explore --spreadsheet folder", ("--spreadsheet must be", "it is a folder")),
    ("explore --spreadsheet text.txt", ("--spreadsheet must be", "is not a spreadsheet")),
    ("explore --spreadsheet arrays.npz", ("--spreadsheet must be", "is not a spreadsheet")),
    ("explore --data-dir folder", ("--data-dir must be given with --run only", "Leave it out")),
    ("explore --run none --out new/folder/x.html", ("--run must be the folder of a training",)),
    # --- measurements --------------------------------------------------------------------------
    (
        "gallery --data nmist --out new/x.html",
        ("--data must be one of mnist5k", "got 'nmist'", "did you mean 'mnist'?"),
    ),
    ("bench --only foo", ("--only", "'foo' is not one of", "engines")),
    ("bench --rounds 0", ("--rounds", "must be greater than or equal to 1, got '0'")),
    ("bench-sweep --rounds x", ("--rounds", "must be a valid integer")),
    (
        "bench-sweep --data fashion",
        ("--data must be one of mnist5k", "got 'fashion'", "did you mean 'fashion_mnist'?"),
    ),
    ("speedrun --seeds 0", ("--seeds", "must be greater than or equal to 1, got '0'")),
    ("speedrun --data folder/ --out new/x.json", ("folder", *NO_TRAIN)),
    *(
        (f"{command} --out {out}", holds)
        for command in ("explore", "gallery", "bench", "bench-record", "bench-sweep", "fields")
        for out, holds in OUT.items()
    ),
    ("diagnosis --out folder", OUT["folder"]),
    ("speedrun --out text.txt", OUT["text.txt"]),
)
