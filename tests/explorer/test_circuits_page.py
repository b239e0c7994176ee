"""The circuits page in a real browser: as a saved file with known numbers, and on a server with a toy model."""

import json

import pytest
import torch
from graph_workspace import opened_with, traced, write_workspace
from steer_workspace import TOKEN, served

from diascope.circuits import Graph
from diascope.circuits.verify import verify
from diascope.circuits.view import view
from diascope.explorer.circuits import graphs_in
from diascope.latents.store import Index
from diascope.page import render_html

pytestmark = pytest.mark.page


def node(id, kind, layer, position, index, influence, label="", **more):
    empty = dict.fromkeys(("activation", "value", "predicted", "measured"))
    facts = {
        "id": id,
        "kind": kind,
        "layer": layer,
        "position": position,
        "index": index,
        "name": f"{kind} {id}",
        "label": label,
    }
    return facts | empty | {"influence": influence, "weight": float(kind == "target")} | more


def known(good=False):
    """Two tokens, three latents, an error, a target; every number can be checked by hand."""
    nodes = [
        node(0, "token", -1, 0, 2, 0.3),
        node(1, "token", -1, 1, 9, 0.5),
        node(2, "latent", 0, 1, 7, 0.4, "France", activation=2.0, predicted=-0.5, measured=-0.25),
        node(3, "latent", 0, 1, 8, 0.2, "Europe"),
        node(4, "latent", 1, 1, 7, 0.6, "capital"),
        node(5, "error", 1, 1, -1, 0.1),
        node(6, "target", 2, 1, 40, 1.0, value=3.0),
    ]
    edges = [[0, 2, 1.0, 0.5], [1, 2, -1.0, 0.5], [1, 3, 2.0, 1.0], [2, 4, 3.0, 0.6], [3, 4, 2.0, 0.4], [4, 6, 2.0, 0.6], [5, 6, -1.0, 0.3], [0, 6, 0.3, 0.1]]  # fmt: skip
    row = {
        "edit": "ablate",
        "mode": "free",
        "guess": "total",
        "spearman": 0.5,
        "sign": 0.8,
        "sign_low": 0.7,
        "sign_high": 0.9,
        "n": 64,
    }
    rows = [row | {"of": of, "spearman_low": low, "spearman_high": 0.7} for of, low in (("strongest", 0.3 if good else -0.1), ("others", 0.1))]  # fmt: skip
    check = {"latents": 64, "pool": 99, "rows": rows}
    about = {"model": "toy", "layers": 2, "first": 0, "targets": [" Paris"], "probabilities": [0.6], "closure": 1e-6}
    about |= {
        "scores": {"replacement": 0.71, "completeness": 0.9, "completeness_restricted": 0.8, "open": 0.02},
        "verification": check,
    }
    return {"about": about, "tokens": ["<bos>", "France"], "nodes": nodes, "edges": edges, "supernodes": [[2, 3]]}


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.trouble, page.asked = [], []
    page.on("pageerror", lambda e: page.trouble.append(str(e)))
    page.on("console", lambda m: m.type == "error" and page.trouble.append(m.text))
    page.on("request", lambda r: page.asked.append(r.url))
    yield page
    assert page.trouble == []
    page.close()


@pytest.fixture
def saved(page, tmp_path):
    """Opens a graph as a saved file; returns its address."""

    def open_file(data, query=""):
        path = tmp_path / "graph.html"
        path.write_text(render_html("circuit", data), encoding="utf-8")
        page.goto(f"file://{path}{query}")
        page.locator(".bench").wait_for()
        return f"file://{path}"

    return open_file


def click(page, key):
    page.locator(f"g.node[data-key='{key}']").click(force=True)


def ends(page, title):
    """[name, weight, share] of a list in the detail."""
    section = page.locator(".detail section", has=page.get_by_role("heading", name=title))
    return [[t.strip() for t in row.locator("span").all_inner_texts()] for row in section.locator("li button").all()]


def test_a_saved_file_asks_for_nothing_and_shows_inputs_and_outputs(page, saved):
    address = saved(known())
    assert page.asked == [address] and page.get_by_text("Intervene").count() == 0
    assert page.locator("g.node").count() == 7 and page.locator(".plane canvas").count() == 2
    click(page, "l1_1_7")
    assert page.locator(".detail h2").inner_text().strip() == "capital"
    rows = ends(page, "Inputs")
    assert [r[0].split()[0] for r in rows] == ["France", "Europe"]
    assert [r[-2] for r in rows] == ["+3.00", "+2.00"] and [r[-1].split("\u2009")[0] for r in rows] == ["60", "40"]
    assert [r[-2] for r in ends(page, "Outputs")] == ["+2.00"]
    page.locator(".detail li button").first.click()
    assert page.locator(".detail h2").inner_text().strip() == "France"
    assert [r[-2] for r in ends(page, "Inputs")] == ["+1.00", "−1.00"]
    facts = page.locator(".detail dl").inner_text()
    assert "−0.500" in facts and "−0.250" in facts and "2.00" in facts
    assert page.url.endswith("?node=l0_1_7")


