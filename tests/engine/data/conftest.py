"""Small tokenizers of every kind, made here: words, byte pairs, SentencePiece-like, and one without offsets."""

import functools

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CORPUS = ["the cat sat on the mat . It was great , it was terrible", "Is it? Yes or No\nYes\nNo billing shipping"] * 3
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def fast(tokenizer, **special):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def begin_with_bos(tokenizer):
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", bos)]
    )


@functools.cache
def words():
    """One token a word, split at white space and signs; begins with <s>, ends with </s>."""
    vocabulary = ["<unk>", "<s>", "</s>", "It", "was", "great", "terrible", "the", "cat", "sat", "so", "very"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    begin_with_bos(tokenizer)
    return fast(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@functools.cache
def byte_pairs():
    """As GPT-2 and OPT's kin: byte level, nothing before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    special = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return fast(tokenizer, eos_token="<|end|>", additional_special_tokens=special[1:], chat_template=CHATML)


@functools.cache
def metaspace():
    """As Llama's: spaces become ▁, unknown letters bytes, and line ends join the next word."""
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    begin_with_bos(tokenizer)
    return fast(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@functools.cache
def letters():
    """A tokenizer written in Python, one token a letter: it tells no offsets."""
    from transformers import PreTrainedTokenizer

    class Letters(PreTrainedTokenizer):
        vocab_size = 0x110000

        def get_vocab(self):
            return {"\x03": 3}

        def _tokenize(self, text):
            return list(text)

        def _convert_token_to_id(self, token):
            return ord(token)

        def _convert_id_to_token(self, index):
            return chr(index)

    return Letters(eos_token="\x03")


ALL = {"words": words, "byte_pairs": byte_pairs, "metaspace": metaspace, "letters": letters}


@pytest.fixture(params=ALL)
def tokenizer(request):
    return ALL[request.param]()


@pytest.fixture
def made():
    """The tokenizers by name."""
    return lambda name: ALL[name]()
