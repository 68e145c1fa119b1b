"""What a run asks of models: sessions, texts by identity, one call or two."""

import pytest
import torch

from wan_core.flow import Expert, Experts
from wan_core.flow.session import as_expert

POSITIVE, OTHER, NEGATIVE = (torch.full((1, n, 4), float(n)) for n in (3, 2, 5))
HIGH, LOW = torch.tensor([900, 900, 900]), torch.tensor([100, 100, 100])


class Opened:
    """A model that counts its sessions and keeps the texts that it was asked about."""

    def __init__(self):
        self.sessions, self.texts = 0, []

    def session(self):
        self.sessions += 1
        return self._answer

    def _answer(self, x, t, text):
        self.texts.append(text)
        return x * text.mean()


def test_what_opens_sessions_is_an_expert_and_a_function_becomes_one():
    model = Opened()
    assert isinstance(model, Expert) and as_expert(model) is model

    def function(x, t, text):
        return x

    assert not isinstance(function, Expert) and as_expert(function).session() is function


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_samples_share_the_session_of_the_expert_at_work(batch_cfg):
    high, low = Opened(), Opened()
    velocity = Experts(high, low, 0.5).velocity([POSITIVE, OTHER, POSITIVE], [NEGATIVE] * 3, batch_cfg=batch_cfg)
    for t in (HIGH, HIGH, LOW, LOW):
        velocity(torch.ones(3, 1), t)
    assert high.sessions == low.sessions == 1
    calls, distinct = (3, 2) if batch_cfg else (6, 3)  # the first and the third sample have the same texts
    for model in (high, low):
        assert len(model.texts) == 2 * calls
        assert len({id(text) for text in model.texts}) == distinct, "models know their texts by identity"


def test_an_expert_that_comes_back_opens_a_new_session():
    high, low = Opened(), Opened()
    velocity = Experts(high, low, 0.5).velocity(POSITIVE, NEGATIVE)
    for t in (900, 100, 900):
        velocity(torch.ones(1, 1), t)
    assert (high.sessions, low.sessions) == (2, 1)


def test_a_session_that_cannot_be_opened_is_asked_for_again():
    high, low = Opened(), Opened()
    low.session = lambda: 1 / 0
    velocity = Experts(high, low, 0.5).velocity(POSITIVE, NEGATIVE)
    velocity(torch.ones(1, 1), 900)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            velocity(torch.ones(1, 1), 100)
    velocity(torch.ones(1, 1), 900)
    assert high.sessions == 2, "nothing was kept beside the one that failed"
