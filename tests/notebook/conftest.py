"""What tests of notebooks share: a toy's dictionary and index, Chromium, and a page that stands for a notebook."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from notebook_wire import HOSTILE, Wire

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.latents.build import build_index
from diascope.latents.examples import live_rows
from diascope.latents.store import Index
from diascope.tokens import Document, pack


@pytest.fixture(scope="session")
def d():
    g = torch.Generator().manual_seed(0)
    tensors = {
        "W_enc": torch.randn(32, 64, generator=g) / 5, "W_dec": torch.nn.functional.normalize(torch.randn(64, 32, generator=g), dim=1),
        "b_enc": torch.zeros(64), "b_dec": torch.zeros(32), "threshold": torch.full((64,), 1.0),
    }  # fmt: skip
    return Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", 32, 32, 64), tensors)


@pytest.fixture(scope="session")
def index(toy, d, tmp_path_factory):
    words, r = ["river", "town", "road", HOSTILE], np.random.default_rng(0)
    sequences = pack(toy, [Document(f"d{i}", " ".join(r.choice(words, 14))) for i in range(60)], context=64, max_tokens=64 * 40)
    rows = live_rows(toy, sequences, [d.site_in])
    return Index(build_index(toy, {"sae": d}, sequences, rows, tmp_path_factory.mktemp("i") / "index"))


# anywidget's model as channel.js sees it; `wire` is exposed by the test
HOST = """
const heard = new Set();
const model = {
  get: () => window.frameId,
  send: async (content) => { for (const part of await window.wire(content)) heard.forEach((f) => f(part)); },
  on: (_, f) => heard.add(f),
  off: (_, f) => heard.delete(f),
};
window.hangUp = widget.initialize({ model });
"""


@pytest.fixture
def cell(browser):
    """`cell(shown, live=False)`: the frame of an output in a page that stands for a notebook, with a channel to the desk if it is live.

    No script may fail, nothing may be asked of a network, and the page stays as it was.
    """
    page, trouble, wires = browser.new_page(viewport={"width": 900, "height": 900}), [], []
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda e: trouble.append(str(e)))
    page.on("console", lambda m: m.type == "error" and trouble.append(m.text))
    page.on("dialog", lambda dialog: trouble.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda r: r.url.startswith("http") and trouble.append(r.url))
    page.expose_function("wire", lambda content: wires[-1].hear(content))
    script = (files("diascope.notebook") / "channel.js").read_text(encoding="utf-8").replace("export default", "const widget =")

    def show(shown, live=False):
        page.set_content(f"<title>notebook</title>{shown._repr_html_()}")
        if live:
            wires.append(Wire(shown.desk))
            page.evaluate(f"id => {{ window.frameId = id; {script} {HOST} }}", shown.id)
        return page.frame_locator("iframe")

    show.page = page
    yield show
    assert trouble == [] and page.title() == "notebook" and page.evaluate("window.wrong") is None
    page.close()
