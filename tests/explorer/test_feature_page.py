"""A latent's examples at three widths, and a table without latents that fire often, in a real browser on a small index."""

import json
import shlex
import subprocess
import sys
from functools import partial
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import pytest
from playwright.sync_api import expect
from steer_workspace import served

from diascope.latents.describe.shelf import Description
from diascope.latents.records import Example, ExampleGroup, Record, pack
from diascope.latents.store import Index, write_source

pytestmark = pytest.mark.page
DENSITY = [0.5, 0.2, 0.01, 0.007, 0.0]
TEXT = [f" t{i}" for i in range(40)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A source of five latents whose strongest examples have 24 tokens, with the peak in the middle and at the beginning; and one of
    latents that fire on a third of all tokens."""
    folder = tmp_path_factory.mktemp("feature") / "index"
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.arange(40, dtype=np.int32)[None])
    (folder / "corpus" / "strings.json").write_text(json.dumps(dict(enumerate(TEXT))))
    examples = [Example(0, 4, 24, 14, [(3, 99), (12, 128), (14, 255), (15, 60), (20, 9)]), Example(0, 0, 24, 1, [(1, 200)])]
    record = msgspec.msgpack.encode(Record([ExampleGroup("top", 1, 2, 1, examples)], [1], [(4, 0.5)], [(5, -0.5)], [(1, 0.9)]))
    columns = {
        "density": np.array(DENSITY, np.float32),
        "max_activation": np.full(5, 2, np.float32),
        "level": np.ones(5, np.int32),
        "logit_kurtosis": np.arange(5, dtype=np.float32) * 1.5,
    }
    meta = {"name": "sae", "config": {}, "card": {}, "title": "SAE", "tokens_swept": 99, "logit_vocabulary": 9}
    said = {j: [Description("judge", f"about {j}", {"detection": score})] for j, score in ((1, 0.6), (2, 0.9), (3, 0.75))}
    write_source(folder / "sources" / "0", meta, columns, [record] * 5, said)
    columns = {"density": np.full(2, 0.3, np.float32), "max_activation": np.full(2, 5, np.float32)}
    write_source(folder / "sources" / "1", meta | {"name": "often"}, columns, [pack(often())] * 2, {})
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": "toy"}))
    return folder.parent


def often():
    """45 examples of 36 tokens, of which every third fired, the peak in the middle; histograms of 40 bins."""
    places = range(0, 36, 3)
    example = Example(0, 2, 36, 18, [(i, 255 if i == 18 else 3 + 2 * i) for i in places])
    groups = [ExampleGroup("top", 4, 5, 0.1, [example] * 25)] + [
        ExampleGroup("interval", k, k + 1, 0.2, [example] * 4) for k in range(5)
    ]
    logits = [(4 + k, 1 - k / 10) for k in range(10)]
    return Record(groups, [*range(39), 0], logits, [(k, -v) for k, v in logits], [(1, 0.9)] * 8, [0, *range(1, 40)])


@pytest.fixture
def visit(explore, workspace):
    with served(Index(workspace / "index"), None) as (address, _):
        yield partial(explore, address)


def choose(page, width):
    page.get_by_role("button", name=width, exact=True).click()
    page.locator(f".widths [aria-pressed=true]:text-is('{width}')").wait_for()


def shown(page):
    return page.locator(".tokens").all_inner_texts()


def tokens(first, last):
    return "".join(TEXT[first : last + 1])


def test_examples_are_shown_whole_as_a_snippet_or_stacked(visit):
    page = visit("#/s/sae/2")
    page.locator(".tokens").first.wait_for()
    assert [t.strip() for t in shown(page)] == [tokens(4, 27).strip(), tokens(0, 23).strip()]
    choose(page, "snippet")
    assert [t.strip() for t in shown(page)] == [tokens(8, 23).strip(), tokens(0, 6).strip()]  # 10 before the peak, 5 behind
    marks = page.locator(".tokens").first.locator("mark")
    assert marks.all_inner_texts() == [" t16", " t18", " t19"] and page.locator("mark.peak").first.inner_text() == " t18"
    choose(page, "stacked")
    assert shown(page) == [tokens(15, 17), tokens(18, 19), tokens(0, 0), tokens(1, 2)]
    boxes = page.locator("mark.peak").evaluate_all("all => all.map(e => e.getBoundingClientRect().left)")
    assert len(boxes) == 2 and abs(boxes[0] - boxes[1]) < 1  # one under the other


def test_the_width_stays_in_the_address_and_with_the_next_latent(visit, workspace):
    page = visit("#/s/sae/2?width=snippet")
    page.locator(".widths [aria-pressed=true]:text-is('snippet')").wait_for()
    choose(page, "stacked")
    page.wait_for_url("**/#/s/sae/2?width=stacked")
    page.keyboard.press("j")
    page.wait_for_url("**/#/s/sae/3?width=stacked")
    page.get_by_role("heading", name="sae / 3").wait_for()
    page.locator(".aligned").first.wait_for()
    page.get_by_role("button", name="Copy as Python").click()
    page.wait_for_function("window.copied")
    done = subprocess.run([sys.executable, "-c", page.evaluate("window.copied")], cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert repr(tokens(15, 19)) in done.stdout and repr(tokens(0, 2)) in done.stdout and TEXT[20] not in done.stdout
    choose(page, "full")
    page.wait_for_url("**/#/s/sae/3")


def test_latents_that_fire_often_are_hidden(visit):
    page = visit("#/s/sae")
    page.route("**/latents?**", without_dense)
    page.reload()
    rows = page.locator("tbody tr td:first-child")
    page.get_by_label("largest density in per cent").fill("0.7")
    page.get_by_label("largest density in per cent").press("Tab")
    page.wait_for_url("**most=0.7")
    expect(rows).to_have_text(["3"])
    again = visit("#/s/sae?most=1")
    again.route("**/latents?**", without_dense)
    again.reload()
    again.locator("tbody tr").nth(1).wait_for()
    again.get_by_text("1 to 2 of 2").wait_for()
    assert again.get_by_label("largest density in per cent").input_value() == "1"
    again.get_by_role("button", name="Copy as Python").click()
    again.wait_for_function("window.copied")
    assert "alive=True, max_density=0.01)" in again.evaluate("window.copied")
    again.get_by_label("largest density in per cent").fill("0.0001")
    again.get_by_label("largest density in per cent").press("Tab")
    again.get_by_text("fires on 0.0001 % of the tokens or fewer: allow more").wait_for()


def test_direct_logits_kurtosis_is_a_column_where_the_index_has_it(visit):
    page = visit("#/s/sae?sort=logit_kurtosis&order=asc")
    page.locator("th[aria-sort=ascending]", has_text="logit kurtosis").wait_for()
    at = page.locator("thead th").all_inner_texts().index("logit kurtosis ↑")
    expect(page.locator(f"tbody tr td:nth-child({at + 1})")).to_have_text(["0.00", "1.50", "3.00", "4.50"])


def test_scores_of_descriptions_are_columns_to_sort_by(visit, workspace):
    page = visit("#/s/sae?sort=logit_kurtosis")
    page.get_by_role("button", name="detection").click()
    page.locator("th[aria-sort=descending]", has_text="detection").wait_for()
    page.wait_for_url("**sort=score%3Adetection**")
    rows = page.locator("tbody tr td:first-child")
    expect(rows).to_have_text(["2", "3", "1", "0"])  # one without a score comes last, in either order
    page.get_by_role("button", name="detection").click()
    page.locator("th[aria-sort=ascending]", has_text="detection").wait_for()
    expect(rows).to_have_text(["1", "3", "2", "0"])
    at = page.locator("thead th").all_inner_texts().index("detection ↑")
    expect(page.locator(f"tbody tr td:nth-child({at + 1})")).to_have_text(["0.60", "0.75", "0.90", "–"])
    page.get_by_role("button", name="Copy as Python").click()
    page.wait_for_function("window.copied")
    done = subprocess.run([sys.executable, "-c", page.evaluate("window.copied")], cwd=workspace, capture_output=True, text=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["4", "1", "3", "2", "0"], done.stderr


def test_a_latents_page_is_embedded_in_another_page(visit, browser, workspace, tmp_path):
    page = visit("#/s/sae/2")
    page.get_by_role("button", name="Embed").click()
    page.wait_for_function("window.copied")
    command = shlex.split(page.evaluate("window.copied").split("<!-- ")[1].split(" -->")[0])
    assert command[:3] == ["diascope", "page", "."] and command[-1] == "sae-2.html"
    command[2], command[-1] = str(workspace), str(tmp_path / command[-1])
    subprocess.run([sys.executable, "-m", "diascope.cli", *command[1:]], check=True, capture_output=True)
    (tmp_path / "post.html").write_text(page.evaluate("window.copied"))
    post = browser.new_page()
    post.goto(f"file://{tmp_path / 'post.html'}")
    post.frame_locator("iframe").get_by_role("heading", name="sae / 2").wait_for()
    post.frame_locator("iframe").locator("mark.peak").first.wait_for()
    post.close()


# -- a latent that fires on a third of all tokens ----------------------------------------------------------------------------
PAINTED = "[...CSS.highlights.values()].reduce((sum, shade) => sum + shade.size, 0)"
SAID = [f"t{2 + i}  {(255 if i == 18 else 3 + 2 * i) / 255 * 5:#.3g}" for i in range(0, 36, 3)]


def test_a_page_of_a_latent_that_fires_often_has_few_nodes_and_shows_every_activation(visit):
    page = visit("#/s/often/0")
    page.locator(".tokens").nth(44).wait_for()
    marks = page.locator(".tokens mark").count()
    assert 45 <= marks < 45 * 12 and page.evaluate("document.querySelectorAll('main *').length") < 400
    assert page.evaluate(PAINTED) == 45 * 12 - marks
    assert page.locator("mark.peak").count() == page.locator("mark[tabindex='0']").count() == 45
    shown = page.evaluate(
        "[...CSS.highlights.values()].flatMap(shade => [...shade]).map(r => r.startContainer.data.slice(r.startOffset, r.endOffset))"
    )
    assert set(shown) <= {f" t{2 + i}" for i in range(0, 36, 3)} and {" t2", " t5"} <= set(shown)
    assert [t.strip() for t in page.locator(".tokens").all_inner_texts()] == [tokens(2, 37).strip()] * 45


def test_what_is_painted_has_labels_and_tips_once_its_example_is_reached(visit):
    page = visit("#/s/often/0")
    first, second = page.locator(".tokens").first, page.locator(".tokens").nth(1)
    first.wait_for()
    page.get_by_role("button", name="stacked").focus()
    page.keyboard.press("Tab")
    expect(first.locator("mark.peak")).to_be_focused()  # its element stays the same
    assert [m.get_attribute("aria-label") for m in first.locator("mark").all()] == SAID
    tip = page.get_by_role("tooltip")
    for key, at in ((None, 6), ("ArrowLeft", 5), ("Home", 0), ("ArrowRight", 1), ("End", 11)):
        if key:
            page.keyboard.press(key)
        expect(first.locator("mark").nth(at)).to_be_focused()
        expect(tip).to_have_text(SAID[at])
    assert second.locator("mark").count() < 12
    box = second.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] / 2)  # on its first token, which was painted
    expect(second.locator("mark")).to_have_count(12)
    second.locator("mark").first.hover()
    expect(tip).to_have_text(SAID[0])
    painted = page.evaluate(PAINTED)
    assert painted == 540 - page.locator("mark").count()
    page.keyboard.press("j")
    page.get_by_role("heading", name="often / 1").wait_for()
    page.locator(".tokens").nth(44).wait_for()
    assert page.evaluate(PAINTED) == 540 - page.locator("mark").count() > painted


def test_without_painting_every_activation_is_an_element(explore, workspace):
    with served(Index(workspace / "index"), None) as (address, _):
        window = explore.window()
        window.add_init_script("delete window.Highlight")
        page = explore(address, "#/s/often/0", within=window)
        page.locator(".tokens").nth(44).wait_for()
        assert page.locator(".tokens mark").count() == 540


def test_a_histogram_says_what_the_bin_under_the_pointer_holds(visit):
    page = visit("#/s/often/0")
    figures = page.get_by_role("img", name="histogram")
    expect(figures).to_have_count(2)
    for figure, counts, low, high, of in (
        (0, [0, *range(1, 40)], -1.0, 1.0, "direct logits"),
        (1, [*range(39), 0], 0.0, 5.0, "activations"),
    ):
        svg = figures.nth(figure)
        assert f"{sum(counts)} {of} from" in (svg.get_attribute("aria-label") or "")
        box = svg.bounding_box()
        assert box is not None
        for at in (3, 38):
            for nudge in (0.4, 0.5, 0.6):  # the second move is on the bin that the first one drew
                page.mouse.move(box["x"] + box["width"] * (at + nudge) / 40, box["y"] + 30)
            edges = [f"{low + (high - low) * edge / 40:#.3g}" for edge in (at, at + 1)]
            expect(page.get_by_role("tooltip")).to_have_text(f"{edges[0]} to {edges[1]}: {counts[at]}")
        page.mouse.move(2, 2)
        expect(page.get_by_role("tooltip")).to_be_hidden()


def without_dense(route):
    """Answer as the server does, without latents above `max_density` (explorer/server.py)."""
    found = route.fetch().json()
    most = float(parse_qs(urlsplit(route.request.url).query).get("max_density", ["1"])[0])
    rows = [row for row in found["rows"] if row["density"] <= most + 1e-9]
    route.fulfill(json=found | {"rows": rows, "total": len(rows), "max_density": most})
