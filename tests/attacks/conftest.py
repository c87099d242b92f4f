"""What the attacks' tests share: a setting, and the smoke bench's target and oracle."""

import pytest

from unlearn_nb.attacks import AttackSetting
from unlearn_nb.models import load_model


@pytest.fixture(scope="module")
def setting(smoke_bench):
    return AttackSetting(smoke_bench)


@pytest.fixture(scope="module")
def models(smoke_target, smoke_oracle):
    (target, tokenizer), (oracle, _) = load_model(smoke_target), load_model(smoke_oracle)
    return target, oracle, tokenizer
