"""Embeddings, similarity and classification in Hugging Face's form."""

import pytest

from deployments.dialects import generation, pooling

LABELS = {0: "bad", 1: "good"}
CLASSES = {"data": [{"index": 1, "probs": [0.9, 0.1]}, {"index": 0, "probs": [0.2, 0.8]}]}


def classify(**parameters):
    return pooling.translate({"inputs": ["a", "b"], "parameters": parameters}, "text-classification", LABELS)


def test_embedding_options_become_the_engines():
    asked = pooling.translate({"inputs": "a", "truncate": True, "normalize": False, "dimensions": 8}, "feature-extraction", {})
    assert (asked.route, asked.body) == (
        "/v1/embeddings",
        {"input": "a", "encoding_format": "float", "dimensions": 8, "use_activation": False, "truncate_prompt_tokens": -1},
    )


def test_similarity_is_the_cosine_with_each_sentence():
    asked = pooling.translate({"inputs": {"source_sentence": "a", "sentences": ["b", "c", "d"]}}, "sentence-similarity", {})
    assert asked.body["input"] == ["a", "b", "c", "d"]
    vectors = [[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    answer = {"data": [{"index": index, "embedding": vector} for index, vector in reversed(list(enumerate(vectors)))]}
    assert asked.read(answer) == pytest.approx([1.0, 0.0, 0.0])


def test_classes_have_their_names_the_best_first():
    assert classify().read(CLASSES) == [
        [{"label": "good", "score": 0.8}, {"label": "bad", "score": 0.2}],
        [{"label": "bad", "score": 0.9}, {"label": "good", "score": 0.1}],
    ]
    assert classify(top_k=1).read(CLASSES) == [[{"label": "good", "score": 0.8}], [{"label": "bad", "score": 0.9}]]


def test_a_class_without_a_name_has_its_number():
    asked = pooling.translate({"inputs": "a"}, "text-classification", {})
    assert asked.read({"data": [{"index": 0, "probs": [1.0]}]}) == [[{"label": "LABEL_0", "score": 1.0}]]


@pytest.mark.parametrize(("applied", "score"), [("none", 2.0), ("sigmoid", 0.880797)])
def test_scores_without_softmax_are_made_from_the_raw_ones(applied, score):
    asked = classify(function_to_apply=applied)
    assert asked.body["use_activation"] is False
    assert asked.read({"data": [{"index": 0, "probs": [2.0]}]})[0][0]["score"] == pytest.approx(score)


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("feature-extraction", {"inputs": ""}),
        ("feature-extraction", {"inputs": [1]}),
        ("sentence-similarity", {"inputs": {"source_sentence": "a"}}),
        ("sentence-similarity", {"inputs": {"source_sentence": "a", "sentences": [1]}}),
        ("text-classification", {"inputs": "a", "parameters": [1]}),
        ("text-classification", {"inputs": "a", "parameters": {"top_k": 0}}),
        ("text-classification", {"inputs": "a", "parameters": {"top_k": True}}),
        ("text-classification", {"inputs": "a", "parameters": {"function_to_apply": "tanh"}}),
    ],
)
def test_what_is_no_request_is_invalid(task, body):
    with pytest.raises(generation.Invalid):
        pooling.translate(body, task, {})
