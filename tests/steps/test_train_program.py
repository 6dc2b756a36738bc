"""train by a notebook or a script: unchanged programs in; a model, numbers and pages out; one line for what fails."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import ConfigError, UserCodeError
from edgewright.steps.code import code_digests
from edgewright.steps.models import load_model, read_document
from edgewright.steps.train_program import options

SCRIPT = """
import json, os, pickle, sys
import pandas as pd
from sklearn.tree import DecisionTreeClassifier
given = json.load(open(os.environ["EDGEWRIGHT_ARGS"]))
rows = pd.read_parquet(os.environ["EDGEWRIGHT_INPUT"] + "/train.parquet")
label = os.environ["EDGEWRIGHT_LABEL"]
tree = DecisionTreeClassifier(max_depth=given.get("depth", 3), random_state=int(os.environ["EDGEWRIGHT_SEED"]))
tree.fit(rows[json.loads(os.environ["EDGEWRIGHT_FEATURES"])], rows[label])
out = os.environ["EDGEWRIGHT_OUTPUT"]
pickle.dump(tree, open(out + "/model.pkl", "wb"))
json.dump({"leaves": int(tree.get_n_leaves())}, open(out + "/metrics.json", "w"))
open(out + "/rules.txt", "w").write("as they grew")
open("left_behind.txt", "w").write("in a folder of its own")
print("options", sys.argv[1:])
"""


def table(rows: int = 120, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["y"] = (frame.a + 0.5 * frame.b > 0).astype(int)
    return frame


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def data(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(), "test": table(40, 2)}, "y")


def notebook(place: Workplace, *cells: str, tagged: bool = True) -> None:
    book = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    if tagged:
        book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, place.code / "explore.ipynb")


# -- scripts -----------------------------------------------------------------------------------------------------------


def test_a_script_leaves_a_model_numbers_and_files(
    place: Workplace, data: ArtifactRef, caplog: pytest.LogCaptureFixture
) -> None:
    (place.code / "train.py").write_text(SCRIPT)
    with caplog.at_level("INFO"):
        result = place.run(
            "train", data=data, script="train.py", args={"depth": 2, "fast": True, "names": ["p"]}, seed=3
        )
    folder = place.store.fetch(result.outputs["model"])
    assert read_document(folder).details == {"estimator": "DecisionTreeClassifier"}
    assert load_model(folder).estimator.max_depth == 2  # type: ignore[attr-defined]
    assert result.metrics["leaves"] == 4
    assert result.metrics["train_accuracy"] > 0.8
    kept = place.store.fetch(result.outputs["report"])
    assert (kept / "rules.txt").read_text() == "as they grew"
    assert not (kept / "model.pkl").exists()
    assert "options ['--depth=2', '--fast', '--names=[\"p\"]']" in caplog.text
    assert not (place.code / "left_behind.txt").exists()


def test_the_same_script_gives_the_same_model(place: Workplace, data: ArtifactRef) -> None:
    (place.code / "train.py").write_text(SCRIPT)
    first, second = (place.run("train", run=run, data=data, script="train.py") for run in ("one", "two"))
    assert first.outputs["model"].sha256 == second.outputs["model"].sha256


def test_a_program_in_another_language_leaves_onnx(place: Workplace, data: ArtifactRef) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = table()
    model = LogisticRegression().fit(rows[["a", "b", "c"]], rows.y)
    exported = to_onnx(model, rows[["a", "b", "c"]].to_numpy("float32")[:1], options={"zipmap": False})
    (place.code / "made.onnx").write_bytes(exported.SerializeToString())
    (place.code / "train.sh").write_text(
        'head -2 "$EDGEWRIGHT_INPUT/rows.csv"\ncp made.onnx "$EDGEWRIGHT_OUTPUT/model.onnx"\n'
    )
    result = place.run("train", data=data, script="train.sh", inputs={"rows": "rows.csv"})
    assert read_document(place.store.fetch(result.outputs["model"])).format == "onnx"
    assert "report" not in result.outputs


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("print('reading'); raise SystemExit(4)", "train.py ended with 4", "reading"),
        ("import os; os.kill(os.getpid(), 9)", "train.py was killed by signal 9", "it wrote nothing"),
        ("1 / 0", "train.py ended with 1", "ZeroDivisionError: division by zero"),
        ("pass", "train.py left no model; it left nothing", "EDGEWRIGHT_OUTPUT"),
        (f"{SCRIPT}\nopen(out + '/model.onnx', 'w')", "train.py left model.onnx and model.pkl", "leave one model"),
        (f"{SCRIPT}\nopen(out + '/metrics.json', 'w').write('[1]')", "holds something else than numbers", "val_loss"),
        (f"{SCRIPT}\nopen(out + '/model.pkl', 'wb').write(b'none')", "the model.pkl of train.py cannot be loaded", ""),
    ],
)  # fmt: skip
def test_what_a_script_does_wrong_is_one_line(
    place: Workplace, data: ArtifactRef, text: str, message: str, hint: str
) -> None:
    (place.code / "train.py").write_text(text)
    with pytest.raises(UserCodeError) as raised:
        place.run("train", data=data, script="train.py")
    assert message in raised.value.message
    assert hint in str(raised.value.hint)


def test_a_program_that_is_not_here_is_said(place: Workplace, data: ArtifactRef) -> None:
    (place.code / "train.r").write_text("1")
    with pytest.raises(ConfigError, match="train.r needs no-such-program, which is not installed here"):
        place.run("train", data=data, script="train.r", interpreter=["no-such-program", "-q"])
    (place.code / "train.zz").write_text("1")
    with pytest.raises(ConfigError, match="nobody knows what runs train.zz"):
        place.run("train", data=data, script="train.zz")


def test_options_of_a_command_line() -> None:
    given = {"a": 1.5, "on": True, "off": False, "none": None, "text": "x y", "map": {"k": 1}}
    assert options(given) == ["--a=1.5", "--on", "--text=x y", '--map={"k": 1}']


# -- notebooks ---------------------------------------------------------------------------------------------------------

READ = "import pandas as pd\nrows = pd.read_csv(path)\nX, y = rows[['a', 'b', 'c']], rows.y"
FIT = "from sklearn.tree import DecisionTreeClassifier\nforest = DecisionTreeClassifier(max_depth=depth).fit(X, y)"


def test_a_notebook_runs_unchanged_and_is_kept(place: Workplace, data: ArtifactRef) -> None:
    notebook(
        place, "path = 'mine.csv'\ndepth = 9", READ, FIT, "metrics = {'leaves': forest.get_n_leaves(), 'who': 'me'}"
    )
    result = place.run(
        "train", data=data, notebook="explore.ipynb", inputs={"path": "rows.csv"}, args={"depth": 1}, returns="forest"
    )
    assert load_model(place.store.fetch(result.outputs["model"])).estimator.max_depth == 1  # type: ignore[attr-defined]
    assert result.metrics["leaves"] == 2
    kept = place.store.fetch(result.outputs["report"])
    executed = nbformat.read(kept / "explore.ipynb", as_version=4)
    assert any("depth = 1" in cell.source for cell in executed.cells)
    assert "DecisionTreeClassifier" in (kept / "report.html").read_text()
    assert result.outputs["report"].meta["page"] == "report.html"


def test_a_cell_that_fails_is_named(place: Workplace, data: ArtifactRef) -> None:
    notebook(place, "depth = 1", "print('so far')", "rows = 3\nrows.head()\nmodel = None")
    with pytest.raises(UserCodeError) as raised:
        place.run("train", data=data, notebook="explore.ipynb")
    assert (
        raised.value.message == "explore.ipynb failed in cell [3]: AttributeError: 'int' object has no attribute 'head'"
    )
    assert "line 2 rows.head()" in str(raised.value.hint)


def test_a_notebook_that_ignores_its_arguments_is_refused(place: Workplace, data: ArtifactRef) -> None:
    notebook(place, "depth = 1\nmodel = 2", tagged=False)
    with pytest.raises(ConfigError, match="no cell with the tag parameters that could take depth"):
        place.run("train", data=data, notebook="explore.ipynb", args={"depth": 2})


# -- what is seen before anything runs ---------------------------------------------------------------------------------


def test_the_digest_of_a_notebook_is_of_its_cells(place: Workplace) -> None:
    notebook(place, "import helper\npath = 1", "model = path")
    (place.code / "helper.py").write_text("a = 1")
    (place.code / "other.py").write_text("a = 1")
    before = code_digests(place.code, ["explore.ipynb"])
    assert "helper.py" in before
    assert "other.py" not in before
    book = nbformat.read(place.code / "explore.ipynb", as_version=4)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    nbformat.write(book, place.code / "explore.ipynb")
    assert code_digests(place.code, ["explore.ipynb"]) == before
    book.cells[1].source = "model = path + 1"
    nbformat.write(book, place.code / "explore.ipynb")
    assert code_digests(place.code, ["explore.ipynb"])["explore.ipynb"] != before["explore.ipynb"]
