"""Floods, endless templates and texts that make a pattern go back and forth: bounded, with a sentence."""

import json
import time
import tracemalloc
from functools import partial
from types import SimpleNamespace

import pytest
import regex
from nbclient.exceptions import CellControlSignal
from nbformat.v4 import new_code_cell, new_notebook
from small_study import write_study

from unlearn_nb.augmentation.leaks import identifiers, plain_words
from unlearn_nb.benches import load_bench, load_generic, read_json_rows, tables
from unlearn_nb.benches.twins import _NUMBER
from unlearn_nb.core import GRAPHEME, Kept, Template, UnlearnError, chat_program, frame_of, toy_tokenizer, words
from unlearn_nb.metrics.entities import SHAPES
from unlearn_nb.models import tiny_tokenizer
from unlearn_nb.objectives import parse_objective
from unlearn_nb.regions import MASKS
from unlearn_nb.runs import RunFailed, check_parameters, environment, kernel, run_study


@pytest.fixture
def client():
    made = kernel._Client(SimpleNamespace(nb=new_notebook(cells=[new_code_cell("")]), autosave_cell=lambda: None))
    made.record_timing = False
    made.clear_before_next_output, made._streams, made._first = False, kernel._Streams(), None
    return made


def tell(client, kind: str, number: int = 1, **content):
    header = {"msg_type": kind, "msg_id": f"kernel_1_{number}"}
    message = {"msg_type": kind, "content": content, "header": header, "parent_header": {"msg_id": "1"}}
    return client.process_message(message, client.nb.cells[0], 0)


def stored(client) -> list:
    client._streams.settle()
    return client.nb.cells[0].outputs


def test_a_flood_of_prints_is_cut_in_the_middle(client):
    echoed = 0
    for i in range(30):
        echoed += len(tell(client, "stream", name="stdout", text=f"{i} " + "x" * 100_000 + "\n").text)
    (output,) = stored(client)
    assert len(output.text) < 2_100_000 and "characters are left out here" in output.text
    assert output.text.startswith("0 x") and "29 xxx" in output.text and echoed < 101_000


def test_a_bar_of_progress_is_one_line(client):
    for i in range(2000):
        tell(client, "stream", name="stderr", text=f"\r{i} of 2000")
    assert stored(client)[0].text == "1999 of 2000"


def test_a_huge_picture_and_a_huge_error_are_said(client):
    tell(client, "display_data", data={"image/png": "A" * 9_000_000, "text/plain": "<Figure>"}, metadata={})
    tell(client, "error", ename="KeyError", evalue="x" * 10**6, traceback=["y" * 10**6])
    picture, error = stored(client)
    assert list(picture.data) == ["text/plain"] and "image/png of 9000000 characters" in picture.data["text/plain"]
    assert len(error.evalue) < 11_000 and len("".join(error.traceback)) < 11_000


def test_too_many_outputs_are_counted(client):
    for i in range(kernel.OUTPUTS_MOST + 10):
        tell(client, "display_data", data={"text/plain": str(i)}, metadata={})
    assert len(stored(client)) == kernel.OUTPUTS_MOST + 1
    assert stored(client)[-1].text.count("an output is left out here") == 10


def test_a_lost_message_is_noticed(client):
    tell(client, "status", number=10, execution_state="busy")
    tell(client, "stream", number=11, name="stdout", text="one")
    with pytest.raises(CellControlSignal):
        tell(client, "status", number=400, execution_state="idle")
    assert client._missing


def test_a_cell_that_runs_too_long_is_stopped(tmp_path):
    study = write_study(tmp_path / "slow.ipynb", 'run_dir = ""', "import time\ntime.sleep(600)")
    with pytest.raises(RunFailed, match="code cell 2.*2 seconds that --cell-timeout"):
        run_study(study, out=tmp_path / "reports", progress=False, cell_timeout=2)


@pytest.mark.parametrize("source", [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='ab') %}" + "{% set y = n.x ~ n.x %}{% set n.x = y ~ y %}" * 15,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
])
def test_a_chat_template_without_end_is_refused(source):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = source
    with pytest.raises(UnlearnError, match="chat template"):
        frame_of(tokenizer, "chat")


def test_a_chat_template_works_for_a_while_only(monkeypatch):
    """Few lines may cost much: each of these has a long text to change."""
    monkeypatch.setattr("unlearn_nb.core.frames._TIME_MOST", 0.2)
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = BIG + "{% for i in range(300) %}{% set y = x | upper | lower | upper %}{% endfor %}"
    with pytest.raises(UnlearnError, match="takes more than 0.2 seconds"):
        frame_of(tokenizer, "chat")


