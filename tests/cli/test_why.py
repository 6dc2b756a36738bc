"""``edgewright why``: every part of the cache key is named when it changes."""

from __future__ import annotations

import json

import pytest

from edgewright.artifacts import ArtifactStore
from edgewright.cli.why import explain, explanation_text
from edgewright.errors import NotFound


@pytest.fixture
def runs(workplace):
    """Return a workplace in which the model was trained once, and a function that asks why."""
    workplace.run("--until", "model", "--run-id", "one")

    def why(*arguments: str):
        done = workplace.call("why", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return workplace, why


def test_the_first_run_has_nothing_to_compare_with(runs):
    _, why = runs
    text = why("one", "model")
    assert text.startswith("bracelet  one  model (train): ran: nothing was made from these inputs before")
    assert "no earlier run" in text


def test_a_hit_says_from_where(runs):
    workplace, why = runs
    workplace.run("--until", "model", "--run-id", "two")
    text = why("latest", "model")
    assert text.splitlines()[0] == (
        "bracelet  two  model (train): reused from one; nothing that matters changed since then"
    )


def test_config_and_code_and_inputs(runs):
    workplace, why = runs
    with (workplace.pipeline / "model.py").open("a") as file:
        file.write("# changed\n")
    (workplace.pipeline / "table.csv").write_text("1\n")
    pipeline = workplace.pipeline / "pipeline.yaml"
    pipeline.write_text(pipeline.read_text().replace("seed: 7", "seed: 8"))
    workplace.run("--until", "model", "--run-id", "two", "--param", "alpha=0.01")
    text = why("two", "model")
    assert "changed since one:" in text
    assert "config args.alpha: 0.001 -> 0.01" in text
    assert "code: model.py changed" in text
    assert "code: table.csv is new" in text
    assert "input: data changed, " in text
    assert "(made by task checks: edgewright why two checks)" in text
    assert "config split.seed: 7 -> 8" in why("two", "data")


def test_the_data_file_itself(runs):
    workplace, why = runs
    with (workplace.pipeline / "cleveland.csv").open("a") as file:
        file.write("45,1,3,112,230,0,2,165,0,2.5,2,1,7,1\n")
    workplace.run("--until", "data", "--run-id", "two")
    assert "    state " in why("two", "data")


def test_libraries_are_named_with_their_versions(runs):
    workplace, _ = runs
    workplace.run("--until", "model", "--run-id", "two", "--refresh")
    store = ArtifactStore(workplace.home / "store")
    # as another environment would have left it
    key = store.read_json("runs/bracelet/one/model/key.json")
    packages = store.read_json(f"environments/{key['environment']['packages']}.json")
    older = {**packages, "pandas": "3.0.0"}
    older.pop("click")
    store.write_json("environments/older.json", older)
    key["environment"]["packages"] = "older"
    store.write_json("runs/bracelet/one/model/key.json", key)
    found = explain(store, "two", "model")
    words = {change["text"] for change in found["changes"]}
    assert words == {
        f"environment: pandas 3.0.0 -> {packages['pandas']}",
        f"environment: click not installed -> {packages['click']}",
    }
    assert found["reason"] == "the run asked for a refresh"


def test_what_a_step_reads_elsewhere(first_run, shared_workplace):
    shared_workplace.run("--skip", "live", "--run-id", "with-champion")
    text = explanation_text(
        explain(ArtifactStore(shared_workplace.home / "store"), "with-champion", "quality", against="first")
    )
    assert "state champion" in text


def test_steps_that_always_run_say_so(first_run, shared_workplace):
    done = shared_workplace.call("why", "first", "release")
    assert "this step acts on the world, so it always runs" in done.stdout


def test_a_run_by_name_and_another_to_compare_with(runs):
    workplace, why = runs
    workplace.run("--until", "model", "--run-id", "two", "--param", "alpha=0.01")
    workplace.run("--until", "model", "--run-id", "three", "--param", "alpha=0.02")
    assert "args.alpha: 0.01 -> 0.02" in why("three", "model")
    assert "args.alpha: 0.001 -> 0.02" in why("three", "model", "--against", "one")
    document = json.loads(why("three", "model", "--json"))
    assert document["compared_with"] == "two"
    assert document["changes"] == [
        {"part": "config", "place": "args.alpha", "old": 0.01, "new": 0.02, "text": "config args.alpha: 0.01 -> 0.02"}
    ]


def test_a_key_that_did_not_change_after_a_failure(workplace):
    (workplace.pipeline / "model.py").write_text("def fit(data, alpha):\n    raise ValueError('no luck')\n")
    workplace.run("--until", "model", "--run-id", "one", code=1)
    workplace.run("--until", "model", "--run-id", "two", code=1)
    text = workplace.call("why", "two", "model").stdout
    assert "its key is the same as in one, which ended failed" in text


def test_names_that_do_not_exist(runs):
    workplace, _ = runs
    done = workplace.call("why", "on", "model")
    assert done.returncode == 1
    assert 'no such run: on; did you mean "one"?' in done.stderr
    done = workplace.call("why", "one", "modle")
    assert 'no such task in that run: modle; did you mean "model"?' in done.stderr


def test_no_runs_at_all(tmp_path):
    with pytest.raises(NotFound, match="there are no runs here"):
        explain(ArtifactStore(tmp_path), "latest", "model")
