"""What a model is for, told from its repository when the user said nothing. Pure; the words are the Hub's."""

from __future__ import annotations

from cluster import vllm_models
from cluster.model_facts import Facts

GENERATION = "text-generation"
EMBEDDING = "feature-extraction"
RANKING = "text-ranking"
CLASSIFICATION = "text-classification"
TOKENS = "token-classification"
IMAGE_TEXT = "image-text-to-text"
IMAGE = "text-to-image"
SPEECH = "automatic-speech-recognition"

SERVED = frozenset(
    {GENERATION, EMBEDDING, RANKING, CLASSIFICATION, TOKENS, IMAGE_TEXT, IMAGE, SPEECH}
    | {"sentence-similarity", "text2text-generation", "conversational", "image-to-image", "text-to-video", "any-to-any"}
)
"""Words of the Hub that mean something here; others (`fill-mask`, `other`) say nothing of how a model is served."""

HEARING = ("whisper", "asr", "voxtral", "granitespeech")
"""Parts of names of architectures that write what they hear."""


def infer(facts: Facts) -> str | None:
    """The task, or None when nothing tells.

    In this order: a sentence-transformers module or a classification head outweigh the Hub's tag, which people set by hand; the tag
    outweighs the architecture's name, which embedding models share with the generators that they were made from.
    """
    architecture = _architecture(facts)
    if facts.sentence_transformer:
        return EMBEDDING
    if architecture.endswith("ForSequenceClassification") or "classify" in vllm_models.kinds(architecture):
        return RANKING if _one_label(facts) else CLASSIFICATION
    if architecture.endswith("ForTokenClassification"):
        return TOKENS
    if facts.task in SERVED:
        return facts.task
    if facts.pipeline:
        return IMAGE
    return _by_architecture(architecture)


def _by_architecture(architecture: str) -> str | None:
    kinds = vllm_models.kinds(architecture)
    if any(word in architecture.lower() for word in HEARING):
        return SPEECH
    if "multimodal" in kinds and "generate" in kinds:
        return IMAGE_TEXT
    if "generate" in kinds or architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return GENERATION
    if kinds & {"embed", "reward"} or architecture.endswith("Model"):
        return EMBEDDING
    return None


def _one_label(facts: Facts) -> bool:
    """A head with one output scores pairs: a reranker."""
    labels = facts.config.get("id2label")
    return facts.config.get("num_labels") == 1 or (isinstance(labels, dict) and len(labels) == 1) or facts.task == RANKING


def _architecture(facts: Facts) -> str:
    names = facts.config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""