def test_a_graph_that_does_not_predict_says_so_loudly(page, saved):
    saved(known())
    said = page.get_by_role("alert").inner_text()
    assert (
        "DO NOT predict" in said and "The strongest 64: Spearman 0.50 (95 % -0.10 to 0.70)" in said and "The 64 others" in said
    )
    saved(known(good=True))
    assert page.get_by_role("alert").count() == 0 and "Edges predict" in page.locator(".verdict").inner_text()
    data = known()
    del data["about"]["verification"]
    saved(data)
    assert "Nobody has checked" in page.locator(".verdict").inner_text()


def test_supernodes_are_offered_renamed_summed_and_taken_apart(page, saved):
    saved(known())
    page.get_by_text("found automatically").click()
    page.get_by_role("button", name="Pin as a group").click()
    name = page.get_by_label("name of the supernode")
    assert name.input_value() == "France"
    name.fill("Europe: lands, all")
    name.press("Enter")
    click(page, "l1_1_7")
    page.keyboard.press("p")
    click(page, "t-1_1_9")
    page.keyboard.press("p")
    assert page.locator("g.box").count() == 3
    said = page.locator("path.sum").evaluate_all("all => all.map(p => p.dataset.tip)")
    # into `capital` 3 + 2, all of what enters; into the group -1 of France (influence 0.4, share 0.5) and 2 of Europe (0.2, 1)
    assert any("summed weight +5.00, 100" in s for s in said)
    assert any("summed weight +1.00, 0" in s for s in said), said
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert (
        page.locator("g.box").count() == 3 and page.get_by_label("name of the supernode").input_value() == "Europe: lands, all"
    )
    page.get_by_role("button", name="Ungroup").click()
    assert page.locator("g.box").count() == 4
    for key in ("l0_1_7", "l0_1_8"):
        page.get_by_label(f"choose {'France' if key == 'l0_1_7' else 'Europe'}").check()
    page.get_by_role("button", name="Group ticked").click()
    assert page.locator("g.box").count() == 3
    page.get_by_role("button", name="Unpin all").click()
    assert page.locator("g.box").count() == 0
    page.wait_for_url(lambda url: "pins=" not in url)


def test_sliders_keep_what_carries_most(page, saved):
    saved(known(), "#?nodes=0.7&edges=1&density=1")
    # of the influences 0.6, 0.4, 0.2, 0.1 (sum 1.3), 70 % are reached with the first two
    assert page.locator("g.node").count() == 5
    assert {g.get_attribute("data-key") for g in page.locator("g.node").all()} == {
        "t-1_0_2",
        "t-1_1_9",
        "l0_1_7",
        "l1_1_7",
        "g2_1_40",
    }
    page.get_by_label("nodes").fill("1")
    assert page.locator("g.node").count() == 7
    page.wait_for_url(lambda url: "nodes=" not in url)
    page.get_by_label("edges").fill("0.5")
    # strengths: 0.6, 0.3, 0.36, 0.24, 0.2, 0.2, 0.2, 0.1, so that half of 2.2 is reached with three
    assert page.locator(".sliders output").nth(1).inner_text().endswith("· 3")


def test_arrows_follow_the_strongest_edge(page, saved):
    saved(known())
    page.locator(".plane").focus()
    chosen = page.locator("g.node.chosen")
    for key, expected in (("ArrowDown", "l1_1_7"), ("ArrowDown", "l0_1_7"), ("ArrowRight", "l0_1_8"), ("ArrowUp", "l1_1_7"), ("ArrowUp", "g2_1_40")):  # fmt: skip
        page.keyboard.press(key)
        page.locator(f"g.node.chosen[data-key='{expected}']").wait_for()
    assert chosen.count() == 1
    page.keyboard.press("Escape")
    page.locator("g.node.chosen").wait_for(state="detached")
    assert page.url.endswith("node=none")


def test_the_copied_program_finds_the_pinned_nodes(page, saved, toy, tmp_path, monkeypatch):
    graph = traced(opened_with(toy))
    graph.save(tmp_path / "graphs" / "NAME")
    saved(view(graph))
    page.get_by_role("button", name="Pin the strongest").click()
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('no') }; }")
    page.get_by_role("button", name="Copy as Python").click()
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(page.get_by_label("the circuit as Python").input_value(), names)
    pinned = names["pinned"]
    assert len(pinned) == page.locator("g.box").count() > 4
    assert all(names["graph"].name(nodes[0]) == name for name, nodes in pinned.items())
    assert names["edges"].shape == (len(pinned), len(pinned)) and float(names["edges"].abs().sum()) > 0


