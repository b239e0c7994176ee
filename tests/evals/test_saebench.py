"""SAEBench's schema: a checker of our own over the fields of sae-bench 0.6.0 (tests/oracles/evaluation.py asks its own classes)."""

import json

import numpy as np
import pytest
import torch

from diascope.evals import evaluate
from diascope.evals.saebench import NONE, measured, of_text, outputs, write_saebench
from diascope.tokens import Document, pack

NUMBER, TEXT, WHOLE, MAYBE = "number", "string", "integer", ["number", "null"]


def numbers(names, kind=NUMBER, required=True):
    fields = names.split()
    return {"type": "object", "properties": {f: {"type": kind} for f in fields}, "required": fields if required else [], "additionalProperties": False}  # fmt: skip


def output(kind, metrics, details):
    """The parts that are the same in all of its outputs (base_eval_output.py)."""
    maybe = {"type": [TEXT, "null"]}
    fields = {
        "eval_type_id": {"enum": [kind]}, "eval_config": {"type": "object"}, "eval_id": {"type": TEXT},
        "datetime_epoch_millis": {"type": WHOLE, "minimum": 0, "maximum": 9999999999999}, "eval_result_metrics": metrics,
        "eval_result_details": {"type": "array", "items": details}, "sae_bench_commit_hash": {"type": TEXT}, "sae_lens_id": maybe,
        "sae_lens_release_id": maybe, "sae_lens_version": maybe, "sae_cfg_dict": {"type": ["object", "null"]},
        "eval_result_unstructured": {},
    }  # fmt: skip
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def categories(**of):
    return {"type": "object", "properties": of, "required": list(of), "additionalProperties": False}


CORE = output(
    "core",
    categories(
        model_behavior_preservation=numbers("kl_div_score kl_div_with_ablation kl_div_with_sae"),
        model_performance_preservation=numbers("ce_loss_score ce_loss_with_ablation ce_loss_with_sae ce_loss_without_sae"),
        reconstruction_quality=numbers("explained_variance explained_variance_legacy mse cossim"),
        shrinkage=numbers("l2_norm_in l2_norm_out l2_ratio relative_reconstruction_bias"),
        sparsity=numbers("l0 l1"),
        token_stats=numbers("total_tokens_eval_reconstruction total_tokens_eval_sparsity_variance", WHOLE),
        misc_metrics=numbers(
            "freq_over_1_percent freq_over_10_percent normalized_freq_over_1_percent normalized_freq_over_10_percent "
            "average_max_encoder_cosine_sim average_max_decoder_cosine_sim frac_alive"
        ),
    ),
    {"type": "object"},
)
TOP = (
    " ".join(f"sae_top_{k}_test_{m}" for k in (1, 2, 5, 10, 20, 50, 100) for m in ("accuracy", "auc", "f1"))
    + " sae_test_accuracy"
)
LLM = "llm_test_accuracy llm_test_auc llm_test_f1"
DETAIL = numbers(f"{TOP} {LLM}", MAYBE, required=False)
DETAIL = {**DETAIL, "properties": DETAIL["properties"] | {"dataset_name": {"type": TEXT}}, "required": ["dataset_name"]}
PROBING = output(
    "sparse_probing_sae_probes",
    categories(llm=numbers(LLM, MAYBE, required=False), sae=numbers(TOP, MAYBE, required=False)),
    DETAIL,
)
ABSORPTION = output(
    "absorption_first_letter",
    categories(
        mean=numbers(
            "mean_absorption_fraction_score mean_full_absorption_score mean_num_split_features std_dev_absorption_fraction_score "
            "std_dev_full_absorption_score std_dev_num_split_features"
        )
    ),
    {"type": "object"},
)
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}


