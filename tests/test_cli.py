"""Commands as a user types them: one clear sentence and exit code 2 on wrong input.

Most are carried out in this process: another one would load torch for three seconds each time.
"""

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys

import pytest

from diascope.cli import main, stop
from diascope.dictionaries import save_dictionary
from diascope.latents.store import write_source


def command(*arguments):
    return [sys.executable, "-m", "diascope.cli", *map(str, arguments)]


def run(*arguments):
    """The command's exit code and what it wrote; a failure that it does not catch is raised here."""
    said, wrong = io.StringIO(), io.StringIO()
    terminated = signal.getsignal(signal.SIGTERM)
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        patch.setattr("sys.argv", ["diascope", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            signal.signal(signal.SIGTERM, terminated)
    return subprocess.CompletedProcess(arguments, code, said.getvalue(), wrong.getvalue())


def refused(done, says):
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in " ".join(done.stderr.split()) and "Traceback" not in done.stderr, done.stderr
    return True


def test_wrong_input_ends_a_process_with_one_sentence(tmp_path):
    done = subprocess.run(command("inspect", tmp_path / "gone"), capture_output=True, text=True)
    refused(done, "there is no dictionary folder")
    assert not done.stdout and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "verb", ["demo", "train", "suite", "finetune", "eval", "convert", "inspect", "publish", "explore", "page", "verify"]
)
def test_help_shows_defaults(verb):
    done = run(verb, "--help")
    assert done.returncode == 0 and "default" in done.stdout + done.stderr


def test_missing_folders(tmp_path):
    refused(run("convert", tmp_path / "gone", tmp_path / "out"), "there is no dictionary folder")
    refused(run("explore", tmp_path), "is no index")
    refused(run("verify", tmp_path), "of no known format")
    refused(run("train", "--model", tmp_path, "--workspace", tmp_path / "w"), "no config.json")


def test_damaged_weights_leave_nothing_behind(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "g", format="gemma-scope-2")
    (folder / "params.safetensors").write_bytes((folder / "params.safetensors").read_bytes()[:-9])
    refused(run("convert", folder, tmp_path / "out", "--to", "diascope"), "damaged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g"]


def test_inspect_says_what_it_is_and_where_it_could_go(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(kind="transcoder", skip=True), tmp_path / "d", format="saelens")
    found = json.loads(run("inspect", folder, "--json").stdout)
    assert found["facts"]["is"] == "skip-transcoder L2.mlp_in -> L2.mlp_out" and found["facts"]["format"] == "SAELens 6"
    assert found["shapes"]["W_skip"] == [32, 32] and found["formats"]["sparsify"].startswith("no: it has TopK only")
    assert "decoder rows" in run("inspect", folder).stdout
    refused(run("inspect", tmp_path / "gone"), "there is no dictionary folder")


def test_sites_are_given_where_a_layout_does_not_say(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "d", format="gemma-scope-1")
    refused(run("convert", folder, tmp_path / "out", "--to", "saelens"), "give sites, such as L12.resid_post")
    done = run("convert", folder, tmp_path / "out", "--to", "saelens", "--sites", "L2.resid_post", "--model", "toy")
    assert done.returncode == 0 and "lossless" in done.stdout, done.stderr
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["hook_name"] == "blocks.2.hook_resid_post"


def test_convert_both_ways_and_refuse_to_overwrite(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "d")
    assert run("convert", folder, tmp_path / "g").returncode == 0
    assert run("convert", tmp_path / "g", tmp_path / "d2", "--to", "diascope").returncode == 0
    assert (tmp_path / "d" / "weights.safetensors").read_bytes() == (tmp_path / "d2" / "weights.safetensors").read_bytes()
    refused(run("convert", folder, tmp_path / "g"), "exists already")


@pytest.fixture(scope="module")
def toy_folder(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.module.save_pretrained(folder)
    toy.tokenizer.save_pretrained(folder)
    return folder


def test_train_end_to_end_on_a_users_own_model_and_text(toy_folder, tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(f"Document {i}. " + "the cat sat on a mat " * (i % 5 + 3) for i in range(60)))
    common = [
        "train",
        "--model",
        toy_folder,
        "--text",
        text,
        "--tokens",
        "4096",
        "--latents",
        "64",
        "--l0",
        "6",
        "--workspace",
        tmp_path / "w",
    ]
    done = run(*common, "--site", "L1.resid_post", "L2.mlp_in:L2.mlp_out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fixed PCA" in done.stdout and "ridge" in done.stdout
    assert (tmp_path / "w/gemma-scope-2/resid_post/layer_1_width_64_l0_small/params.safetensors").exists()
    assert run("verify", tmp_path / "w/dictionaries/sae", tmp_path / "w/dictionaries/transcoder").returncode == 0
    refused(run(*common, "--site", "L1.resid_post"), "another recipe")
    refused(run("verify"), "at least one dictionary folder")
    refused(run("eval"), "at least one dictionary folder")
    both = [tmp_path / "w/dictionaries/sae", tmp_path / "w/dictionaries/transcoder"]
    judge = [
        "eval",
        *both,
        "--model",
        toy_folder,
        "--text",
        text,
        "--tokens",
        "1024",
        "--ce-tokens",
        "512",
        "--fit-text",
        "None",
    ]
    refused(run(*judge, "--tier", "ci", "--families", "colour"), "there is no family 'colour'")
    refused(run(*judge, "--families", "geometry"), "add --tier")
    done = run(*judge, "--tier", "ci", "--families", "geometry", "absorption", "--report", tmp_path / "r.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "redundancy" in done.stdout and "nothing is said" in done.stdout
    card = json.loads((both[0] / "card.json").read_text())
    assert card["suite"]["geometry"]["result"]["redundancy"] > 0 and "too few" in card["suite"]["absorption"]["run"]["reason"]
    assert "<svg" in (tmp_path / "r.html").read_text() and "Geometry" in (both[1] / "card.html").read_text()
    assert run("verify", *both).returncode == 0  # what was written afterwards is sealed too
    first = [*common[:-1], tmp_path / "again", "--site", "L1.resid_post"]
    refused(run(*first, "--text", tmp_path / "gone.txt"), "there is no text file")
    assert not (tmp_path / "again").exists()  # wrong input claims no workspace
    refused(
        run("train", "--model", toy_folder, "--text", text, "--workspace", tmp_path / "x", "--site", "L9.resid_post"),
        "layers are 0 to 3",
    )
    refused(
        run("train", "--model", toy_folder, "--text", text, "--workspace", tmp_path / "y", "--site", "nonsense"),
        "no site is called",
    )
    refused(
        run("eval", tmp_path / "w/dictionaries/sae", "--model", toy_folder, "--text", tmp_path / "gone.txt"),
        "there is no text file",
    )


def test_ctrl_c_and_a_schedulers_stop_save_and_the_same_command_gives_the_same_bytes(toy_folder, tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(f"Document {i}. " + "the cat sat on a mat " * (i % 5 + 3) for i in range(60)))

    def into(workspace):
        arguments = ["train", "--model", toy_folder, "--text", text, "--tokens", "4096", "--latents", "256", "--l0", "6"]
        arguments += ["--epochs", "100", "--site", "L1.resid_post", "--until", "training", "--workspace", tmp_path / workspace]
        return command(*arguments)

    assert subprocess.run(into("whole"), capture_output=True).returncode == 0
    for sent in (signal.SIGTERM, signal.SIGINT):
        stopped = subprocess.Popen(into("parts"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert stopped.stdout and any(line.startswith("train:") for line in stopped.stdout)  # the first steps are done
        stopped.send_signal(sent)
        said = stopped.communicate(timeout=60)[0]
        assert stopped.returncode == 130 and "goes on from there" in " ".join(said.split()), said
        assert not (tmp_path / "parts" / "dictionaries").exists()
    assert subprocess.run(into("parts"), capture_output=True).returncode == 0
    weights = [(tmp_path / w / "dictionaries/sae/weights.safetensors").read_bytes() for w in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_a_stop_reaches_a_job_in_the_background():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts it
    try:
        with pytest.raises(KeyboardInterrupt):
            stop(signal.SIGTERM, None)
    finally:
        signal.signal(signal.SIGINT, before)


def test_text_that_is_no_utf8_and_other_widths(toy_folder, make_dictionary, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\xfe\xfd" * 50)
    refused(run("train", "--model", toy_folder, "--text", bad, "--workspace", tmp_path / "w"), "not UTF-8")
    folder = save_dictionary(make_dictionary(d=16), tmp_path / "d")
    good = tmp_path / "good.txt"
    good.write_text("the cat sat on a mat and the dog ran off " * 20)
    refused(run("eval", folder, "--model", toy_folder, "--text", good, "--fit-text", "None"), "has width 16")


def test_port_in_use(tmp_path):
    import json

    import numpy as np

    (tmp_path / "corpus").mkdir()
    np.save(tmp_path / "corpus" / "tokens.npy", np.zeros((1, 1), np.int32))
    (tmp_path / "corpus" / "strings.json").write_text("{}")
    (tmp_path / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": "toy"}))
    write_source(tmp_path / "sources" / "0", {"name": "sae"}, {"density": np.zeros(1)}, [b"a record"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        refused(run("explore", tmp_path, "--port", s.getsockname()[1]), "is in use")
    refused(run("explore", tmp_path, "--port", "70000"), "is no port")


def test_a_truncated_model_is_named(toy, tmp_path):
    toy.module.save_pretrained(tmp_path)
    toy.tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    refused(run("train", "--model", tmp_path, "--workspace", tmp_path / "w[x]"), "could not load the model")


def test_targets_by_a_roundabout_way_are_still_targets(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "d")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    refused(run("convert", folder, f"{tmp_path}/nope/../precious", "--to", "saelens"), "exists already")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("card.json", "[]", "card.json is no JSON object"),
        ("card.json", '{"metrics": {"dictionary": {"delta_ce": 5}}}', "damaged"),
        ("provenance.json", '{"corpus": "x"}', "damaged"),
    ],
)
def test_odd_metadata_is_named(make_dictionary, tmp_path, name, content, says):
    folder = save_dictionary(make_dictionary(), tmp_path / "w" / "dictionaries" / "d")
    (folder / "sha256.json").unlink()  # put together by hand
    (folder / name).write_text(content)
    refused(run("inspect", folder), says)
    if says != "damaged":
        refused(run("publish", tmp_path / "w", "--dry-run"), says)
        assert not (tmp_path / "w" / "publish").exists()


def test_publish_stays_in_its_folder_and_checks_the_repository_first(make_dictionary, tmp_path):
    save_dictionary(make_dictionary(), tmp_path / "w" / "dictionaries" / "sae")
    member = {"name": "sae", "folder": "../../escaped"}
    (tmp_path / "w" / "recipe.json").write_text(json.dumps({"recipe": {"training": {"members": [member]}}}))
    refused(run("publish", tmp_path / "w", "--dry-run"), "leads out of the tree")
    refused(run("publish", tmp_path / "w", "--repository", "no slash"), "owner/name")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w"] and not (tmp_path / "w" / "publish").exists()
