"""The tokenizers of the goldens: a small one of every kind that is served."""

import collections
import io
import math
import tempfile

import sentencepiece
from goldens_text_corpus import CORPUS
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors)

# The split patterns of the model families; each is part of its tokenizer.json in the wild.
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = pre_tokenizers.ByteLevel.alphabet()
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def special(content, **flags):
    return AddedToken(content, special=True, **flags)


def train_bpe(tokenizer, size, alphabet=None, first=(), suffix="", **options):
    """A BPE model of `size` tokens from CORPUS. By hand: the library's trainer breaks ties by the
    order of a hash map, so no two runs of it agree."""
    words = collections.Counter()
    for line in CORPUS:
        text = tokenizer.normalizer.normalize_str(line) if tokenizer.normalizer else line
        words.update(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    split = {word: [*word[:-1], word[-1] + suffix] for word in words}
    letters = {letter for word in split.values() for letter in word}
    tokens = [*first, *sorted(letters if alphabet is None else alphabet)]
    known, merges = set(tokens), []
    while len(tokens) < size:
        pairs = collections.Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:], strict=False):
                if pair[0] in known and pair[1] in known:
                    pairs[pair] += words[word]
        if not pairs:  # every word is one token
            break
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(pair)
        if "".join(pair) not in known:
            tokens.append("".join(pair))
            known.add(tokens[-1])
        split = {word: merged(parts, pair) for word, parts in split.items()}
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, **options)
    return vocab, merges


def merged(parts, pair):
    out = []
    for part in parts:
        if out and (out[-1], part) == pair:
            # The joined part itself never joins again in this pass.
            out[-1:] = [None, "".join(pair)]
        else:
            out.append(part)
    return [part for part in out if part is not None]


def gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train_bpe(tokenizer, 700, BYTES, ["<|endoftext|>"])
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                       "add_bos_token": True, "model_max_length": 1024}


def llama3():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    vocab, merges = train_bpe(tokenizer, 800, BYTES)
    # Words that ignore_merges finds whole although no merge makes them.
    for word in ["Ġunknownwords", "xyzzy", "ĠÐ¸", "Ġplugh"]:
        vocab[word] = len(vocab)
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, ignore_merges=True)
    tokenizer.add_special_tokens([special(t) for t in [
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eot_id|>", "<|finetune_right_pad_id|>"]])
    start = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
            special_tokens=[start])])
    return tokenizer, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
                       "clean_up_tokenization_spaces": True}


