import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convjax.runs.run import load_run
from experiments.cli import registry
from experiments.cli.app import app
from tests.helpers import wait_for


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# One of each kind: arithmetic, trainings with and without batch norm, a comparison.
NAMES = ("edge-values", "one-cycle", "batch-norm", "norm-layers")


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """The folder of a quick run of some claims with two seeds, and the result of the command.

    The quick run of all claims is a command of the README, which its own test runs.
    """
    out = tmp_path_factory.mktemp("run") / "out"
    return out, invoke("run", *NAMES, "--quick", "--seeds", 2, "--out", out)


def test_list_names_every_claim():
    result = invoke("list")
    assert result.exit_code == 0
    assert all(claim.id in result.stdout for _, claim in registry.all_claims())


@pytest.mark.slow
def test_run_writes_results_runs_and_pictures(quick_run):
    out, result = quick_run
    assert result.exit_code == 0, result.output
    results = json.loads((out / "results.json").read_text())
    assert {entry["id"] for entry in results["claims"]} == set(NAMES)
    assert {entry["verdict"] for entry in results["claims"]} == {"undecided"}
    assert results["environment"]["jax"]
    runs = sorted(path.parent for path in (out / "runs").rglob("config.json"))
    watched = [path for path in runs if "comparisons" not in path.parts]
    assert len(watched) == 2 * 2  # two settings, two seeds
    assert len(runs) > len(watched)
    for path in runs:
        run = load_run(path)
        assert run.record.steps == run.config["steps"] == run.metrics[-1]["step"]
    pictures = {path.stem for path in (out / "plots").glob("*.png")}
    assert {"one-cycle", "norm-layers"} <= pictures
    assert "train_loss" in result.stdout
    # The closing table has one line per claim, and the page has every picture.
    closing = result.stdout[result.stdout.rindex("published") :].splitlines()[1 : 1 + len(NAMES)]
    assert [line.split()[0] for line in closing] == list(NAMES)
    assert max(map(len, closing)) <= 100
    assert f"every claim with its picture: {out / 'ledger.html'}" in result.stdout
    text = (out / "ledger.html").read_text(encoding="utf-8")
    named = [name for entry in results["claims"] for name in entry["pictures"]]
    assert text.count("data:image/png;base64,") == len(named) == len(pictures)


@pytest.mark.slow
def test_run_repeats_a_seed_bit_for_bit(quick_run, tmp_path):
    out, _ = quick_run
    result = invoke("run", "batch-norm", "--quick", "--seeds", 2, "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    losses = []
    for root in (out, tmp_path / "again"):
        folder = root / "runs" / "digits-batchnorm-one-cycle-bs512-lr0.06"
        losses.append([load_run(folder / f"seed-{s}").record.loss.tolist() for s in range(2)])
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "one-cicle"], "did you mean 'one-cycle'"),
        (["run", "one-cycle", "--data", "nmist"], "mnist"),
        (["run", "one-cycle", "--data", "mnist", "--data-dir", "/nowhere"], "/nowhere"),
        (["run", "one-cycle", "--layout", "HWNC"], "layout must be one of"),
        (["run", "one-cycle", "--seeds", "0"], "--seeds"),
        (["run", "spreadsheet", "--spreadsheet", "absent.xlsx"], "absent.xlsx"),
        (["run", "spreadsheet", "--spreadsheet", __file__], "must be the chapter's"),
        (["run", "edge-values", "--resume"], "--resume needs the folder of a run"),
        (["run", "edge-values", "--out", f"{__file__}/x"], "cannot read or write"),
        (["bench", "--quick", "--out", f"{__file__}/x"], "--out must lie in a folder"),
        (["run", "edge-values", "spreadsheet", "--spreadsheet", __file__], "must be the chapter's"),
        (["run"], "NAME"),
    ],
)
def test_commands_report_a_mistake_with_status_2(arguments, message, tmp_path):
    if len(arguments) > 1 and "--out" not in arguments:
        arguments = [*arguments, "--out", tmp_path / "out"]
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_run_does_not_overwrite_results(tmp_path):
    (tmp_path / "results.json").write_text("mine")
    result = invoke("run", "edge-values", "--out", tmp_path)
    assert result.exit_code == 2
    assert "new or empty folder" in result.stderr
    assert (tmp_path / "results.json").read_text() == "mine"


@pytest.mark.slow
def test_run_resumes_after_a_kill(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments", "run", "one-cycle", "schedule", "norm-layers"]
    command += ["--quick", "--out", str(out)]
    with subprocess.Popen(command) as process:
        # Waits for the first of the four trainings of the last claim.
        wait_for(lambda: list(out.glob("runs/comparisons/*/*/record.npz")), process)
        process.kill()
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("record.npz")}
    before = json.loads((out / "results.json").read_text())["claims"]
    assert [entry["id"] for entry in before] == ["one-cycle", "schedule"]
    # In a process of its own: this one shows other devices, which the configuration has.
    result = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "claim 3 of 3: norm-layers" in result.stdout
    assert "claim 1 of 3" not in result.stdout
    after = json.loads((out / "results.json").read_text())["claims"]
    assert after[:2] == before
    assert [entry["id"] for entry in after[2:]] == ["norm-layers"]
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert len(list(out.rglob("record.npz"))) == 5


