"""``edgewright run`` on the real pipeline: results, cache, faults, interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

TASKS = ["data", "checks", "model", "quality", "int8", "release", "live"]


def states(document: dict[str, Any]) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in document["tasks"]}


def cached(document: dict[str, Any]) -> set[str]:
    return {task["task_id"] for task in document["tasks"] if task["cached"]}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_pipeline_runs_to_its_release(first_run):
    assert states(first_run) == {**dict.fromkeys(TASKS, "success"), "live": "skipped"}
    assert first_run["state"] == "success"
    assert cached(first_run) == set()


def test_the_summary_says_what_a_data_engineer_asks(first_run):
    summary = first_run["summary"]
    assert summary["dataset"]["rows"] == 303
    assert len(summary["dataset"]["sha256"]) == 64
    assert {gate["metric"] for gate in summary["gates"]} >= {
        "accuracy",
        "roc_auc",
        "accuracy_vs_champion",
        "accuracy_drop",
    }
    assert all(gate["passed"] for gate in summary["gates"])
    assert summary["metrics"]["quality"]["accuracy"] >= 0.75
    fp32, int8 = summary["variants"]
    assert (fp32["target"], int8["target"]) == ("onnx", "onnx-int8")
    assert min(fp32["bytes"], int8["bytes"], fp32["latency_us"], int8["latency_us"]) > 0
    assert (summary["release"]["name"], summary["release"]["version"], summary["release"]["alias"]) == (
        "bracelet", "1", "champion",
    )  # fmt: skip


def test_the_same_as_text(first_run, shared_workplace):
    done = shared_workplace.call("run", "bracelet", "--skip", "live")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("[1/7] data ")
    assert lines[0].endswith("cached")
    for words in (
        "303 rows",
        "accuracy_vs_champion",
        "passed",
        "onnx-int8",
        "bracelet version 1 as champion",
        "µs a row",
    ):
        assert words in done.stdout
    assert "Traceback" not in done.stderr


def test_an_unchanged_run_reuses_and_publishes_nothing_new(first_run, shared_workplace):
    again = shared_workplace.run("--skip", "live", "--run-id", "second")
    assert {"data", "checks", "model", "int8"} <= cached(again)
    assert again["summary"]["release"]["version"] == "1"
    digests = [
        {task["task_id"]: {n: r["sha256"] for n, r in task["result"]["outputs"].items()} for task in run["tasks"][:5]}
        for run in (first_run, again)
    ]
    for name in ("data", "checks", "model", "int8"):
        assert digests[0][name] == digests[1][name]
    assert {"task": "data", "from": "first"} in again["summary"]["cached"]


def test_a_cached_run_imports_nothing_heavy_until_the_registry_is_asked(first_run, shared_workplace):
    code = (
        "import sys, edgewright.cli.main as m\n"
        "try: m.cli.main(['run', 'bracelet', '--until', 'model'])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "print(sorted(set(sys.modules) & {'airflow', 'mlflow', 'sklearn', 'pandas', 'numpy', 'onnx', 'onnxruntime'}))"
    )
    command = [shared_workplace.command()[0], "-c", code]
    done = subprocess.run(
        command, env=shared_workplace.environment(), cwd=shared_workplace.folder, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_another_param_trains_again(first_run, shared_workplace):
    other = shared_workplace.run("--until", "model", "--param", "alpha=0.01")
    assert list(states(other)) == ["data", "checks", "model"]
    assert cached(other) == {"data", "checks"}
    assert other["params"] == {"alpha": 0.01}


def test_refresh_runs_everything_and_gives_the_same_digests(first_run, shared_workplace):
    fresh = shared_workplace.run("--until", "model", "--refresh")
    assert cached(fresh) == set()
    for task, before in zip(fresh["tasks"], first_run["tasks"], strict=False):
        outputs, earlier = task["result"]["outputs"], before["result"]["outputs"]
        assert {n: r["sha256"] for n, r in outputs.items()} == {n: r["sha256"] for n, r in earlier.items()}


def test_no_cache_neither_uses_nor_keeps(workplace):
    workplace.run("--until", "data", "--no-cache")
    assert not (workplace.home / "store" / "cache").exists()
    assert cached(workplace.run("--until", "data")) == set()
    assert cached(workplace.run("--until", "data")) == {"data"}


def test_touching_the_code_trains_again(first_run, workplace):
    workplace.run("--until", "model")
    with (workplace.pipeline / "model.py").open("a") as file:
        file.write("# changed\n")
    assert cached(workplace.run("--until", "model")) == {"data", "checks"}


def test_another_store_is_another_cache(first_run, shared_workplace, tmp_path):
    document = shared_workplace.run("--until", "data", "--store", f"file://{tmp_path}/elsewhere")
    assert cached(document) == set()
    assert (tmp_path / "elsewhere" / "artifacts").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--param", "alhpa=1"], 'no such param: alhpa; did you mean "alpha"?'),
        (["--param", "alpha=much"], "param alpha: 'much' is not a number"),
        (["--param", "alpha=-1"], "param alpha: -1 is less than the minimum of 0"),
        (["--until", "modle"], 'no such task: modle; did you mean "model"?'),
        (["--skip", "nothing"], "no such task: nothing"),
    ],
)
def test_wrong_arguments_say_what_is_wrong_before_anything_runs(workplace, arguments: list[str], message: str):
    done = workplace.call("run", "bracelet", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert not workplace.home.exists()


def test_a_pipeline_with_faults_is_not_started(workplace):
    edit(workplace.pipeline / "pipeline.yaml", "uses: train", "uses: trian")
    done = workplace.call("run", "bracelet")
    assert done.returncode == 1
    assert 'did you mean "train"?' in done.stderr
    assert "^^^^^" in done.stderr


def test_a_file_that_is_not_there(workplace):
    done = workplace.call("run", "nowhere.yaml")
    assert done.returncode == 1
    assert "error: nowhere.yaml: no such file" in done.stderr


def test_a_gate_that_is_not_met_ends_the_run(workplace):
    edit(workplace.pipeline / "pipeline.yaml", 'accuracy: ">= 0.75"', 'accuracy: ">= 0.999"')
    document = workplace.run(code=1)
    assert states(document) == {
        **dict.fromkeys(("data", "checks", "model"), "success"), "quality": "failed",
        **dict.fromkeys(("int8", "release", "live"), "upstream_failed"),
    }  # fmt: skip
    assert "gate >= 0.999: FAILED" in document["tasks"][3]["error"]
    assert document["summary"]["reports"]["quality"]
    verdicts = {gate["metric"]: gate["passed"] for gate in document["summary"]["gates"]}
    assert verdicts["accuracy"] is False
    assert verdicts["roc_auc"] is True


def test_a_train_function_that_raises_is_the_users_fault(workplace):
    (workplace.pipeline / "model.py").write_text("def fit(data, alpha):\n    raise ValueError('no luck')\n")
    done = workplace.call("run", "bracelet")
    assert done.returncode == 1
    assert "model.py:fit raised ValueError: no luck" in done.stderr
    assert "model.py:2 in fit" in done.stderr
    assert "[4/7] quality" in done.stdout
    assert "not run: needs model" in done.stdout


def test_what_the_users_code_prints_does_not_spoil_the_json(workplace):
    (workplace.pipeline / "model.py").write_text(
        "import os\nprint('hello')\ndef fit(data, alpha):\n    print('hi')\n    os.system('echo child')\n"
    )
    document = workplace.run("--until", "model", code=1)
    assert "model.py:fit returned nothing" in document["tasks"][2]["error"]


def test_a_registry_that_is_down_at_publish_leaves_nothing_half_registered(workplace):
    text = (workplace.pipeline / "pipeline.yaml").read_text()
    head = text.partition("  - id: quality")[0]
    release = "  - {id: release, uses: publish, with: {models: [{$x: model}], name: bracelet, alias: champion}}\n"
    (workplace.pipeline / "pipeline.yaml").write_text(head + release)
    # what the model's function made is kept, so that the next run fails at publish and not before
    done = workplace.call("run", "bracelet", "--until", "model")
    assert done.returncode == 0, done.stderr
    down = workplace.call("run", "bracelet", env={"EDGEWRIGHT_TRACKING_URI": "http://127.0.0.1:9"})
    assert down.returncode == 69, down.stdout + down.stderr
    assert "task release: error: http://127.0.0.1:9: MLflow does not answer" in down.stderr
    assert "hint: start it with `edgewright up`" in down.stderr
    assert "Traceback" not in down.stderr
    again = workplace.call("run", "bracelet")
    assert again.returncode == 0, again.stderr
    assert "bracelet version 1 as champion" in again.stdout


def test_text_in_a_column_of_numbers_names_line_column_and_value(workplace):
    lines = (workplace.pipeline / "cleveland.csv").read_text().splitlines()
    cells = lines[4].split(",")
    lines[4] = ",".join([cells[0], "much", *cells[2:]])
    (workplace.pipeline / "cleveland.csv").write_text("\n".join(lines) + "\n")
    done = workplace.call("run", "bracelet", "--until", "data")
    assert done.returncode == 1
    assert "cleveland.csv:5: column sex holds numbers, but here it is 'much'" in done.stderr
    assert "hint: mend the row" in done.stderr


@pytest.mark.parametrize("size", ["16k", "64k"])
def test_a_full_disk_of_the_artifact_store_fails_the_task_with_a_hint(workplace, size: str):
    disk = workplace.folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount")
    try:
        done = workplace.call("run", "bracelet", "--until", "checks", "--store", f"file://{disk}/store")
        assert done.returncode == 70, done.stdout + done.stderr
        assert "No space left on device" in done.stderr
        assert "hint: the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(disk.rglob(".tmp-*")) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_deploying_without_a_service_says_how_to_start_one(first_run, shared_workplace):
    done = shared_workplace.call("run", "bracelet")
    assert done.returncode in (1, 69)
    assert "task live: error:" in done.stderr
    assert "edgewright" in done.stderr.partition("task live")[2]
    assert "6 of 7 tasks done" in done.stdout


def _hears_interrupts() -> None:
    """Undo what a shell does to the programs that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_half_done(workplace, number: int):
    (workplace.pipeline / "model.py").write_text(
        "import pathlib, time\ndef fit(data, alpha):\n    pathlib.Path('started').touch()\n    time.sleep(60)\n"
    )
    scratch = workplace.folder / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        workplace.command("run", "bracelet"), cwd=workplace.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=workplace.environment({"TMPDIR": str(scratch)}), preexec_fn=_hears_interrupts,
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not (workplace.folder / "started").exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert list(scratch.glob("edgewright-*")) == []
    assert list((workplace.home / "store").rglob(".tmp-*")) == []
    (result,) = (workplace.home / "store" / "runs").glob("*/*/model/result.json")
    assert json.loads(result.read_text())["state"] == "failed"
    assert not any(process.pid == child.ppid() for child in psutil.process_iter())


def test_a_handler_in_another_language_is_refused_before_anything_runs_or_left_out(workplace):
    file = workplace.pipeline / "other.yaml"
    file.write_text("dag_id: other\ntasks: [{id: first}, {id: other, run: {}, queue: java, needs: [first]}]\n")
    refused = workplace.call("run", str(file))
    assert refused.returncode == 1
    assert "tasks.other.run: run: is for an Airflow worker of another language" in refused.stderr
    assert "first" not in refused.stdout
    assert workplace.call("run", str(file), "--skip", "other").returncode == 0
