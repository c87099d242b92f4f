"""A planted key, and everything written or shown: none of it holds the key, in whatever dress."""

import ast
import base64
import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from chat_server import start
from small_study import write_study

from unlearn_nb.augmentation import EndpointWriter, writer_identity
from unlearn_nb.core import UnlearnError, handed_on, redacted, toy_llama, toy_tokenizer, without_credentials
from unlearn_nb.core.secrets import placeless, remember_written
from unlearn_nb.models import load_model, origin_of, read_tokenizer, save_model
from unlearn_nb.runs import RunFailed, check_parameters, content_of, default_run_name, run_study, study_parameters

PASSWORD, IN_QUERY, OURS, HUB = "pass/word+one", "query-key-two", "sk-environment-three", "hf_four_of_the_hub"
LITERAL, GIVEN = "literal-key-five", "given-key-six"
PLANTED = (PASSWORD, IN_QUERY, OURS, HUB, LITERAL, GIVEN)

PARAMETERS = '''writer = ""  # who writes
api_key = ""  # of something else
notes = ""
fault = ""
seed = 0
run_dir = ""'''

ASKED = f'''import logging, os, sys, warnings
from pathlib import Path
from unlearn_nb.augmentation import EndpointWriter, load_writer, writer_identity
from unlearn_nb.runs import Run

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
run = Run.open(run_dir)
asked = load_writer(writer, cache_path=Path("answers.sqlite"))
own = EndpointWriter("http://127.0.0.1:9/v1", "m", api_key="{LITERAL}")
said = asked.write(["who are you?"])
run.stage("texts", lambda folder: (folder / "texts.txt").write_text(said[0]), writer=asked.writer, own=own,
          asked=writer_identity(writer))'''

SHOWN = '''print(said, writer, api_key, asked.writer, own)
print(dict(os.environ))
print(api_key, os.environ["HF_TOKEN"], file=sys.stderr)
warnings.warn(f"the key {os.environ['UNLEARN_NB_API_KEY']} is old")
said, own.api_key, open(__import__("huggingface_hub").constants.HF_TOKEN_PATH).read()'''

FAULTS = '''if fault == "raise":
    raise KeyError(api_key, os.environ["UNLEARN_NB_SECRETS"])
run.finish({"said": said, "writer": writer, "key": os.environ["HF_TOKEN"], "score": 1.0})'''


def dresses(key):
    """The key as it is, quoted, and in base64 behind a name, as far as a part of it can be told from chance."""
    yield from (key, quote(key, safe=""), base64.b64encode(f"me:{key}".encode()).decode())


def leaks(text):
    return [key for key in PLANTED if any(dress in text for dress in dresses(key))]


