"""Every tutorial is executed on a toy, all in one kernel, as `jupyter execute` would; what each shows is looked at."""

import re
from pathlib import Path

import pytest

from diascope.notebook import tutorial

FOLDER = Path(__file__).parents[2] / "tutorials"
NAMES = ("1_first_look", "2_train", "3_steer", "4_trace", "5_audit")
FRESH = "%reset -sf\nimport gc; gc.collect()"  # a kernel's imports take longer than any tutorial


@pytest.fixture(scope="module")
def read():
    nbformat = pytest.importorskip("nbformat")
    return lambda name: nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(read, tmp_path_factory):
    """`executed(name)`: a tutorial with its outputs."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    patch = pytest.MonkeyPatch()
    patch.setenv(tutorial.VARIABLE, tutorial.TOY)
    patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tutorials")))
    first = nbclient.NotebookClient(read(NAMES[0]), kernel_name="python3")

    def execute(name):
        book = read(name)
        book.cells.insert(0, nbformat.v4.new_code_cell(FRESH))
        client = nbclient.NotebookClient(book, km=first.km, timeout=120)
        client.kc = first.kc
        for number, cell in enumerate(book.cells):
            client.execute_cell(cell, number)
        return book

    with first.setup_kernel():
        yield execute
    patch.undo()


def told(book):
    """All that was printed, and all that was shown as HTML."""
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    text = "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout")
    return text, [o["data"]["text/html"] for o in outputs if "text/html" in o.get("data", {})]


def test_they_are_stored_without_outputs(read):
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == list(NAMES)
    for book in map(read, NAMES):
        assert all(not c.outputs and c.execution_count is None for c in book.cells if c.cell_type == "code")
        assert book.cells[0].cell_type == "markdown" and len({c.id for c in book.cells}) == len(book.cells)


def test_links_lead_somewhere(read):
    for name in NAMES:
        for cell in read(name).cells:
            for to in re.findall(r"\]\(([^)#]+)\)", cell.source if cell.cell_type == "markdown" else ""):
                assert to.startswith("http") or (FOLDER / to).exists(), f"{name}: {to}"


def test_first_look(executed):
    text, shown = told(executed("1_first_look"))
    assert "FVU here" in text and "latents fired at least once" in text
    assert len(shown) == 2 and all(s.startswith("<iframe") for s in shown)


def test_train(executed):
    text, shown = told(executed("2_train"))
    rows = dict(line.split(maxsplit=1) for line in text.splitlines() if " fvu " in line and not line.startswith("after"))
    assert {"dictionary", "pca", "random"} <= set(rows) and "made: ['sae']" in text and len(shown) == 1


def test_steer(executed):
    text, shown = told(executed("3_steer"))
    assert "as it is" in text and "ablated" in text and len(shown) == 2


def test_trace(executed):
    text, shown = told(executed("4_trace"))
    assert "influence" in text and "rank correlation" in text and len(shown) == 1


def test_audit(executed):
    text, shown = told(executed("5_audit"))
    assert "sandbag |" in text and "declared: 20%" in text and len(shown) == 1


def test_a_missing_workspace_is_one_sentence_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(tutorial.VARIABLE, raising=False)
    with pytest.raises(ValueError, match=r"no workspace .*workspace: `make demo"):
        tutorial.workspace()
    for folder in ("mine", "workspace"):
        (tmp_path / folder / "index").mkdir(parents=True)
        (tmp_path / folder / "index" / "index.json").touch()
    assert tutorial.workspace() == Path("workspace")
    monkeypatch.setenv(tutorial.VARIABLE, "mine")
    assert tutorial.workspace() == Path("mine") and not tutorial.toy()