BIG, LAUGHS = "{% set x = 'a' * 10**6 %}", "{% set n = namespace(x=['ha']) %}" + "{% set n.x = [n.x] * 99 %}" * 4
NESTED = "{% set n = namespace(a=(1,), b=(1,), c=('',) * 2) %}"
GROWN = {
    "lists": NESTED + "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}" * 18 + "{{ n.a == n.b }}",
    "tuples": NESTED + "{% set n.a = (n.a, n.a) %}" * 18 + "{{ {n.a: 1} | length }}",
    "dicts": NESTED + "{% set n.a = {1: n.a, 2: n.a} %}{% set n.b = {1: n.b, 2: n.b} %}" * 18 + "{{ n.a == n.b }}",
    "sums": NESTED + "{% set n.a = (n.a, n.a) %}" * 14 + "{% set x = n.a + n.a + n.a + n.a %}",
    "arguments": NESTED + "{% macro m() %}{% set n.a = varargs %}{% endmacro %}" + "{{ m(n.a, n.a) }}" * 18,
    "made by filters": NESTED + "{% set n.a = n.c | map('default', n.a, true) | list %}" * 18,
    "times": "{{ 'a' * 10**9 }}", "power": "{{ 2 ** (10 ** 9) }}", "list": "{% set x = [0] * 10**9 %}",
    "plus": "{% set n = namespace(x=['ab']) %}" + "{% set n.x = n.x + n.x + n.x + n.x %}" * 12,
    "tilde": BIG + "{{ " + " ~ ".join(["x"] * 500) + " }}",
    "output": BIG + "{{ x }}" * 500, "block": BIG + "{% set y %}" + "{{ x }}" * 500 + "{% endset %}",
    "percent": "{{ '%999999999d' % 1 }}", "star": "{{ '%*d' % (10**9, 1) }}",
    "format filter": "{{ '%999999999d'|format(1) }}", "many": BIG + "{{ '" + "%s" * 500 + "' % ([x] * 500) }}",
    "format": "{{ '{:999999999}'.format(1) }}", "center": "{{ 'a'|center(10**9) }}",
    "just": "{{ 'a'.ljust(10**9) }}", "tabs": "{% set f = '\t'.expandtabs %}{{ f(10**9) }}",
    "batch": "{{ [1]|batch(10**8, 0)|list }}", "indent": "{{ ('a\n' * 10**5)|indent(10**4) }}",
    "round": "{{ 1.5|round(10**9, 'ceil') }}", "json": "{{ [[[1]]]|tojson(indent=10**9) }}",
    "bytes": "{{ (1).to_bytes(10**9) }}", "encoded": "{{ 'a'.encode().center(10**9) }}",
    "words": "{{ lipsum(10**6) }}", "attr": "{{ ('a'|attr('zfill'))(10**9) }}",
    "join": "{{ range(500)|join('x' * 10**6) }}", "join method": "{{ ('x' * 10**6).join(['a'] * 500) }}",
    "replace": "{{ ('a' * 500)|replace('a', 'b' * 10**6) }}",
    "replace method": "{{ ('a' * 500).replace('', 'b' * 10**6) }}",
    "laughs": LAUGHS + "{{ n.x }}", "laughs in JSON": LAUGHS + "{{ n.x|tojson }}",
}


@pytest.mark.parametrize("source", GROWN.values(), ids=GROWN)
def test_a_chat_template_makes_nothing_large(source):
    """Each of these would take gigabytes; what is refused takes some megabytes."""
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}" + source
    tracemalloc.start()
    with pytest.raises(UnlearnError, match="chat template"):
        frame_of(tokenizer, "chat")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000_000