def problems(value, schema, where="$"):
    """What of `value` breaks `schema`: the part of JSON Schema that is used above."""
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and (isinstance(value, bool) or not any(isinstance(value, TYPES[k]) for k in kinds)):
        return [f"{where} is {value!r}, not {' or '.join(kinds)}"]
    found = [f"{where} is {value!r}"] if "enum" in schema and value not in schema["enum"] else []
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{where} is {value}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{where}.{k} is missing" for k in schema.get("required", ()) if k not in value]
        found += [
            f"{where}.{k} is unknown" for k in value if known and k not in known and schema.get("additionalProperties") is False
        ]
        found += [p for k, v in value.items() if k in known for p in problems(v, known[k], f"{where}.{k}")]
    if isinstance(value, list) and "items" in schema:
        found += [p for i, v in enumerate(value) for p in problems(v, schema["items"], f"{where}[{i}]")]
    return found


@pytest.fixture(scope="module")
def judged(toy):
    r = np.random.default_rng(0)
    words = "the cat sat on a mat and the dog ran off with my hat ".split()
    documents = [Document(f"d{i}", " ".join(r.choice(words, 12))) for i in range(20)]
    sequences = pack(toy, documents, context=64, max_tokens=64 * 10)
    from diascope.evals.text import EvalText

    text = EvalText(toy, sequences)

    def run(d, **more):
        run.sequences = sequences
        seen = text.capture(list(d.sites))
        x, y = d.inputs(seen), d.targets(seen)
        return evaluate(toy, {"d": d}, sequences, training_rows=lambda _: (x, y), ce_tokens=10**6, **more)["d"].card(), x, y

    return run


def test_a_card_becomes_a_core_output(toy, judged, make_dictionary, tmp_path):
    d = make_dictionary()
    card, x, y = judged(d)
    more = of_text(toy, d, judged.sequences)
    assert more == measured(d, x, y)
    (path,) = write_saebench(tmp_path, "mine", card, more)
    core = json.loads(path.read_text())
    assert path.name == "core.json" and not problems(core, CORE)
    m = core["eval_result_metrics"]
    own, mean = card["metrics"]["dictionary"], card["metrics"]["mean"]
    assert (
        m["sparsity"]["l0"] == own["l0"]["value"]
        and m["reconstruction_quality"]["explained_variance"] == 1 - own["fvu"]["value"]
    )
    ce = m["model_performance_preservation"]
    score = (ce["ce_loss_with_ablation"] - ce["ce_loss_with_sae"]) / (ce["ce_loss_with_ablation"] - ce["ce_loss_without_sae"])
    assert ce["ce_loss_score"] == pytest.approx(score, abs=1e-6) and ce["ce_loss_with_ablation"] == mean["ce"]["value"]
    assert m["token_stats"]["total_tokens_eval_sparsity_variance"] == len(x)
    assert core["eval_result_unstructured"]["not_measured"] == []
    assert not [v for c in m.values() for v in c.values() if v == NONE]


def test_what_is_measured_follows_saebenchs_definitions(judged, make_dictionary):
    d = make_dictionary(kind="transcoder", skip=True)
    _, x, y = judged(d)
    found = measured(d, x, y)
    f, y_hat, y = d.encode(x).dense().double(), d(x).double(), y.double()
    density = (f > 0).double().mean(0)
    expected = {
        "mse": (y - y_hat).square().sum(1).mean(),
        "explained_variance_legacy": (1 - (y - y_hat).square().sum(1) / (y - y.mean(0)).square().sum(1)).mean(),
        "cossim": torch.cosine_similarity(y, y_hat).mean(),
        "l2_norm_in": y.norm(dim=1).mean(),
        "l2_norm_out": y_hat.norm(dim=1).mean(),
        "l2_ratio": (y_hat.norm(dim=1) / y.norm(dim=1)).mean(),
        "l1": f.sum(1).mean(),
        "relative_reconstruction_bias": y_hat.square().sum(1).mean() / (y * y_hat).sum(1).mean(),
        "freq_over_1_percent": (density > 0.01).double().mean(),
        "freq_over_10_percent": (density > 0.1).double().mean(),
        "normalized_freq_over_1_percent": density[density > 0.01].sum() / density.sum(),
        "normalized_freq_over_10_percent": density[density > 0.1].sum() / density.sum(),
    }
    for name, W in (("decoder", d.W_dec), ("encoder", d.W_enc.t())):
        c = torch.nn.functional.normalize(W, dim=1) @ torch.nn.functional.normalize(W, dim=1).t()
        expected[f"average_max_{name}_cosine_sim"] = c.fill_diagonal_(-2).max(1).values.mean()
    assert found == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-5)


