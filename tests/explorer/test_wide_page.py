"""A dictionary of 262,144 latents, indexed by the product's own builder and looked at in a real browser beside a model."""

import re
from time import perf_counter

import numpy as np
import pytest
import torch
from steer_workspace import TOKEN, served

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.explorer.live import Opened
from diascope.latents import build
from diascope.latents.build import build_index
from diascope.latents.examples import live_rows
from diascope.latents.store import Index
from diascope.sites import Site
from diascope.tokens import Document, pack

pytestmark = [
    pytest.mark.page,
    pytest.mark.slow,  # its index takes half a minute to build
]
S = 262_144
SITE = "L2.resid_post"
WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()


def random_dictionary(x):
    """S random latents, each with the threshold that its largest pre-activation on `x` [n, 32] exceeds in one case of 16."""
    g = torch.Generator().manual_seed(0)
    W = torch.nn.functional.normalize(torch.randn(S, 32, generator=g), dim=1)
    most = torch.cat([(x @ part.t()).amax(0) for part in W.split(8192)])
    threshold = torch.where(torch.rand(S, generator=g) < 1 / 16, 0.97 * most, 2 * most.abs() + 1)
    tensors = {
        "W_enc": W.t().contiguous(),
        "W_dec": W,
        "b_enc": torch.zeros(S),
        "b_dec": torch.zeros(32),
        "threshold": threshold,
    }
    return Dictionary(DictionaryConfig.single("toy", SITE, SITE, 32, 32, S), tensors)


def nearby(d, *, k=8):
    """Neighbours among the next 1,024 latents: all of them take minutes, and are not what is looked at here."""
    found = [W @ W.t() - 3 * torch.eye(len(W)) for W in d.W_dec.split(1024)]
    top = [c.topk(k, dim=1) for c in found]
    return torch.cat([t.indices.int() + 1024 * i for i, t in enumerate(top)]), torch.cat([t.values for t in top])


@pytest.fixture(scope="module")
def wide(toy, tmp_path_factory):
    """(index, dictionary, how often each latent fired [S])."""
    r = np.random.default_rng(0)
    sequences = pack(toy, [Document(f"d{i}", " ".join(r.choice(WORDS, 14))) for i in range(12)], context=64, max_tokens=640)
    rows = list(live_rows(toy, sequences, [Site.parse(SITE)]))
    x = torch.cat([vectors for chunk, _, _ in rows for vectors in chunk.values()])
    d = random_dictionary(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "neighbours", nearby)
        folder = build_index(toy, {"wide": d}, sequences, rows, tmp_path_factory.mktemp("wide") / "index")
    pre = [(x @ part > t).sum(0) for part, t in zip(d.W_enc.split(8192, dim=1), d.threshold.split(8192))]
    return Index(folder), d, torch.cat(pre).numpy()


@pytest.fixture(scope="module")
def address(wide, toy):
    index, d, _ = wide
    with served(index, Opened((toy, {"wide": d}))) as (address, _):
        yield address


def whole(page):
    """How many latents the table says that there are in the view."""
    return int(re.search(r"of ([\d,]+)", page.locator(".pager span").inner_text())[1].replace(",", ""))


def column(page, name):
    heads = [head.rstrip(" ↓↑") for head in page.locator("table.browse th").all_inner_texts()]
    place = heads.index(name) + 1
    return page.locator(f"table.browse tbody td:nth-child({place})").all_inner_texts()


def test_the_whole_of_it_is_browsed_sorted_filtered_and_searched(explore, address, wide):
    index, _, count = wide
    texts = [index.sources["wide"].description(j) for j in range(S)]
    page = explore(address, "#/")
    page.get_by_text("262,144").first.wait_for()
    page.get_by_role("link", name="Browse latents").click()
    page.locator("table.browse tbody tr").first.wait_for()
    assert whole(page) == (count > 0).sum() > 10_000
    page.get_by_role("button", name="density").click()
    page.locator("th[aria-sort=descending]", has_text="density").wait_for()
    order = np.argsort(-count, kind="stable")
    assert column(page, "latent") == [str(j) for j in order[:100]]
    page.get_by_role("button", name="next →").click()
    page.get_by_text("101 to 200 of").wait_for()
    assert column(page, "latent") == [str(j) for j in order[100:200]]
    page.get_by_label("only latents that fired").uncheck()
    page.get_by_text("of 262,144").wait_for()
    page.get_by_role("button", name="latent", exact=True).click()
    page.locator("th[aria-sort=descending]", has_text="latent").wait_for()
    page.get_by_role("button", name="latent ↓").click()
    page.locator("th[aria-sort=ascending]", has_text="latent").wait_for()
    assert column(page, "latent") == [str(j) for j in range(100)]
    said = [j for j, text in enumerate(texts) if re.search(r"\bm", text.lower())]
    page.get_by_label("search descriptions").fill("m")
    page.get_by_label("search descriptions").press("Enter")
    page.get_by_text(f"of {len(said):,}").wait_for()
    found = column(page, "latent")
    assert len(found) == min(100, len(said)) and {int(j) for j in found} <= set(said)
    page.locator("table.browse tbody a").first.click()
    page.wait_for_url(f"**/#/s/wide/{found[0]}")
    assert page.locator(".described .first").inner_text() == texts[int(found[0])]
    page.goto(f"{address}/#/s/wide")
    last = int(np.flatnonzero(count)[-1])
    page.get_by_label("go to latent").fill(str(last))
    page.get_by_label("go to latent").press("Enter")
    page.get_by_role("heading", name=f"wide / {last}").wait_for()
    page.get_by_role("heading", name="Strongest").wait_for()


def test_a_text_finds_its_latents_among_all(explore, address, wide, toy):
    d = wide[1]
    page = explore(address, "#/text")
    page.get_by_label("text", exact=True).fill("the cat sat on a mat")
    page.get_by_role("button", name="Find active latents").click()
    page.locator(".pick").wait_for()
    seen = toy.capture("the cat sat on a mat", [SITE])
    found = d.encode(seen[SITE][seen.mask])
    fired = set(found.index.tolist())
    listed = [int(j) for j in column(page, "latent")]
    assert len(listed) == min(60, len(fired)) and set(listed) <= fired


def test_requests_of_it_are_answered_in_time(address, wide):
    """Bounds for a busy machine: many times what benchmarks/explorer.py measures, and far below what a scan of all texts takes."""
    import httpx

    alive = np.flatnonzero(wide[2])
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        for path in ("latents/{}", "latents?sort=max_activation&offset={}", "search?q=t+c&offset={}"):
            times = []
            for j in alive[:: len(alive) // 21]:
                began = perf_counter()
                client.get(f"/api/sources/wide/{path.format(j)}").raise_for_status()
                times.append(perf_counter() - began)
            assert np.median(times) < 0.25, (path, times)
