"""The model and the tokeniser that are made here."""

import os
import subprocess
import sys

from unlearn_nb.models import tiny_tokenizer


def test_tokeniser_is_reproducible(tmp_path, monkeypatch):
    before = tiny_tokenizer().get_vocab()
    monkeypatch.setenv("UNLEARN_NB_CACHE", str(tmp_path))
    assert tiny_tokenizer().get_vocab() == before


def test_what_else_is_loaded_has_no_say_in_where_the_tokeniser_lies(tmp_path):
    """tokenizers has its submodules twice, in Python and in its extension; the order says which one a name finds."""
    code = "from unlearn_nb.models import tiny_tokenizer\nprint(tiny_tokenizer().name_or_path)"
    found = [subprocess.run([sys.executable, "-c", first + code], stdout=subprocess.PIPE, text=True, check=True,
                            env=os.environ | {"UNLEARN_NB_CACHE": str(tmp_path)}).stdout
             for first in ("", "import tokenizers.trainers, tokenizers.models, tokenizers.decoders\n")]
    assert found[0] == found[1]
