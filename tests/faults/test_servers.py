"""Servers that redirect, drip, flood, unfold, repeat keys or want to be told more than they are asked."""

import gzip
import json

import pytest
from chat_server import says, without_end

from unlearn_nb.augmentation import CachedWriter, EndpointWriter
from unlearn_nb.core import UnlearnError

pytest.importorskip("openai")
KEY = "sk-planted/key+of=tests"


def refusal(server, **options):
    """The sentence with which a writer gives up, which names the server and stands in one line."""
    with pytest.raises(UnlearnError) as error:
        EndpointWriter(server.url, "m", **{"retries": 0} | options).write(["a private prompt"])
    said = str(error.value)
    assert server.url in said and "\n" not in said
    return said


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_prompt_is_sent_on_to_another_server(serve, status):
    other = serve()
    server = serve(lambda *_: says(status, "moved", Location=f"http://me:pass-word@{other.url[7:]}?token=abc"))
    said = refusal(server, api_key=KEY, retries=3)
    assert f"sends requests on to 127.0.0.1:{other.server_port} ({status})" in said and "pass-word" not in said
    assert not other.bodies and len(server.bodies) == 1


def test_a_server_that_drips_its_answer(serve):
    server = serve(lambda *_: without_end(b" ", 0.2, most=60))
    assert "did not answer within 1 s" in refusal(server, timeout=1)


def test_a_server_that_drips_its_headers(serve):
    server = serve(lambda *_: without_end(b"x", 0.2, head=b"HTTP/1.1 200 OK\r\nx: ", most=60))
    assert "did not answer within 1 s" in refusal(server, timeout=1)


def test_a_server_that_floods(serve):
    server = serve(lambda *_: without_end(b" " * 2**16))
    assert "sent more than 8 MiB as one answer" in refusal(server, retries=3)
    assert len(server.bodies) == 1  # once is enough


def test_an_answer_that_unfolds(serve):
    """A small compressed answer may be gigabytes: none was asked for, so none is unfolded."""
    packed = gzip.compress(json.dumps({"choices": [{"message": {"content": "x"}}]}).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    server = serve(lambda *_: without_end(packed, head=head, most=len(packed)))
    assert "sent no readable chat completion" in refusal(server)
    assert server.bodies[0]["headers"]["accept-encoding"] == "identity"


@pytest.mark.parametrize("pause", ["1e9", "nan", "inf"])
def test_a_server_that_wants_endless_pauses(serve, pause):
    server = serve(lambda *_: says(429, "later", **{"retry-after": pause}))
    assert "refuses to answer" in refusal(server, retries=3)
    assert len(server.bodies) == 1


def test_all_tries_together_have_an_end(serve, monkeypatch):
    monkeypatch.setattr("unlearn_nb.augmentation.endpoint.LONGEST_TRIES", 0.1)
    server = serve(lambda *_: says(503, "busy", **{"retry-after": 1}))
    assert "refuses to answer" in refusal(server, retries=2)
    assert len(server.bodies) == 1


def test_a_server_that_repeats_the_key(serve, tmp_path):
    """Neither an error nor a text hands it on, whole or cut; nor does the file of answers keep it."""
    server = serve(lambda *_: says(401, "y" * 150 + f" no such key: {KEY}" + "z" * 100))
    said = refusal(server, api_key=KEY)
    assert "REDACTED" in said and KEY[:8] not in said
    server.behave = lambda *_: ("say", f"your key is {KEY}, is it not")
    writer = CachedWriter(EndpointWriter(server.url, "m", api_key=KEY), tmp_path / "answers.db")
    assert writer.write(["x"]) == ["your key is REDACTED, is it not"]
    assert KEY.encode() not in (tmp_path / "answers.db").read_bytes()


def test_only_what_is_configured_is_sent(serve, monkeypatch, tmp_path):
    """No organisation, custom header, netrc or key for other servers, and nothing about this machine."""
    for name, value in {"OPENAI_API_KEY": "sk-for-another", "OPENAI_ADMIN_KEY": "sk-admin", "OPENAI_ORG_ID": "org-1",
                        "OPENAI_PROJECT_ID": "project-1", "OPENAI_CUSTOM_HEADERS": "X-Own: private",
                        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "HTTP_PROXY": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("UNLEARN_NB_API_KEY", raising=False)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password from-netrc\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = serve()
    EndpointWriter(server.url, "m").write(["x"])
    assert {name.lower() for name in server.bodies[0]["headers"]} == {
        "host", "accept", "content-type", "content-length", "user-agent", "accept-encoding"}


def test_the_proxy_of_the_environment(serve, monkeypatch):
    """A server elsewhere is asked through it; it sees no other header either."""
    proxy = serve()
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("no_proxy", "inside.test")
    assert EndpointWriter("http://elsewhere.test/v1", "m").write(["x"]) == ["re: x"]
    assert proxy.bodies[0]["path"] == "http://elsewhere.test/v1/chat/completions"
    with pytest.raises(UnlearnError, match="can't be reached"):
        EndpointWriter("http://inside.test:9/v1", "m", retries=0).write(["x"])


def test_credentials_of_a_url_are_sent_and_make_no_other_writer(serve):
    server = serve()
    for login in ("", "me:first-key@", "me:second-key@"):
        writer = EndpointWriter(server.url.replace("//", f"//{login}"), "m")
        assert writer == EndpointWriter(server.url, "m") and server.url in writer.identity
        writer.write(["x"])
    assert [body["key"] is None for body in server.bodies] == [True, False, False]
    assert server.bodies[1]["key"] != server.bodies[2]["key"]