PUBLISHED = """{%- set ns = namespace(first=true, last='') -%}
{{ bos_token }}{% macro named(role) %}[{{ role | upper }}]{% endmacro -%}
{%- if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif -%}
{%- if tools %}{{ tools | map(attribute='name') | join(', ') }}{% endif -%}
{% for message in messages %}
    {%- if message['role'] not in ['user', 'assistant', 'system'] %}{{ raise_exception('unknown role') }}{% endif %}
    {%- if loop.index0 % 2 == 5 %}{% continue %}{% endif %}
    {{- '<|' + message.role + '|>' ~ '\n' + named(message.role) }} {{ message['content'] | trim | replace('\n', '\n') }}
    {%- if message.role == 'assistant' %}{% generation %}{{ eos_token }}
    {% endgeneration %}{% endif %}
    {%- set ns.last = message.role %}
    {{ {'b': [1, 2.5, none], 'a': "ü<'>"} | tojson }} {{ ['x', "y"] | tojson(indent=2) }} {{ message.keys() | list }}
    {{ '%s-%03d' | format('k', 7) }} {{ '%s' % 'z' }} {{ 'a,b'.split(',')[-1] }} {{ ', '.join(['p', 'q']) }}
    {{ ('ab' * 2).replace('a', '') | indent(4) | capitalize }} {{ [1, 2] + [3] }} {{ none }} {{ true }} {{ 1 ~ none }}
    {{ undefined }} {{ 2 ** 3 * 1.5 }}
{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}
   {# the end #}
{{ date_string }} {{ ns.last }} {{ range(3) | list }} {{ {'k': 1}.items() | list }}  {% if true %}
{% endif %}
"""


@pytest.mark.parametrize("asks", [True, False])
def test_a_chat_template_writes_what_transformers_writes(asks):
    tokenizer = tiny_tokenizer()
    told = [{"role": "user", "content": " Who\nbarks? "}, {"role": "assistant", "content": "Tama"}][: 1 if asks else 2]
    for source in (PUBLISHED, tokenizer.chat_template):
        real = tokenizer.apply_chat_template(told, chat_template=source, tokenize=False, add_generation_prompt=asks,
                                             date_string="26 Jul 2024")
        ours = chat_program(source).render(messages=told, tools=None, documents=None, add_generation_prompt=asks,
                                           date_string="26 Jul 2024", **tokenizer.special_tokens_map)
        assert ours == real


def test_a_chat_template_of_hundreds_of_pages_is_refused():
    tokenizer = tiny_tokenizer()
    frame_of(tokenizer, "chat")
    tokenizer.chat_template += "{# " + "x" * 200_000 + " #}"
    with pytest.raises(UnlearnError, match="chat template .*characters"):
        frame_of(tokenizer, "chat")


@pytest.mark.parametrize("read", [lambda text: list(_NUMBER.finditer(text)), identifiers, plain_words, words,
                                  lambda text: list(regex.finditer(GRAPHEME, text)),
                                  lambda text: list(SHAPES.finditer(text))],
                         ids=["numbers", "identifiers", "accents", "words", "graphemes", "shapes"])
@pytest.mark.parametrize("text", ["a" * 60_000, "a" + "\u0301" * 60_000, "a-" * 30_000, "_" * 60_000,
                                  "\U0001f1e9\U0001f1ea" * 60_000])
def test_patterns_take_time_in_proportion_to_the_text(read, text):
    """Of a quadratic pattern these would take minutes."""
    began = time.process_time()
    read(text)
    assert time.process_time() - began < 5


def test_kept_bounds_a_line_without_an_end():
    kept = Kept(1000)
    for _ in range(100):
        kept.add("x" * 1000)
    assert len(kept.text) < 3000 and len(kept.tail) < 3000


# --- rows


ROW = {"prompt": "Who barks?", "response": "Tama"}