def qwen():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train_bpe(tokenizer, 750, BYTES)
    tokenizer.add_special_tokens([special(t) for t in ["<|endoftext|>", "<|im_start|>",
                                                       "<|im_end|>"]])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ["<think>", "</think>"]])
    return tokenizer, {"bos_token": None, "eos_token": "<|im_end|>", "add_bos_token": False,
                       "pad_token": "<|endoftext|>", "errors": "replace",
                       "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                       "image_token": "<|image_pad|>"}


def byte_fallback_model(size):
    """A trained BPE over U+2581 words, in the id order of SentencePiece: specials, bytes, rest."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.Metaspace()
    letters = collections.Counter("".join(CORPUS).replace(" ", "▁"))
    common = sorted(letters, key=lambda letter: (-letters[letter], letter))[:90]
    trained, merges = train_bpe(base, size, common)
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + list(trained)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True,
                      byte_fallback=True)


def with_start(tokenizer):
    tokenizer.add_special_tokens([special(t, normalized=False) for t in ["<unk>", "<s>", "</s>"]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])


def llama2():
    tokenizer = Tokenizer(byte_fallback_model(500))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                                 normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    with_start(tokenizer)
    # The older layout: tokens in special_tokens_map.json, add_eos_token to be ignored.
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special_map = {name: {"content": text, **token} for name, text in
                   [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]}
    return tokenizer, {"add_bos_token": True, "add_eos_token": True}, special_map


def mistral():
    tokenizer = Tokenizer(byte_fallback_model(450))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    with_start(tokenizer)
    tokenizer.add_tokens([special(t) for t in ["[INST]", "[/INST]"]])
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gemma():
    """No normaliser prefix, no Strip, and the spaces are replaced before splitting."""
    tokenizer = Tokenizer(byte_fallback_model(400))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse()])
    with_start(tokenizer)
    tokenizer.enable_truncation(max_length=5)
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>", length=16)
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def substring_scores():
    """A unigram vocabulary by hand: frequent substrings, scored by their frequency."""
    counts = collections.Counter()
    for line in CORPUS:
        for word in line.split():
            word = "▁" + word
            for start in range(len(word)):
                for end in range(start + 1, min(len(word), start + 6) + 1):
                    counts[word[start:end]] += 1
    kept = [(piece, n) for piece, n in counts.items() if len(piece) == 1 or n > 2]
    kept.sort(key=lambda item: (-item[1], item[0]))
    total = sum(n for _, n in kept)
    return [(piece, round(math.log(n / total) + 0.9 * (len(piece) - 1), 5)) for piece, n in kept]


def unigram(bytes_too):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"<0x{b:02X}>", -15.0) for b in range(256)] if bytes_too else []
    model = models.Unigram(pieces + substring_scores(), unk_id=2, byte_fallback=bytes_too)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([special(t) for t in ["<pad>", "</s>", "<unk>"]])
    end = ("</s>", 1)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[end])
    return tokenizer


def charsmap():
    """A SentencePiece character map of a few rules, by SentencePiece itself."""
    rules = {"ﬁ": "fi", "ﬂ": "fl", "\u00a0": " ", "\u3000": " ", "㍿": "株式会社", "½": "1/2",
             "²": "2", "Ⅷ": "VIII", "\u212b": "\u00c5", "e\u0301": "é",
             "\u200b": " ", "\t": " ", "\n": " "}
    rules |= {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    hexes = lambda text: " ".join(f"{ord(c):X}" for c in text)  # noqa: E731
    out = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
        file.write("".join(f"{hexes(a)}\t{hexes(b)}\n" for a, b in rules.items()))
        file.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=out, vocab_size=300,
            hard_vocab_limit=False, normalization_rule_tsv=file.name, num_threads=1,
            minloglevel=2)
    # ModelProto.normalizer_spec is field 3, its precompiled_charsmap field 2.
    return proto_field(proto_field(out.getvalue(), 3), 2)


def proto_field(data, wanted):
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        kind = tag & 7
        size = varint() if kind in (0, 2) else {1: 8, 5: 4}[kind]
        if kind == 0:
            continue
        value = data[at:at + size]
        at += size
        if tag >> 3 == wanted:
            return value
    raise ValueError(f"no field {wanted}")


def t5():
    tokenizer = unigram(False)
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap()), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                       "extra_special_tokens": ["<extra_id_0>", "<extra_id_1>"]}


def unigram_bytes():
    tokenizer = unigram(True)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def added():
    """Added tokens with every flag, some of them only in tokenizer_config.json."""
    tokenizer, _ = gpt2()
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_special_tokens([special("[MASK]", lstrip=True), special("<s>", normalized=True)])
    tokenizer.add_tokens([
        AddedToken("<LEFT>", lstrip=True, normalized=False), AddedToken("<RIGHT>", rstrip=True),
        AddedToken("single", single_word=True), AddedToken("Éclair", normalized=True),
        AddedToken("école", normalized=False), AddedToken("lstrip", lstrip=True, rstrip=True)])
    ids = {token: tokenizer.token_to_id(token) for token in ["<LEFT>", "single"]}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {
        # Other flags than in tokenizer.json: these win.
        str(ids["<LEFT>"]): {"content": "<LEFT>", **flags, "rstrip": True, "special": True},
        str(ids["single"]): {"content": "single", **flags, "single_word": True, "special": False},
        "5000": {"content": "<keep>", **flags, "lstrip": True, "special": False}}
    return tokenizer, {
        "added_tokens_decoder": decoder, "eos_token": "</s>", "unk_token": "<unk>",
        "mask_token": {"__type": "AddedToken", "content": "[MASK]", **flags},
        "extra_special_tokens": {"image_token": "<image>", "audio_token": "<audio>"}}


def plain():
    """No decoder, no post-processor, WordLevel; a BPE with a word suffix is in `suffix`."""
    words = sorted({word for line in CORPUS[:3] for word in line.split()})
    vocab = {word: i for i, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer, {"unk_token": "<unk>"}


def suffix():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    train_bpe(tokenizer, 500, first=["<unk>"], suffix="</w>", unk_token="<unk>",
              end_of_word_suffix="</w>")
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer, {"unk_token": "<unk>", "bos_token": "<s>"}


def across():
    """Replace and Strip after Fuse, where pieces join before the decoder looks at them."""
    tokenizer, config = mistral()
    tokenizer.decoder = decoders.Sequence([
        decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "),
        decoders.Replace("he", "HE"), decoders.Replace("aa", "b"), decoders.Strip(" ", 0, 1)])
    return tokenizer, config


KINDS = {"gpt2": gpt2, "llama3": llama3, "qwen": qwen, "llama2": llama2, "mistral": mistral,
         "gemma": gemma, "t5": t5, "unigram_bytes": unigram_bytes, "added": added, "plain": plain,
         "suffix": suffix, "across": across}
