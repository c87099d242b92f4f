"""Folders of augmented rows."""

import pytest
from augmenting import Marking, row

from unlearn_nb.augmentation import Augmented, augment
from unlearn_nb.core import UnlearnError


def test_save_and_load(tmp_path):
    result = augment([row("a", "golden lantern"), row("b", "silver spoon")], Marking(1, fails=0.4), rounds=1)
    assert len(result.rows) and len(result.dropped)
    folder = result.save(tmp_path / "augmented")
    again = Augmented.load(folder)
    assert again.rows.to_list() == result.rows.to_list() and again.rows.features == result.rows.features
    assert again.dropped.equals(result.dropped) and again.summary() == result.summary()
    (folder / "augmented.json").unlink()
    with pytest.raises(UnlearnError, match="no augmented.json here"):
        Augmented.load(folder)


def test_an_empty_result_can_be_saved(tmp_path):
    result = augment([row("a", "golden lantern")], Marking(fails=1.0), rounds=1)
    assert len(Augmented.load(result.save(tmp_path)).rows) == 0 and len(result.dropped) == 4