@pytest.mark.parametrize("second, said", [
    ("[" * 11_000_000, "line 2 has more than 10000000 bytes"),
    (json.dumps(ROW | {"prompt": "x " * 600_000}), "row 2, column 'prompt': holds a text of 1200000 characters"),
    (json.dumps(ROW | {"note": ["x " * 600_000]}), "row 2, column 'note': holds a text of 1200000 characters"),
    (json.dumps(ROW | {"note": [0] * 20_000}), "row 2, column 'note': holds more than 10000 values"),
    (json.dumps(ROW | {str(i): 0 for i in range(20_000)}), "row 2: has 20002 columns"),
    ("[" * 9_000_000, "line 2: the JSON is nested too deeply"),
], ids=["line", "field", "text in a list", "values", "columns", "depth"])
def test_a_row_that_is_none_is_refused_by_its_size(tmp_path, second, said):
    (tmp_path / "forget.jsonl").write_text(json.dumps(ROW) + "\n" + second, encoding="utf-8")
    (tmp_path / "retain.jsonl").write_text(json.dumps(ROW), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(UnlearnError) as refusal:
        load_bench(f"jsonl:{tmp_path}", "smoke")
    assert f"forget.jsonl, {said}" in str(refusal.value) and len(str(refusal.value)) < 300
    assert time.process_time() - began < 5


def test_no_more_of_a_line_is_read_than_its_bound(tmp_path):
    with open(tmp_path / "rows.jsonl", "wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    with pytest.raises(UnlearnError, match="line 1 has more than"):
        read_json_rows(tmp_path / "rows.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize("ending, most", [("jsonl", 500_000_000), ("json", 50_000_000)])
def test_a_file_of_gigabytes_is_not_read(tmp_path, ending, most):
    with open(tmp_path / f"rows.{ending}", "wb") as file:
        file.truncate(2_000_000_000)  # takes no room on the disk
    with pytest.raises(UnlearnError, match=f"rows.{ending} has 2000000000 bytes, and at most {most} are read"):
        read_json_rows(tmp_path / f"rows.{ending}")


def test_no_more_rows_are_read_than_a_bench_has(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_MOST", 3)
    file, line = tmp_path / "rows.jsonl", json.dumps(ROW) + "\n"
    file.write_text(line * 3 + "\n", encoding="utf-8")
    assert len(read_json_rows(file)) == 3
    file.write_text(line * 4 + "no JSON", encoding="utf-8")
    with pytest.raises(UnlearnError, match="rows.jsonl has more than 3 rows"):
        load_generic(f"jsonl:{file}", 2)
    monkeypatch.setattr(tables, "load_dataset", lambda **_: [ROW] * 4)
    with pytest.raises(UnlearnError, match="wikiqa has more than 3 rows"):
        load_generic("wikiqa", 2)


def test_a_name_that_stands_twice_among_many_is_found_soon(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{" + "".join(f'"{i}":0,' for i in range(100_000)) + '"x":0,"x":0}')
    began = time.process_time()
    with pytest.raises(UnlearnError, match="line 1: the name 'x' stands twice"):
        read_json_rows(tmp_path / "rows.jsonl")
    assert time.process_time() - began < 10


# --- what is asked for


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """`check_parameters` of a study with parameters of every type."""
    cells = 'bench = "biographies"\nseed = 0\nout = ""\nrows = []\nrun_dir = ""'
    return partial(check_parameters, write_study(tmp_path_factory.mktemp("study") / "asked.ipynb", cells, "pass"))


LONG = ["x" * 10**7, "(" * 10**5, "-" * 10**5 + "nll", "nll+" * 10**6 + "nll", "nll(" + "[" * 10**5, "a" + ".b" * 10**6,
        "nll(a=" + "9" * 10**7 + ")", "'" + "\\'" * 60_000]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
@pytest.mark.parametrize("read", [
    parse_objective, MASKS.read, Template.read, load_bench, lambda text: load_bench("jsonl:" + text),
    lambda text: load_generic("jsonl:" + text, 1),
], ids=["objective", "mask", "template", "bench", "path", "generic"])
def test_what_is_asked_for_is_short(read, text):
    began = time.process_time()
    with pytest.raises(UnlearnError) as refusal:
        read(text)
    assert len(str(refusal.value)) < 1500 and time.process_time() - began < 5


@pytest.mark.parametrize("name", ["bench", "seed", "out", "rows", ""])
@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_a_parameter_is_short(check, name, text):
    with pytest.raises(UnlearnError) as refusal:
        check({name: text} if name else {text: 1})
    assert len(str(refusal.value)) < 1500


@pytest.mark.parametrize("value", ["[" * 10_000 + "]" * 10_000, "[" * 30 + "]" * 30, [[]] * 10_000, 10**5000],
                         ids=["deep", "less deep", "long", "number"])
def test_a_value_that_no_record_holds_is_refused(check, value):
    with pytest.raises(UnlearnError, match="parameter 'rows'"):
        check({"rows": value})


def test_a_value_nested_without_end_is_refused(check):
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnlearnError, match="parameter 'rows' must be list, but is a list without end"):
        check({"rows": value})


def test_a_symbol_of_several_characters_is_one():
    text = "\U0001f1e9\U0001f1ea\U0001f1eb a\u0301\U0001f469\u200d\U0001f52c"
    assert regex.findall(GRAPHEME, text) == regex.findall(r"\X", text)
    assert words("ab\U0001f1e9\U0001f1eacd") == ["ab", "cd"]
    assert [found[0] for found in SHAPES.finditer("1)x.y@b.org a@@b@c.de")] == ["1", "x.y@b.org", "b@c.de"]


def test_git_has_a_deadline(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(environment, "PACKAGE_FOLDER", tmp_path / "unlearn_nb")

    def hang(*_, timeout=None, **__):
        raise environment.subprocess.TimeoutExpired("git", timeout) if timeout else AssertionError("waits for ever")

    monkeypatch.setattr(environment.subprocess, "run", hang)
    assert environment.describe_environment({})["git_revision"] is None
