"""Cards show texts from data and models as texts."""

from unlearn_nb.core import html_card, html_rows


def test_no_text_becomes_markup_and_what_is_unseen_is_spelt_out():
    """Titles, facts, heads and cells alike."""
    bad = "<script>alert(1)</script>\u202e$x$\x1b[31m"
    page = html_card(bad, {bad: bad}, html_rows([bad], [[bad, bad]]))
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    assert page.count("&lt;script&gt;") == 6 and "$x" not in page and "\\u202e" in page