VIEWER = {
    "metadata": {"prompt_tokens": ["<bos>", "France"], "scan": "gemma"},
    "qParams": {"supernodes": [["lands", "0_7_1", "0_8_1"]]},
    "nodes": [
        {"node_id": "E_2_0", "layer": "E", "ctx_idx": 0, "feature_type": "embedding", "clerp": "<bos>"},
        {
            "node_id": "0_7_1",
            "layer": "0",
            "ctx_idx": 1,
            "feature_type": "cross layer transcoder",
            "clerp": "France",
            "activation": 2.0,
        },
        {"node_id": "0_8_1", "layer": "0", "ctx_idx": 1, "feature_type": "cross layer transcoder", "clerp": ""},
        {"node_id": "0_-1_1", "layer": "0", "ctx_idx": 1, "feature_type": "mlp reconstruction error"},
        {
            "node_id": "2_40_1",
            "layer": "2",
            "ctx_idx": 1,
            "feature_type": "logit",
            "clerp": 'Output " Paris" (p=0.6)',
            "token_prob": 0.6,
        },
    ],
    "links": [
        {"source": "E_2_0", "target": "0_7_1", "weight": -4.0},
        {"source": "0_7_1", "target": "2_40_1", "weight": 3.0},
        {"source": "0_-1_1", "target": "2_40_1", "weight": -1.0},
    ],
}


def test_graphs_made_elsewhere_open_and_other_files_are_named(page, saved):
    saved(known())
    choose = page.locator("input[type=file]")
    choose.set_input_files({"name": "theirs.json", "mimeType": "application/json", "buffer": json.dumps(VIEWER).encode()})
    page.get_by_text("theirs.json").wait_for()
    assert page.locator("g.node").count() == 5 and "·Paris" in page.locator("g.node[data-key='g1_1_40']").inner_html()
    click(page, "g1_1_40")
    assert [[r[-2], r[-1].split("\u2009")[0]] for r in ends(page, "Inputs")] == [["+3.00", "75"], ["−1.00", "25"]]
    click(page, "l0_1_7")
    assert "45" in page.locator(".detail dl").inner_text()  # influence: 0.75 of 0.6
    for name, text, says in (("a.json", "{", "no JSON"), ("b.json", "{}", "no lists"), ("c.json", '{"tokens": [], "nodes": [{"id": 0}], "edges": []}', "without id"), ("d.json", '{"tokens": [1], "nodes": [], "edges": []}', "no text")):  # fmt: skip
        choose.set_input_files({"name": name, "mimeType": "application/json", "buffer": text.encode()})
        page.locator(".bench > [role=alert]", has_text=says).wait_for()
    page.get_by_role("button", name="Close it").click()
    page.wait_for_function("() => document.querySelectorAll('g.node').length === 7")


def large(nodes=600, edges=30_000, tokens=60, layers=26):
    """A random graph at the largest size that is meant to be smooth."""
    g = torch.Generator().manual_seed(0)
    draw = lambda n, high: torch.randint(0, high, (n,), generator=g).tolist()  # noqa: E731
    made = [node(i, "token", -1, i, i, 0.1) for i in range(tokens)]
    places = sorted(zip(draw(nodes, layers), draw(nodes, tokens), draw(nodes, 16_384), strict=True))
    for layer, position, index in places:
        kind = "error" if index % 9 == 0 else "latent"
        made.append(
            node(len(made), kind, layer, position, index if kind == "latent" else -1, 0.5 / (1 + index % 97), "a label of this")
        )
    made.append(node(len(made), "target", layers, tokens - 1, 5, 1.0))
    pairs = sorted(
        {(min(a, b), max(a, b)) for a, b in zip(draw(edges, len(made)), draw(edges, len(made)), strict=True) if a != b}
    )
    linked = [[a, b, 0.5 - (a + b) % 2, 0.02 + (a * b % 50) / 100] for a, b in pairs]
    about = {"layers": layers, "first": 0, "targets": [" end"]}
    return {"about": about, "tokens": [f" word{i}" for i in range(tokens)], "nodes": made, "edges": linked, "supernodes": []}


@pytest.mark.parametrize("width", [380, 1600])
@pytest.mark.parametrize("data", [known(), large(), {"about": {}, "tokens": [], "nodes": [], "edges": [], "supernodes": []}], ids=["known", "large", "empty"])  # fmt: skip
def test_it_fits_a_phone_and_a_desk(page, saved, data, width):
    page.set_viewport_size({"width": width, "height": 800})
    saved(data, "#?density=0.5")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.locator("path.mark[transform]").evaluate_all("all => all.map(p => p.getAttribute('transform'))")
    assert len(set(boxes)) == len(boxes)  # no mark on another


