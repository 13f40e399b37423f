"""Makes small models with random weights on the spot, for demos and tests without a model hub.

Run: `python -m deployments.tiny_models llama DIR`. Each loads in vLLM and answers; what it says is noise. The same call
makes the same model.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRProcessor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.whisper.tokenization_whisper import LANGUAGES

SEED = 20
VOCABULARY = 2048
CORPUS_FILES = 60
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
IMAGE_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Says nothing of images: the model's own processor puts them before the text."""
LORA_RANK = 8
CLIP_CONTEXT = 77


def build_llama(folder: Path) -> None:
    """A Llama for text generation and chat (2 layers of 128, context 2,048). head_dim is 64: vLLM's CPU kernels refuse 16."""
    tokenizer = _chat_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_embedder(folder: Path) -> None:
    """A BERT for embeddings of 64 numbers, mean-pooled and normalised (context 512)."""
    tokenizer = _bert_tokenizer()
    torch.manual_seed(SEED)
    BertModel(BertConfig(**_bert_sizes(len(tokenizer)))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    listing = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    _write(folder / "modules.json", listing)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True})


def build_reranker(folder: Path) -> None:
    """A BERT cross-encoder that scores a pair of texts (context 512)."""
    tokenizer = _bert_tokenizer()
    torch.manual_seed(SEED)
    BertForSequenceClassification(BertConfig(**_bert_sizes(len(tokenizer)), num_labels=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_classifier(folder: Path) -> None:
    """A BERT that sorts texts into three classes (context 512)."""
    tokenizer = _bert_tokenizer()
    torch.manual_seed(SEED)
    names = {"id2label": {0: "negative", 1: "neutral", 2: "positive"}, "label2id": {"negative": 0, "neutral": 1, "positive": 2}}
    BertForSequenceClassification(BertConfig(**_bert_sizes(len(tokenizer)), num_labels=3, **names)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_base(folder: Path) -> None:
    """The Llama of `build_llama` as a base model: without a chat template."""
    build_llama(folder)
    (folder / "chat_template.jinja").unlink()


def build_vision(folder: Path) -> None:
    """A BLIP-2 that chats about pictures of 56 by 56 pixels, one in a request (context 1,024)."""
    tokenizer = _chat_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = IMAGE_CHAT_TEMPLATE
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    text = {"hidden_size": 128, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 128}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 1024}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**sizes, image_size=56, patch_size=14).to_dict(),
        qformer_config=Blip2QFormerConfig(**sizes, vocab_size=100, encoder_hidden_size=64, cross_attention_frequency=2).to_dict(),
        text_config=OPTConfig(**text).to_dict(),
        num_query_tokens=8,
        image_text_hidden_size=64,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(SEED)
    Blip2ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    pictures = BlipImageProcessorPil(size={"height": 56, "width": 56})
    Blip2Processor(image_processor=pictures, tokenizer=tokenizer, num_query_tokens=8).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_speech(folder: Path) -> None:
    """A Whisper that hears half a minute of sound and writes up to 64 tokens about it."""
    tokenizer = _speech_tokenizer()
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=256,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=256,
        max_target_positions=64,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        **{f"{name}_token_id": tokenizer.eos_token_id for name in ("bos", "eos", "pad")},
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(SEED)
    model = WhisperForConditionalGeneration(config)
    letters = tokenizer.eos_token_id
    model.model.decoder.embed_tokens.weight.data[:letters] *= 4  # so that it writes letters, hardly ever marks
    model.to(torch.bfloat16).save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=config.num_mel_bins), tokenizer).save_pretrained(folder)


def build_realtime(folder: Path) -> None:
    """A Qwen3-ASR that writes while it hears, up to 64 tokens about each five seconds (context 2,048)."""
    tokenizer = _chat_tokenizer({"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    ears = {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 256, "downsample_hidden_size": 16}
    text = {**sizes, "head_dim": 64, "vocab_size": len(tokenizer), "max_position_embeddings": 2048, "tie_word_embeddings": True, **ends}
    config = Qwen3ASRConfig(
        audio_config={**ears, "output_dim": 128},
        text_config=text,
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
        **ends,
    )
    torch.manual_seed(SEED)
    Qwen3ASRForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), tokenizer).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", {**written, "architectures": ["Qwen3ASRRealtimeGeneration"]})  # vLLM's, for the same weights


def build_lora(folder: Path) -> None:
    """A LoRA adapter of the Llama of `build_llama`, strong enough to change what it says."""
    torch.manual_seed(SEED + 1)
    weights = {}
    for layer in range(2):
        for projection in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            weights[f"{name}.lora_A.weight"] = torch.randn(LORA_RANK, 128)
            weights[f"{name}.lora_B.weight"] = torch.randn(128, LORA_RANK)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": LORA_RANK, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none"}
    _write(folder / "adapter_config.json", {**config, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "tiny"})


def build_diffusion(folder: Path) -> None:
    """A Stable Diffusion of two blocks for images of 64 x 64, or other multiples of 8; it paints noise."""
    import diffusers  # noqa: PLC0415 - an engine's library: the other builders do without

    torch.manual_seed(SEED)
    tokenizer = _clip_tokenizer()
    sizes = {"layers_per_block": 1, "norm_num_groups": 8}
    diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(16, 16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=64,
            **sizes,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=CLIP_CONTEXT,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            sample_size=8,
            **sizes,
        ),
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    "diffusion": build_diffusion,
    "llama": build_llama,
    "embedder": build_embedder,
    "reranker": build_reranker,
    "classifier": build_classifier,
    "base": build_base,
    "vision": build_vision,
    "speech": build_speech,
    "realtime": build_realtime,
    "lora": build_lora,
}


def _chat_tokenizer(more: Mapping[str, str] | None = None) -> Any:
    """With `more` special tokens, by the names that a processor asks for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=False))
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2048, **names, extra_special_tokens=dict(more or {}))
    made.chat_template = CHAT_TEMPLATE
    return made


def _bert_tokenizer() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(_corpus(), trainers.WordPieceTrainer(vocab_size=2000, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)


def _clip_tokenizer() -> Any:
    """Letters only: what words mean is of no use to random weights."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=CLIP_CONTEXT)


def _speech_tokenizer() -> Any:
    """Letters only, and what a request is made of: languages, tasks, marks of time."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    times = [f"{step / 50:.2f}" for step in range(1501)]
    special = [f"<|{word}|>" for word in ("endoftext", "startoftranscript", *LANGUAGES, *tasks)]
    marks = [f"<|{time}|>" for time in times]
    tokenizer = WhisperTokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[], model_max_length=64)
    tokenizer.add_tokens([AddedToken(word, special=True) for word in special] + [AddedToken(mark) for mark in marks])
    return tokenizer


def _bert_sizes(vocabulary: int) -> dict[str, int]:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return {**sizes, "vocab_size": vocabulary, "max_position_embeddings": 512}


def _corpus() -> Iterator[str]:
    """Text that every Python has: the standard library's own sources, in a stable order."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:CORPUS_FILES]
    return (file.read_text(encoding="utf-8", errors="ignore") for file in files)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def main() -> None:
    """`python -m deployments.tiny_models KIND DIR`."""
    if len(sys.argv) != 3 or sys.argv[1] not in BUILDERS:
        raise SystemExit(f"usage: python -m deployments.tiny_models {'|'.join(BUILDERS)} DIR")
    BUILDERS[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    main()
