"""Lists, runs, the decoder map and pairs in a real browser, on small workspaces without a model."""

import json
from functools import partial

import numpy as np
import pytest
from copied_programs import copied, ran
from pair_workspace import LOWERED, RAISED, S, write_pairs
from playwright.sync_api import expect
from steer_workspace import TOKEN, served
from test_runs import line

from diascope.explorer.lists import NAME, Entry, Lists
from diascope.latents.store import Index, write_source

pytestmark = pytest.mark.page
CARD = {"metrics": {"dictionary": {"l0": {"value": 20.0, "low": 19.0, "high": 21.0, "n": 9}, "fvu": {"value": 0.3, "low": 0.2, "high": 0.4, "n": 9}}}, "facts": {"model": "base", "data": "d"}}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Two models' indices, a training log of two members, and two cards of one target."""
    folder = write_pairs(tmp_path_factory.mktemp("views"))
    (folder / "training").mkdir()
    (folder / "training" / "log.jsonl").write_text(
        "".join(line(i, m, dead=i * k) for i in range(5) for k, m in enumerate(("sae", "tuned")))
    )
    for name, l0 in (("sae", 20.0), ("tuned", 10.0)):
        card = json.loads(json.dumps(CARD))
        card["metrics"]["dictionary"]["l0"]["value"] = l0
        (folder / "dictionaries" / name / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def address(workspace):
    with served(Index(workspace / "index"), None) as (address, _):
        yield address


@pytest.fixture
def visit(explore, address):
    """A page of the explorer at an address after '#'."""
    return partial(explore, address)


# -- lists -------------------------------------------------------------------------------------------------------
def test_a_latent_goes_into_a_new_list_with_a_note_and_into_steering(visit, workspace):
    page = visit("#/s/sae/7")
    page.get_by_role("button", name="add sae/7 to a list").click()
    page.get_by_label("note", exact=True).fill("rivers?")
    page.get_by_label("new list").fill("my latents")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("button", name="✓ my latents").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    page.goto(page.url.partition("#")[0] + "#/s/sae")
    page.locator("tbody tr").nth(2).get_by_role("button").click()
    assert page.url.endswith("#/s/sae")  # the row is a link, and the button is none
    page.get_by_role("dialog").get_by_role("button", name="my latents").click()
    page.get_by_role("button", name="✓ my latents").wait_for()
    page.get_by_role("link", name="2 latents").click()
    page.locator(".entries li").nth(1).wait_for()
    assert page.get_by_label("note on sae/7").input_value() == "rivers?"
    href = page.get_by_role("link", name="Steer with these").get_attribute("href")
    assert href.startswith("#/steer?push=sae%3A7%3A1&push=sae%3A")
    page.get_by_role("link", name="Steer with these").click()
    page.locator(".chip").nth(1).wait_for()
    assert page.locator(".chip a").first.inner_text() == "sae/7"


def listed(workspace, name, *latents):
    return Lists(workspace / NAME).make(name, [Entry("sae", j) for j in latents])


def test_a_list_is_ordered_noted_renamed_and_deleted_by_keyboard(visit, workspace):
    id = listed(workspace, "order", 3, 5, 8)
    page = visit(f"#/lists/{id}")
    page.get_by_role("button", name="move sae/8 up").press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.entries li a')[1].textContent === 'sae/8'")
    page.get_by_role("button", name="move sae/3 down").press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.entries li a')[0].textContent === 'sae/8'")
    page.get_by_role("button", name="take sae/5 out").press("Enter")
    page.locator(".entries li").nth(2).wait_for(state="detached")
    page.get_by_label("note on sae/3").fill("a <b>note</b>")
    page.get_by_label("note on sae/3").press("Tab")
    page.get_by_text("saved", exact=True).wait_for()
    page.get_by_label("name of the list").fill("new name")
    page.get_by_label("name of the list").press("Enter")
    for _ in range(100):
        found = Lists(workspace / NAME).get(id)
        if found["name"] == "new name":
            break
        page.wait_for_timeout(50)
    assert [(e["latent"], e["note"]) for e in found["latents"]] == [(8, ""), (3, "a <b>note</b>")] and found[
        "name"
    ] == "new name"
    assert "a <b>note</b>" in ran(workspace, copied(page))
    page.get_by_role("button", name="Delete", exact=True).press("Enter")
    page.get_by_role("button", name="Delete it with its notes").click()
    page.wait_for_url("**/#/lists")
    page.get_by_role("heading", name="Lists", exact=True).wait_for()
    assert id not in [found["id"] for found in Lists(workspace / NAME).all()]
    assert "order" not in ran(workspace, copied(page))


def test_two_tabs_see_each_other_and_neither_note_is_lost(explore, visit, workspace):
    id = listed(workspace, "two tabs", 3, 4)
    window = explore.window()
    one, two = visit(f"#/lists/{id}", window), visit(f"#/lists/{id}", window)
    two.get_by_label("note on sae/3").fill("from two, not left yet")
    one.get_by_label("note on sae/3").fill("from one")
    one.get_by_label("note on sae/4").focus()
    one.get_by_text("saved", exact=True).wait_for()
    assert two.get_by_label("note on sae/3").input_value() == "from two, not left yet"
    two.get_by_label("note on sae/4").focus()
    two.get_by_text("Changed elsewhere meanwhile, to “from one”").wait_for()
    assert Lists(workspace / NAME).get(id)["latents"][0]["note"] == "from one"
    two.get_by_role("button", name="Keep mine").click()
    two.get_by_text("saved", exact=True).wait_for()
    one.wait_for_function("() => document.querySelector('textarea').value === 'from two, not left yet'")
    one.get_by_role("button", name="take sae/4 out").click()
    two.locator(".entries li").nth(1).wait_for(state="detached")


def test_an_exported_list_is_imported_as_it_was_and_nonsense_is_refused(visit, workspace, tmp_path):
    id = Lists(workspace / NAME).make("out & in", [Entry("sae", 2, "ü"), Entry("elsewhere", 9, "kept")])
    page = visit(f"#/lists/{id}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    path = tmp_path / "list.json"
    download.value.save_as(path)
    assert json.loads(path.read_text())["latents"] == [
        {"source": "sae", "latent": 2, "note": "ü"},
        {"source": "elsewhere", "latent": 9, "note": "kept"},
    ]
    page.goto(page.url.partition("#")[0] + "#/lists")
    page.get_by_label("Import").set_input_files(path)
    page.get_by_text("not in this index").wait_for()
    assert page.url.rsplit("/", 1)[1] != id and page.locator(".entries li").count() == 2
    page.goto(page.url.partition("#")[0] + "#/lists")
    path.write_text('{"format": "other"}')
    page.get_by_label("Import").set_input_files(path)
    page.get_by_role("alert").wait_for()
    assert "no list that diascope wrote" in page.get_by_role("alert").inner_text()


# -- runs --------------------------------------------------------------------------------------------------------
def test_curves_grow_with_the_log_and_are_read_by_keyboard(visit, workspace):
    page = visit("#/runs")
    page.locator(".chart path").first.wait_for()
    titles = page.locator(".lines figcaption").all_inner_texts()
    assert titles == ["fvu", "dead"] and page.locator(".charts .panel").first.locator("path").count() == 2
    figure = page.locator(".lines").first
    figure.focus()
    page.keyboard.press("End")
    figure.locator(".read", has_text="rows 400: sae 0.200").wait_for()
    page.keyboard.press("Home")
    figure.locator(".read", has_text="rows 0.00: sae 1.00").wait_for()
    before = figure.locator("path").first.get_attribute("d")
    with (workspace / "training" / "log.jsonl").open("a") as file:
        file.write(line(5) + line(6))
    page.get_by_text("step 6").wait_for()  # the head asks for itself: the curves may come later
    page.wait_for_function("d => document.querySelector('.lines path').getAttribute('d') !== d", arg=before)
    page.keyboard.press("End")
    page.locator(".read", has_text="rows 600: sae 0.143").wait_for()
    before = page.locator(".lines").first.locator("path").first.get_attribute("d")
    page.locator(".scale input").first.uncheck()
    page.wait_for_function("d => document.querySelector('.lines path').getAttribute('d') !== d", arg=before)
    page.get_by_role("button", name="tuned").click()
    page.wait_for_function("() => document.querySelectorAll('.lines')[0].querySelectorAll('path').length === 1")
    assert "sae" in ran(workspace, copied(page))


def test_evaluations_are_a_table_and_a_pareto_plot(visit, workspace):
    page = visit("#/runs")
    rows = page.locator(".evaluations tbody tr")
    rows.first.wait_for()
    expect(rows.locator("th")).to_have_text(["tuned", "sae"])  # by L0
    assert (
        page.locator(".pareto .point").count() == 2 and page.locator(".pareto .best").count() == 1
    )  # equal FVU: fewer latents win
    page.get_by_role("button", name="L0").click()
    page.wait_for_function("() => document.querySelector('.evaluations tbody th').textContent === 'sae'")
    assert "'l0': 20.0" in ran(workspace, copied(page, 1))
    page.get_by_text("Browsing only").wait_for()


# -- map ---------------------------------------------------------------------------------------------------------
def test_the_map_is_made_and_walked_by_keyboard(visit, workspace):
    page = visit("#/map/sae")
    canvas = page.locator("canvas")
    canvas.wait_for()
    page.wait_for_function(f"() => document.querySelector('canvas').dataset.drawn === '{S - 1}'")  # one never fired
    page.get_by_label("also latents that never fired").check()
    page.wait_for_function(f"() => document.querySelector('canvas').dataset.drawn === '{S}'")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.locator(".about h2").wait_for()
    first = page.locator(".about h2").inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("t => document.querySelector('.about h2').textContent !== t", arg=first)
    chosen = page.locator(".about h2").inner_text().rsplit("/", 1)[1]
    page.wait_for_url(f"**latent={chosen}")  # the address follows the picture by a frame
    page.get_by_text(f"base {chosen}", exact=True).wait_for()
    page.get_by_label("ring latents whose descriptions have").fill("base")
    page.get_by_label("ring latents whose descriptions have").press("Enter")
    page.get_by_text(f"{S} latents ringed").wait_for()
    page.get_by_label("colour").select_option("max_activation")
    page.get_by_text("max activation", exact=True).last.wait_for()
    page.get_by_role("button", name="Make it").click()
    page.get_by_text("are among its 50 nearest here").wait_for()
    page.wait_for_url("**kind=neighbours**")
    assert "kept" in ran(workspace, copied(page))
    page.get_by_label("map", exact=True).select_option("principal")
    assert "of the variance" in ran(workspace, copied(page))
    canvas.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/#/s/sae/{chosen}")


def test_a_point_is_hovered_and_opened(visit):
    page = visit("#/map/tuned")
    page.wait_for_function("() => document.querySelector('canvas')?.dataset.drawn")
    page.get_by_label("nearer").click()
    box = page.locator("canvas").bounding_box()
    found = False
    for i in range(1, 30):
        for j in range(1, 30):
            page.mouse.move(box["x"] + box["width"] * i / 30, box["y"] + box["height"] * j / 30)
            if page.locator(".about h2").count():
                found = True
                break
        if found:
            break
    name = page.locator(".about h2").inner_text()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(f"**/#/s/{name}")


def test_a_quarter_of_a_million_latents_are_drawn_quickly(explore, tmp_path):
    n = 262_144
    folder = tmp_path / "index"
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.zeros((1, 4), np.int32))
    (folder / "corpus" / "strings.json").write_text("{}")
    g = np.random.default_rng(0)
    columns = {"density": g.random(n, np.float32), "level": np.ones(n, np.int32), "max_activation": np.ones(n, np.float32)}
    write_source(folder / "sources" / "0", {"name": "big", "title": "t", "config": {}, "card": {}, "tokens_swept": 1, "logit_vocabulary": 1}, columns, [b"\x95\x90\x90\x90\x90\x90"] * n)  # fmt: skip
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": "m"}))
    from diascope.explorer.map_store import write_map

    write_map(
        folder / "sources" / "0" / "map.safetensors",
        g.normal(size=(n, 2)).astype(np.float32),
        {"kind": "neighbours", "kept": 0.1, "neighbours": 8, "epochs": 1},
    )
    with served(Index(folder), None) as (address, _):
        page = explore(address, "#/map/big")
        page.wait_for_function("() => Number(document.querySelector('canvas')?.dataset.drawn) > 260000")
        times = []
        for _ in range(5):
            page.get_by_label("nearer").click()
            page.wait_for_timeout(150)
            times.append(float(page.locator("canvas").get_attribute("data-took")))
        print("drawn in ms", times)
        assert sorted(times)[2] < 250
        page.locator("canvas").focus()
        page.keyboard.press("ArrowDown")
        page.get_by_text("no description").wait_for()


# -- pairs -------------------------------------------------------------------------------------------------------
def test_two_models_stand_side_by_side_sorted_by_change(visit, workspace):
    page = visit("#/")
    page.get_by_role("link", name="Compare sae with index-chat/sae").click()
    rows = page.locator("tbody tr")
    rows.first.wait_for()
    assert rows.locator("td:first-child").all_inner_texts()[:2] == [str(RAISED), str(LOWERED)]
    assert "× 4.96" in rows.first.inner_text() and "base 7 → chat 7" in rows.first.inner_text()
    page.get_by_text("of different texts: a change may be the texts'").wait_for()
    assert str(RAISED) in ran(workspace, copied(page)).splitlines()[0]
    rows.first.get_by_role("link").click()
    page.get_by_role("heading", name="Strongest").nth(1).wait_for()
    sides = page.locator(".pair > section")
    assert " t2" in sides.nth(0).inner_text() and " t52" in sides.nth(1).inner_text()
    page.keyboard.press("j")
    page.wait_for_url(f"**latent={RAISED + 1}")


def test_what_is_missing_is_said(visit):
    for hash, says in (
        ("#/pairs?a=sae&b=other", "are no pair here"),
        ("#/lists/nope", "no such list"),
        ("#/map/nope", "no source"),
    ):
        page = visit(hash)
        page.get_by_role("alert").wait_for()
        assert says in page.get_by_role("alert").first.inner_text()


@pytest.mark.parametrize("hash", ["#/", "#/s/sae", "#/s/sae/3", "#/map/sae", "#/runs", "#/lists", "#/pairs?a=sae&b=tuned", "#/pairs?a=sae&b=tuned&latent=3", "#/circuits", "#/text"])  # fmt: skip
def test_no_view_is_wider_than_a_narrow_screen_and_each_has_a_program(visit, workspace, hash):
    page = visit(hash, viewport={"width": 380, "height": 800}, color_scheme="dark")
    page.get_by_role("button", name="Copy as Python", exact=True).first.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    program = copied(page)
    compile(program, hash, "exec")
    if hash != "#/text":  # which loads the model
        ran(workspace, program)


def test_a_server_that_is_gone_is_said(browser, workspace):
    with served(Index(workspace / "index"), None) as (address, _):
        page = browser.new_page()
        page.goto(f"{address}/?token={TOKEN}")
        page.goto(f"{address}/#/lists")
        page.get_by_role("heading", name="Lists").wait_for()
    page.get_by_label("new list").fill("x")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("alert").wait_for()
    assert "does not answer" in page.get_by_role("alert").inner_text()
    page.close()
