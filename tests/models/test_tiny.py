"""The model and the tokeniser that are made here."""

from unlearn_nb.models import tiny_tokenizer


def test_tokeniser_is_reproducible(tmp_path, monkeypatch):
    before = tiny_tokenizer().get_vocab()
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    assert tiny_tokenizer().get_vocab() == before
