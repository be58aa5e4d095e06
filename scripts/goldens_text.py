#!/usr/bin/env python3
"""Makes tests/golden/text: small tokenizers of every served kind and what Hugging Face's packages
encode and decode with them, and chat templates with what transformers renders (see
goldens_text_chat.py). Called by scripts/goldens; the output is the same bytes on every run.
"""

import argparse
import collections
import io
import json
import math
import os
import pathlib
import random
import shutil
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import goldens_text_chat as chat  # noqa: E402
import sentencepiece  # noqa: E402
from goldens_text_corpus import CORPUS, LONG, TEXTS  # noqa: E402
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,  # noqa: E402
                        pre_tokenizers, processors, trainers)
from transformers import PreTrainedTokenizerFast  # noqa: E402

# The split patterns of the model families; each is part of its tokenizer.json in the wild.
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def special(content, **flags):
    return AddedToken(content, special=True, **flags)


def train_bpe(tokenizer, size, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train_bpe(tokenizer, 700, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    return tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                       "add_bos_token": True, "model_max_length": 1024}


def llama3():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    train_bpe(tokenizer, 800, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    # Words that ignore_merges finds whole although no merge makes them.
    saved = json.loads(tokenizer.to_str())
    vocab = saved["model"]["vocab"]
    for word in ["Ġunknownwords", "xyzzy", "ĠÐ¸", "Ġplugh"]:
        vocab[word] = len(vocab)
    tokenizer = Tokenizer.from_str(json.dumps(saved))
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
    train_bpe(tokenizer, 750, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
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
    train_bpe(base, size, limit_alphabet=90)
    trained = json.loads(base.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces += sorted(trained["vocab"], key=trained["vocab"].get)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in trained["merges"]]
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
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    train_bpe(tokenizer, 500, special_tokens=["<unk>"], end_of_word_suffix="</w>")
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


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        value = ((value ^ byte) * 0x100000001B3) % (1 << 64)
    return f"{value:016x}"


def encodings(tokenizer):
    def ids(text, **options):
        return tokenizer(text, **options).input_ids

    rows = []
    for text in TEXTS:
        row = {"text": text, "ids": ids(text), "plain": ids(text, add_special_tokens=False)}
        tokenizer.backend_tokenizer.encode_special_tokens = True
        row["literal"] = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.backend_tokenizer.encode_special_tokens = False
        rows.append(row)
    long = []
    for text, repeats in LONG:
        found = ids(text * repeats)
        long.append({"text": text, "repeats": repeats, "count": len(found), "fnv1a": fnv1a(found)})
    return rows, long


def decodings(tokenizer, rows):
    """Every encoded text, cut at both ends, and random ids: mostly malformed byte sequences."""
    chance = random.Random(7)
    size = len(tokenizer)
    lists = [row["ids"] for row in rows]
    lists += [row["plain"][1:] for row in rows[8:26]] + [row["plain"][:-1] for row in rows[8:26]]
    lists += [[chance.randrange(size) for _ in range(chance.randrange(1, 24))] for _ in range(40)]
    singles = [token for token in tokenizer.get_vocab()
               if len(token) == 1 or token.startswith("<0x")]
    singles = sorted(tokenizer.convert_tokens_to_ids(token) for token in singles)
    for _ in range(60 if len(singles) > 100 else 0):
        lists.append([chance.choice(singles) for _ in range(chance.randrange(1, 12))])
    lists += [[], [size + 1000], [0, size + 1000, 1], [2, 2, 2]]
    if strips_end(tokenizer):
        # The library's Strip panics on a text without characters.
        hidden = set(tokenizer.all_special_ids)
        lists = [ids for ids in lists if any(i < size and i not in hidden for i in ids)]
    return [{"ids": ids,
             "skip": tokenizer.decode(ids, skip_special_tokens=True,
                                      clean_up_tokenization_spaces=False),
             "keep": tokenizer.decode(ids, skip_special_tokens=False,
                                      clean_up_tokenization_spaces=False)} for ids in lists]


def strips_end(tokenizer):
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    return any(step.get("stop") for step in decoder.get("decoders", []))


def write(path, value):
    rows = value if isinstance(value, list) else None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if rows is not None:  # one row a line, so that a change reads as one
        text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":"))
                                  for row in rows) + "\n]"
    path.write_text(text + "\n", encoding="utf-8")


def make_tokenizer(folder, make):
    folder.mkdir(parents=True)
    tokenizer, config, *special_map = make()
    write(folder / "tokenizer.json", json.loads(tokenizer.to_str()))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    write(folder / "tokenizer_config.json", config)
    if special_map:
        write(folder / "special_tokens_map.json", special_map[0])
    loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    rows, long = encodings(loaded)
    write(folder / "encode.json", rows)
    write(folder / "encode_long.json", long)
    write(folder / "decode.json", decodings(loaded, rows))
    backend = loaded.backend_tokenizer
    specials = sorted(i for i, t in backend.get_added_tokens_decoder().items() if t.special)
    vocab = backend.get_vocab()
    write(folder / "vocabulary.json", {
        "token_count": max(vocab.values()) + 1, "special_ids": specials,
        "some": {token: vocab[token] for token in sorted(vocab)[::37]}})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    out = parser.parse_args().out
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    for name, make in KINDS.items():
        make_tokenizer(out / "tokenizers" / name, make)
    chat.make(out / "chat", write)


if __name__ == "__main__":
    main()