def test_six_hundred_nodes_are_smooth(page, saved):
    saved(large(), "#?density=1")
    # a step of the pointer, with the frame in which what follows it is drawn again: 16.7 ms where nothing is late
    cost = page.evaluate("""async () => {
        const plane = document.querySelector('.plane'), box = plane.getBoundingClientRect(), start = performance.now();
        for (let i = 0; i < 30; i++) {
            plane.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: box.x + 100 + 17 * i, clientY: box.y + 200 + 5 * i}));
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
        }
        return (performance.now() - start) / 30;
    }""")
    assert cost < 100, f"{cost:.1f} ms a step"  # the bound is for a busy machine without a GPU


@pytest.fixture(scope="module")
def explorer(tmp_path_factory, toy):
    """A server of a workspace with one verified graph, and the toy model ready."""
    opened = opened_with(toy)
    graph = traced(opened)
    folder = write_workspace(
        tmp_path_factory.mktemp("explored"), verify(graph, opened[0], opened[1].values(), sample=24), opened
    )
    with served(Index(folder / "index"), opened, graphs=graphs_in(folder / "graphs")) as (address, _):
        yield address, Graph.load(folder / "graphs" / "capital")


def test_the_explorer_lists_shows_and_intervenes(page, explorer):
    address, graph = explorer
    page.goto(f"{address}/?token={TOKEN}")
    page.get_by_role("link", name="Circuits").click()
    assert "damaged" in page.locator(".shelf li", has_text="broken").inner_text()
    assert not any(u.endswith("circuit.js") for u in page.asked) or page.locator(".shelf").count()
    page.locator(".shelf li", has_text="capital").get_by_role("link").click()
    page.locator("g.node").first.wait_for()
    assert page.locator(".verdict").count() == 1 and page.locator(".scatter circle").count() >= 3
    first = page.locator("g.node[data-key^='l0_']").first
    index = int(first.get_attribute("data-key").rsplit("_", 1)[1])
    first.click(force=True)
    assert page.locator(".detail h2").inner_text().strip() == f"about {index}"
    assert page.get_by_role("link", name="Its page").get_attribute("href") == f"#/s/0-tc/{index}"
    page.get_by_role("button", name="double").click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".outcome").wait_for()
    assert page.locator(".outcome ol").nth(1).locator("li").count() == 5
    assert page.locator(".outcome tbody tr").count() == len(graph.targets())
    page.get_by_label("factor").fill("1")
    page.get_by_role("button", name="Run", exact=True).click()
    page.locator(".outcome > p", has_text="times 1.00").wait_for()
    before, after = (page.locator(".outcome ol").nth(i).inner_text() for i in (0, 1))
    assert before == after
    before = page.locator("g.node").count()
    page.get_by_label("nodes that carry").select_option("0.6")
    page.wait_for_function("n => document.querySelectorAll('g.node').length < n", arg=before)


def test_a_view_waits_for_its_style(page, explorer):
    """Drawn without it, everything would move under the pointer once it came."""
    address, _ = explorer
    held = []
    page.route("**/circuit.css", lambda route: held.append(route))
    page.goto(f"{address}/?token={TOKEN}#/circuits/capital", wait_until="commit")
    page.wait_for_function("() => window.circuits")
    page.get_by_text("Loading").wait_for()
    page.wait_for_timeout(300)
    assert held and not page.locator("g.node").count()
    held[0].continue_()
    page.locator("g.node").first.wait_for()


def test_a_view_that_cannot_be_loaded_says_so_and_is_asked_for_again(page, explorer):
    address, _ = explorer
    page.route("**/circuit.css", lambda route: route.abort())
    with page.expect_console_message(lambda m: m.type == "error"):  # the browser's own, of what was held back
        page.goto(f"{address}/?token={TOKEN}#/circuits/capital")
    page.trouble.clear()
    page.get_by_role("alert").wait_for()
    assert "could not be loaded" in page.get_by_role("alert").inner_text()
    page.unroute("**/circuit.css")
    page.locator("#main").get_by_role("link", name="Circuits").click()
    page.locator(".shelf li", has_text="capital").get_by_role("link").click()
    page.locator("g.node").first.wait_for()


def test_an_unknown_graph_says_so(page, explorer):
    address, _ = explorer
    page.goto(f"{address}/?token={TOKEN}")
    page.goto(f"{address}/#/circuits/nope")
    assert "There is no graph" in page.get_by_role("alert").inner_text()
    page.trouble.clear()  # the browser itself notes the 404