def test_what_is_not_measured_is_marked_and_named(judged, make_dictionary):
    card, _, _ = judged(make_dictionary())
    del card["metrics"]["mean"]
    core = outputs("mine", card, millis=5)["core"]
    assert not problems(core, CORE) and core["datetime_epoch_millis"] == 5
    missing = core["eval_result_unstructured"]["not_measured"]
    assert {"cossim", "l1", "ce_loss_with_ablation", "kl_div_score"} <= set(missing) and "l0" not in missing
    metrics = {f: v for c in core["eval_result_metrics"].values() for f, v in c.items()}
    assert all(metrics[f] == NONE for f in missing)
    assert outputs("mine", card, millis=5) == outputs("mine", card, millis=5)
    assert outputs("other", card, millis=5)["core"]["eval_id"] != core["eval_id"]


def test_suite_entries_have_outputs_of_their_own(judged, make_dictionary):
    card, _, _ = judged(make_dictionary())
    estimate = {"value": 0.7, "n": 2, "documents": 2, "low": 0.6, "high": 0.8}
    card["suite"] = {
        "probing": {
            "config": {"type": "Probing", "ks": [1, 2, 5, 3], "tasks": ["a", "b"], "seed": 3},
            "run": {}, "result": {"auroc k1": estimate, "auroc k3": 0.9, "auroc k1 elsewhere": 0.5},
            "controls": {"dense": {"auroc all dimensions": 0.95}},
            "details": {"tasks": {"a": {"k1": 0.6, "k3": 0.9, "dense": 0.94}, "b": {"k1": 0.8, "dense": 0.96}}},
        },
        "absorption": {
            "config": {"seed": 1, "splits": 10}, "run": {},
            "result": {"absorption": estimate, "full absorption": 0.1, "main latents": 1.5}, "controls": {},
            "details": {"a": {"main": [1], "absorption": 0.2}, "b": {"main": [2, 3], "absorption": 0.4}},
        },
    }  # fmt: skip
    found = outputs("mine", card)
    assert list(found) == ["core", "sparse_probing_sae_probes", "absorption_first_letter"]
    probing, absorbed = found["sparse_probing_sae_probes"], found["absorption_first_letter"]
    assert not problems(probing, PROBING) and not problems(absorbed, ABSORPTION)
    assert probing["eval_result_metrics"] == {"llm": {"llm_test_auc": 0.95}, "sae": {"sae_top_1_test_auc": 0.7}}
    assert probing["eval_result_details"][1] == {"dataset_name": "b", "llm_test_auc": 0.96, "sae_top_1_test_auc": 0.8}
    mean = absorbed["eval_result_metrics"]["mean"]
    assert mean["mean_num_split_features"] == 1.5 and mean["std_dev_absorption_fraction_score"] == pytest.approx(
        0.1414, abs=1e-4
    )
    assert absorbed["eval_result_unstructured"]["not_measured"] == ["std_dev_full_absorption_score"]
    card["suite"]["absorption"]["result"] = {}
    assert "absorption_first_letter" not in outputs("mine", card)


def test_the_checker_can_fail(judged, make_dictionary):
    core = outputs("mine", judged(make_dictionary())[0])["core"]
    core["eval_result_metrics"]["sparsity"] = {"l0": None, "l2": 1.0}
    core["eval_type_id"], core["datetime_epoch_millis"] = "other", -1
    del core["sae_lens_id"]
    assert len(problems(core, CORE)) == 6