def test_run_reports_how_to_resume_after_an_interrupt(tmp_path, monkeypatch):
    from experiments import edge_kernels

    def stop(lab):
        raise KeyboardInterrupt

    claims = (replace(edge_kernels.CLAIMS[0], measure=stop),)
    monkeypatch.setattr(edge_kernels, "CLAIMS", claims)
    out = tmp_path / "out"
    result = invoke("run", "edge-values", "--out", out)
    assert result.exit_code == 130
    assert f"the same command with --out {out} --resume resumes the run" in result.stderr
    assert json.loads((out / "results.json").read_text())["claims"] == []


def test_run_writes_nothing_if_interrupted_before_the_first_claim(tmp_path, monkeypatch):
    def stop(names):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "find", stop)
    result = invoke("run", "edge-values", "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (130, "stopped; nothing was written.\n")


def test_run_shows_verdicts_a_closing_table_and_a_page(tmp_path):
    out = tmp_path / "out"
    result = invoke("run", "edge-values", "edge-formula", "--out", out)
    assert result.exit_code == 0, result.output
    assert "edge-values is reproduced: equal" in result.stdout
    assert "1 reproduced, 1 refuted, 0 undecided" in result.stdout
    assert 'id="edge-formula"' in (out / "ledger.html").read_text(encoding="utf-8")
    # The page of a resumed run has the claims of both.
    again = invoke("run", "multiplications", "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    text = (out / "ledger.html").read_text(encoding="utf-8")
    assert 'id="edge-formula"' in text
    assert 'id="multiplications"' in text


def test_run_without_the_library_for_pages_writes_no_page(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = invoke("run", "edge-values", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "There is no ledger.html: pages need jinja2" in result.stdout
    assert "every claim with its picture" not in result.stdout
    assert not (tmp_path / "out" / "ledger.html").exists()


def test_run_dry_run_lists_seeds_brief_forms_and_what_is_left_out(tmp_path):
    result = invoke("run", "chapter", "--dry-run", "--out", tmp_path / "out")
    plan = json.loads(result.stdout)
    assert (plan["measured"]["one-cycle"], plan["measured"]["baseline-fails"]) == (1, 5)
    assert "higher-lr" in plan["brief"]
    assert "colour-space" in plan["left_out"]
    assert len(plan["measured"]) + len(plan["left_out"]) == len(registry.find(["chapter"]))
    whole = json.loads(invoke("run", "chapter", "--seeds", 5, "--dry-run").stdout)
    assert set(whole["measured"].values()) == {5}
    assert whole["brief"] == whole["left_out"] == []
    assert not list(tmp_path.iterdir())


def test_run_dry_run_checks_the_run_to_resume(tmp_path):
    out = tmp_path / "out"
    assert invoke("run", "edge-values", "--out", out).exit_code == 0
    again = ["run", "edge-values", "--out", out, "--resume", "--dry-run"]
    assert invoke(*again).exit_code == 0
    result = invoke(*again, "--layout", "NCHW")
    assert result.exit_code == 2
    assert "was measured with layout 'auto', not 'NCHW'" in result.stderr


@pytest.mark.slow
def test_script_runs_the_claims_of_its_file(request, tmp_path):
    script = request.config.rootpath / "experiments" / "edge_kernels.py"
    done = subprocess.run(
        [sys.executable, script, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    verdicts = json.loads((tmp_path / "out" / "results.json").read_text())["claims"]
    usage = subprocess.run(
        [sys.executable, script, "edge-values"], capture_output=True, text=True, check=False
    )
    assert usage.returncode == 2
    assert "experiments/edge_kernels.py --help" in usage.stderr  # a script takes no NAME
    assert [entry["verdict"] for entry in verdicts] == ["reproduced", "refuted", "reproduced"]


def test_run_exits_with_1_for_an_unexpected_verdict(tmp_path, monkeypatch):
    from experiments import edge_kernels

    monkeypatch.setattr(edge_kernels, "TOP_EDGE", -edge_kernels.TOP_EDGE)
    result = invoke("run", "edge-values", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "refuted" in result.stdout


def folder_of_images(root, classes, size):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (size, size), np.uint8)
            Image.fromarray(pixels).save(root / split / name / "1.png")
    return root


@pytest.mark.filterwarnings("ignore:all images of one are of one class:UserWarning")
def test_run_writes_nothing_for_data_that_no_claim_supports(tmp_path):
    large = folder_of_images(tmp_path / "large", "ab", 40)
    out = tmp_path / "out"
    result = invoke("run", "hand-features", "--quick", "--data", large, "--out", out)
    assert result.exit_code == 2
    assert "at most 32×32 pixels" in result.stderr
    assert not out.exists()
    one = folder_of_images(tmp_path / "one", "a", 8)
    result = invoke("run", "hand-features", "--quick", "--data", one, "--out", out)
    assert result.exit_code == 2
    assert "--data must have at least two classes, got a alone" in result.stderr
    assert not out.exists()