def check_folder(folder):
    """Nothing below a folder holds a planted key, neither in a file nor in a name."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files and not leaks("\n".join(map(str, folder.rglob("*"))))
    found = {str(file): leaks(file.read_bytes().decode("utf-8", "replace")) for file in files}
    assert not {file: keys for file, keys in found.items() if keys}


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """Keys in the environment and in the token file of the hub."""
    pytest.importorskip("openai")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text(HUB + "\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "hub" / "token"))
    monkeypatch.setenv("HF_TOKEN", HUB)
    monkeypatch.setenv("UNLEARN_NB_API_KEY", OURS)
    return write_study(tmp_path / "asking.ipynb", PARAMETERS, ASKED, SHOWN, FAULTS)


@pytest.fixture
def server():
    """It repeats its Authorization and its path in every text."""
    def repeats(handler):
        text = f"{handler.headers['Authorization']} at {handler.path} {OURS}"
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server = start(lambda *_: repeats)
    yield server
    server.shutdown()
    server.server_close()


def address(server, password=PASSWORD, key=IN_QUERY):
    login = f"me:{quote(password, safe='')}"
    return f"{server.url.replace('//', f'//{login}@')}?version=2&api-key={key}#m"


def test_a_run_writes_and_shows_none(planted, server, tmp_path):
    """By the command line: credentials in a URL, keys in the environment, in code, in a parameter, from a server."""
    command = [sys.executable, "-c", "from unlearn_nb.cli import main; main()", "run", str(planted), "--out", "reports",
               "-p", "writer", address(server), "-p", "api_key", GIVEN,
               "-p", "notes", f"see https://me:{quote(PASSWORD, safe='')}@host"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    asked, = server.bodies
    login = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert asked["key"] == f"Basic {login}" and asked["path"] == f"/v1/chat/completions?version=2&api-key={IN_QUERY}"
    assert not leaks(done.stdout + done.stderr)
    check_folder(tmp_path / "reports")
    folder, = (path.parent for path in (tmp_path / "reports").rglob("params.yaml"))
    assert f"writer: {server.url}?version=2#m" in (folder / "params.yaml").read_text()
    assert str(Path.home()) not in (folder / "notebook.ipynb").read_text()
    link = re.search('href="data:application/x-ipynb[+]json;base64,([^"]*)"', (folder / "report.html").read_text())
    carried = base64.b64decode(link[1], validate=True).decode()
    assert not leaks(carried) and str(Path.home()) not in carried and json.loads(carried)["nbformat"] == 4


def test_a_failure_tells_none(planted, server, tmp_path):
    with pytest.raises(RunFailed) as failed:
        run_study(planted, {"writer": address(server), "api_key": GIVEN, "fault": "raise"}, out=tmp_path / "reports",
                  progress=False)
    assert not leaks(str(failed.value)) and "REDACTED" in str(failed.value)
    check_folder(tmp_path / "reports")
    error = next((tmp_path / "reports").rglob("error.txt")).read_text()
    assert str(tmp_path) not in error and str(Path.home()) not in error


def test_another_key_is_the_same_run(planted, server):
    """Of the same endpoint: one name of the run, one identity of the writer, one key of a stage."""
    seen = set()
    for key in (PASSWORD, "another-password"):
        params = without_credentials({"writer": address(server, key), "api_key": f"{key} of another"})
        name = default_run_name(study_parameters(planted), check_parameters(planted, params))
        writer = EndpointWriter(address(server, key).partition("#")[0], "m", api_key=key)
        stage = json.dumps(content_of("writer", writer))
        assert "api_key" not in name
        seen.add((name, writer.identity, stage, writer_identity(address(server, key))))
    assert len(seen) == 1 and not leaks(str(seen))


def test_a_key_as_the_name_of_a_run_is_refused(planted, tmp_path):
    with pytest.raises(UnlearnError, match="holds a key or password") as error:
        run_study(planted, {}, out=tmp_path / "reports", run_name=f"run-{OURS}")
    assert OURS not in str(error.value) and not (tmp_path / "reports").exists()


@pytest.mark.parametrize("text, kept", [
    ("http://me:short@host/v1?a=1&access_token=abc#m", "http://host/v1?a=1#m"), ("HTTPS://key@host:8/v1", "https://host:8/v1"),
    ("http://host/v1#org/model@2", "http://host/v1#org/model@2"), ("http://host/v1?sig=a%2Fb&code=c", "http://host/v1")])
def test_addresses_without_credentials(text, kept):
    assert without_credentials(text) == kept == without_credentials(kept)


def test_a_kernel_knows_what_its_runner_knows():
    without_credentials("http://me:hand-me-down@host/v1#m")
    code = ("from unlearn_nb.core import credentials, redacted; print(credentials('http://host/v1#m')[0], "
            "redacted('hand-me-down'))")
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | handed_on(), capture_output=True, text=True)
    assert done.stdout == "me:hand-me-down REDACTED\n", done.stderr


def test_ordinary_text_stays(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "none")
    monkeypatch.setenv("OTHER_PASSWORD", "test")
    text = "none of the tests, mail me@host, see http://host/a?page=2&sort=up and ssh://git@host; Basic knowledge"
    assert redacted(text) == text


@pytest.mark.parametrize("name, value", [
    ("DATABASE_PASSWORD", "postgres"), ("TOKEN", "disabled"), ("API_KEY", "LOCALHOST"), ("SECRET", "Undefined"),
    ("DB_PASSWORD", "12345678"), ("TOKEN", "2024-11-05"), ("DATABASE_URL", "postgresql://postgres:postgres@host/db")])
def test_words_and_numbers_of_the_environment_stay(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    text = f"a row: postgres, disabled, LOCALHOST, Undefined, 12345678, 2024-11-05, {value[:4]}"
    assert redacted(text) == redacted(text, urls=False) == text


@pytest.mark.parametrize("key", [
    "sk-proj-Ab3dEf6hIj", "hf_QWErtyUIOpas", "AKIAIOSFODNN7EXAMPLE", "0123456789abcdef", "a1b2c3d4", "c2VjcmV0Cg==",
    "hunter2hunter2", "correct horse", "swordFish", "thequickbrownfox", "1234567890123456", "pa$$word"])
def test_keys_of_the_usual_shapes_go(monkeypatch, key):
    monkeypatch.setenv("PLANTED_PASSWORD", key)
    assert redacted(f"a row: {key}.", urls=False) == "a row: REDACTED."
    monkeypatch.delenv("PLANTED_PASSWORD")
    monkeypatch.setenv("PLANTED_URL", f"https://me:{quote(key, safe='')}@host")
    assert redacted(f"a row: {key}.", urls=False) == "a row: REDACTED."


@pytest.mark.parametrize("module", ["nbconvert", "transformers", "json", "unlearn_nb"])
def test_files_of_libraries_and_addresses_of_files_name_no_machine(module):
    file = importlib.util.find_spec(module).origin
    for text in (f'File "{file}", line 3', f"see file://{file}", f"({file}:3)"):
        assert file not in placeless(text) and str(Path.home()) not in placeless(text)
    assert placeless(f"file://{Path.home()}/x") == "file://~/x"


def test_words_handed_over_as_keys_go(monkeypatch):
    monkeypatch.setattr("unlearn_nb.core.secrets._REMEMBERED", {"swordfish"})
    assert redacted("the key swordfish is unknown") == "the key REDACTED is unknown"


def test_what_code_names_a_secret(monkeypatch):
    monkeypatch.setattr("unlearn_nb.core.secrets._REMEMBERED", set())
    remember_written('password = "postgres"; pad_token="<|endoftext|>"; auth = {"api_key": "sk-written-1"}')
    assert redacted("postgres <|endoftext|> sk-written-1") == "postgres <|endoftext|> REDACTED"


@pytest.mark.parametrize("key", ["a-key/with+signs=", 'quoted "key" \\ here', "schlüssel&<9>"])
def test_every_dress_of_a_key(monkeypatch, key):
    monkeypatch.setenv("PLANTED_API_KEY", key)
    assert redacted(f"({key})") == "(REDACTED)"
    for dress in (quote(key), quote(key, safe=""), quote_plus(key), json.dumps(key), html.escape(key), repr(key)):
        assert redacted(dress).strip("\"'") == "REDACTED"
    for name in ("", "m", "me"):
        assert "REDACTED" in redacted(base64.b64encode(f"{name}{key}".encode()).decode())


def test_no_code_of_a_model_runs_and_nobody_is_asked(tmp_path, monkeypatch):
    """An `auto_map` is refused in one sentence, in the configuration as in the tokeniser's."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    model = toy_llama()
    save_model(model, tmp_path / "model", origin=origin_of(model), tokenizer=toy_tokenizer())
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    for name, changed, read in (
            ("tokenizer_config.json", {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
             read_tokenizer),
            ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}, load_model)):
        file = tmp_path / "model" / name
        before = file.read_text()
        file.write_text(json.dumps(json.loads(before) | changed))
        with pytest.raises(UnlearnError, match="brings code of its own"):
            read(tmp_path / "model")
        with pytest.raises(UnlearnError, match="brings code of its own"):
            load_model(tmp_path / "model")
        file.write_text(before)
    assert not (tmp_path / "ran").exists()


def test_every_load_says_that_no_code_is_trusted():
    """Calls of `Auto....from_pretrained` and `from_config` in the package, all of them."""
    package = Path(__file__).parent.parent.parent / "unlearn_nb"
    silent = []
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.fullmatch(r"Auto\w+\.from_\w+", ast.unparse(node.func)):
                if not any(word.arg == "trust_remote_code" for word in node.keywords):
                    silent.append(f"{file.name}:{node.lineno}")
    assert not silent
