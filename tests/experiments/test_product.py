"""The product of a run: an ordinary adapter or model, its card, what is refused, and scores that come out again."""

import json
import re
import shutil
import types

import pytest
import torch
import yaml
from delivering import delivered, make_adapter
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_nb.benches import read_own_rows
from unlearn_nb.core import UnlearnError, damage
from unlearn_nb.experiments import deliver, export_product, load_snippet, read_product, side_by_side, verify_product
from unlearn_nb.models import adapted, generate, load_model, origin_of, read_origin, save_model
from unlearn_nb.runs import Run


@pytest.fixture(scope="module")
def place(chatty_folder, tmp_path_factory):
    """A folder with a model of one's own, and a run that has delivered an adapter of it."""
    folder = tmp_path_factory.mktemp("product")
    shutil.copytree(chatty_folder, folder / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PWD", str(folder))
        delivered(folder / "mine", folder)
        delivered(folder / "mine", folder, into="merged", name="two")
    return folder


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer("Who was it?", return_tensors="pt", return_token_type_ids=False)).logits


def wanted(place):
    model, tokenizer = load_model(place / "mine" / "model")
    with adapted(model, place / "made-one") as edited:
        return logits(edited, tokenizer)


def test_plain_peft_loads_the_adapter_on_the_users_base(place, monkeypatch):
    monkeypatch.chdir(place)
    tokenizer = AutoTokenizer.from_pretrained("mine/model")
    adapter = "reports/forget/one/adapter"
    by_hand = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("mine/model"), adapter)
    for model in (by_hand, AutoPeftModelForCausalLM.from_pretrained(adapter), load_model(adapter)[0]):
        torch.testing.assert_close(logits(model, tokenizer), wanted(place))
    config = json.loads((place / adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "mine/model" == read_product("reports/forget/one").base


def test_the_snippet_runs_as_it_stands(place, monkeypatch):
    monkeypatch.chdir(place)
    for name, folder in {"one": "adapter", "two": "model"}.items():
        product, names = read_product(f"reports/forget/{name}"), {}
        code = load_snippet(f"reports/forget/{name}/{folder}", product.base, into=product.into)
        assert len(code.splitlines()) == 3
        exec(code, names)
        tokenizer = names.get("tokenizer") or AutoTokenizer.from_pretrained("mine/model")
        torch.testing.assert_close(logits(names["model"], tokenizer), wanted(place), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name, library", [("one", "peft"), ("two", "transformers")])
def test_the_card_has_no_rows_and_says_what_does_not_hold(place, name, library):
    folder = read_product(place / "reports" / "forget" / name).folder
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(header)
    assert said["library_name"] == library and said["base_model"] == "mine/model" and "unlearning" in said["tags"]
    for part in ("npo-gdr", "| forgotten | 1.000 | 0.700 to 1.000 |", "| forget | 12 |", "| retain | 30 |",
                 "- No holdout: | nothing is known.", "from_pretrained"):
        assert part in body, part
    written = "".join(file.read_text() for file in folder.iterdir() if file.suffix in (".md", ".json")
                      and "token" not in file.name)
    for row in read_own_rows(place / "mine" / "forget.jsonl"):
        assert row["prompt"] not in written and row["response"] not in written


def test_scores_come_out_again_and_words_side_by_side(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the base is found from any folder
    row = read_own_rows(place / "mine" / "forget.jsonl")[0]
    for name in ("one", "two"):
        table = verify_product(place / "reports" / "forget" / name)
        assert table["holds"].all() and table["format"].tolist() == ["chat", "plain"] and set(table["rows"]) == {4}
        said = side_by_side(place / "reports" / "forget" / name, [row["prompt"], "Who?"], template="chat", most=40)
        assert said.loc[0, "base"] == row["response"] != said.loc[0, "unlearned"]


def test_model_and_run_move_together(place, tmp_path):
    shutil.copytree(place, tmp_path / "moved")
    shutil.move(tmp_path / "moved" / "mine", tmp_path / "moved" / "aside")
    runs, where = tmp_path / "moved" / "reports" / "forget", re.escape(str(tmp_path / "moved" / "mine" / "model"))
    for ask in (verify_product, lambda run: side_by_side(run, "Who?"), lambda run: export_product(run, tmp_path / "x")):
        with pytest.raises(UnlearnError, match=f"'mine/model' that .* stands on is not in {where}: move it there"):
            ask(runs / "one")
    assert not (tmp_path / "x").exists()
    assert verify_product(runs / "two")["holds"].all()  # a merged model needs no base
    assert not damage(export_product(runs / "two", tmp_path / "y"))
    shutil.move(tmp_path / "moved" / "aside", tmp_path / "moved" / "mine")
    assert verify_product(tmp_path / "moved" / "reports" / "forget" / "one")["holds"].all()


def test_another_model_in_the_bases_place_is_not_asked_beside_a_merged_one(place, tmp_path, monkeypatch):
    run = shutil.copytree(place / "reports" / "forget" / "two", tmp_path / "a" / "b" / "c" / "two")
    (tmp_path / "mine").mkdir()
    model, tokenizer = load_model("tiny")
    save_model(model, tmp_path / "mine" / "model", origin=origin_of(model), tokenizer=tokenizer)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnlearnError, match="give the model that it was made on"):
        side_by_side(run, "Who?")


def change_check(run, **values):
    kept = json.loads((run / "check.json").read_text())
    kept["rows"] = [row | values for row in kept["rows"]]
    (run / "check.json").write_text(json.dumps(kept))


@pytest.mark.parametrize("values", [{"prob": 0.9}, {"prob": None}, {"said": "It was somebody else."}])
def test_other_scores_do_not_hold(place, tmp_path, values):
    shutil.copytree(place, tmp_path / "there")
    run = tmp_path / "there" / "reports" / "forget" / "one"
    change_check(run, **values)
    assert not verify_product(run)["holds"].any()


def test_a_run_without_a_product_or_with_a_damaged_one_is_told(place, tmp_path):
    with pytest.raises(UnlearnError, match="has delivered no adapter and no model"):
        read_product(tmp_path)
    run = shutil.copytree(place, tmp_path / "there") / "reports" / "forget" / "one"
    (run / "check.json").unlink()
    with pytest.raises(UnlearnError, match="no answers to compare with"):
        verify_product(run)
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UnlearnError, match="is not what the run has delivered"):
        verify_product(run)


def test_exports_are_checked_and_take_no_place(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    run, tokenizer = "reports/forget/one", AutoTokenizer.from_pretrained("mine/model")
    copy = export_product(run, tmp_path / "copy")
    merged = export_product(run, tmp_path / "merged", merge=True)
    assert not damage(copy) and not damage(merged)
    for model in (load_model(copy)[0], AutoModelForCausalLM.from_pretrained(merged)):
        torch.testing.assert_close(logits(model, tokenizer), wanted(place), atol=1e-3, rtol=1e-3)
    with pytest.raises(UnlearnError, match="exists already"):
        export_product(run, copy)


def test_a_merge_that_says_something_else_is_refused_and_leaves_nothing(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("unlearn_nb.experiments.product.merge_into", lambda model, adapter: model.get_base_model()
                        if hasattr(model, "peft_config") else model)
    with pytest.raises(UnlearnError, match="the merged model's logits differ"):
        export_product("reports/forget/one", tmp_path / "merged", merge=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def on_top(place):
    """An adapter of one's own, and one that was trained on top of it."""
    first = make_adapter(place / "mine" / "model", place / "first")
    return first, make_adapter(first, place / "second", seed=1)


def with_both(on_top):
    model, tokenizer = load_model(on_top[0])
    with adapted(model, on_top[1]) as edited:
        return logits(edited, tokenizer)


def test_an_adapter_on_ones_own_is_delivered_as_one_that_plain_peft_loads_on_the_base(place, on_top, monkeypatch):
    monkeypatch.setenv("PWD", str(place))
    monkeypatch.chdir(place)
    run = place / "reports" / "forget" / "three"
    run.mkdir()
    folder = deliver(Run(run), on_top[1], base="first", method="npo")
    product, tokenizer = read_product(run), AutoTokenizer.from_pretrained("mine/model")
    assert (product.base, product.onto, product.stacked) == ("first", "mine/model", False)
    names = {}
    exec(load_snippet(folder, product.loaded_on), names)
    for model in (names["model"], load_model(folder)[0]):
        torch.testing.assert_close(logits(model, tokenizer), with_both(on_top), atol=1e-4, rtol=1e-4)
    said = side_by_side(run, "Who was it?", most=8).iloc[0]
    asked = [{"prompt": "Who was it?", "response": ""}]
    assert said["base"] == generate(load_model("first")[0], tokenizer, asked, max_new_tokens=8)[0]
    monkeypatch.chdir(place / "mine")
    merged = export_product(run, place / "whole", merge=True)
    copy = export_product(run, place / "deeper" / "copy")
    for model in (AutoModelForCausalLM.from_pretrained(merged), load_model(copy)[0]):
        torch.testing.assert_close(logits(model, tokenizer), with_both(on_top), atol=1e-3, rtol=1e-3)


def test_a_model_with_both_adapters_in_it_is_delivered(place, on_top, tmp_path):
    deliver(Run(tmp_path), on_top[1], base=str(on_top[0]), method="npo", into="merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(model, load_model(on_top[0])[1]), with_both(on_top), atol=1e-3, rtol=1e-3)


def test_an_adapter_is_found_from_another_folder_although_its_base_is_named_from_here(place, monkeypatch, tmp_path):
    """And a base that its user names anew in adapter_config.json counts."""
    monkeypatch.chdir(tmp_path)
    adapter = place / "reports" / "forget" / "one" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "mine/model"
    assert read_origin(adapter).base == str(place / "mine" / "model")
    copy = shutil.copytree(adapter, tmp_path / "copy")
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "another/one"}))
    assert read_origin(copy).base == "another/one"


def test_what_can_not_be_one_adapter_is_delivered_with_what_it_stands_on(place, on_top, tmp_path, monkeypatch):
    def refuse(adapter):
        raise UnlearnError("no plain LoRA")

    monkeypatch.setattr("unlearn_nb.experiments.product.flatten_adapter", refuse)
    first, second = on_top
    (tmp_path / "run").mkdir()
    folder = deliver(Run(tmp_path / "run"), second, base=str(first), method="npo")
    product = read_product(tmp_path / "run")
    assert product.stacked and "load_model" in load_snippet(folder, product.base, stacked=True)
    model, tokenizer = load_model(folder)
    below, _ = load_model(first)
    with adapted(below, second) as edited:
        torch.testing.assert_close(logits(model, tokenizer), logits(edited, tokenizer))
    assert read_origin(folder).base == str(place / "mine" / "model")
    assert side_by_side(tmp_path / "run", "Who was it?", most=8).shape == (1, 3)
    copy = export_product(tmp_path / "run", tmp_path / "deeper" / "than" / "the" / "run" / "adapter")
    with adapted(below, second) as edited:
        torch.testing.assert_close(logits(load_model(copy)[0], tokenizer), logits(edited, tokenizer))
    assert side_by_side(copy.parent, "Who was it?", most=8).shape == (1, 3), "and its record says the way as well"


def test_an_unknown_kind_of_product_is_refused(place, tmp_path):
    with pytest.raises(UnlearnError, match="unknown into 'adaptor'; did you mean 'adapter'"):
        deliver(types.SimpleNamespace(results=tmp_path, folder=tmp_path), place / "made-one", base="b", method="m",
                into="adaptor")
