#!/usr/bin/env python3
"""Makes tests/golden/text: small tokenizers of every served kind and what Hugging Face's packages
encode and decode with them, and chat templates with what transformers renders (see
goldens_text_chat.py). Called by scripts/goldens; the output is the same bytes on every run.
"""

import argparse
import json
import os
import pathlib
import random
import shutil

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import goldens_text_chat as chat  # noqa: E402
from goldens_text_corpus import LONG, TEXTS  # noqa: E402
from goldens_text_kinds import KINDS  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402


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
