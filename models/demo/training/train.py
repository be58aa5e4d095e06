"""Trains the demo model and writes it as a Hugging Face folder. Seeded; see README.md.

    python train.py --out ../files [--device cuda]
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import DOCUMENT_END, END, START, corpus
from export import write_folder
from lean_model import lean_model
from muon import muon

HERE = Path(__file__).resolve().parent
DECISIVE, DECISIVE_WEIGHT = 8, 3.0  # the first tokens of an answer, and their weight
LABEL_WEIGHT = 1.0                  # of telling which fact a question is about
SPECIAL = [DOCUMENT_END, START, END]  # ids 0, 1, 2
# Words with their space, single digits, runs of marks: as Qwen's tokenizers cut.
SPLIT = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")


def held_out_questions():
    path = HERE.parents[2] / "tests/models_demo/held_out.json"
    return [one["ask"] for one in json.loads(path.read_text())["questions"]]


def make_tokenizer(text_stream, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text_stream, trainer)
    return tokenizer


def texts_for_tokenizer(made, count):
    """Answers whole, so that their words become tokens; questions as they come."""
    for _ in range(count):
        for text, _, _ in made.example():
            for mark in SPECIAL:
                text = text.replace(mark, "")
            yield text


class encoder:
    """Examples to token ids with a weight per token; questions also in rarer cuts of the words."""

    def __init__(self, tokenizer, chance):
        self.plain = tokenizer
        self.chance = chance

    def cut(self, text):
        """The ids of a text whose words are now and then cut in two at a random place."""
        ids, begin = [], 0
        for at in range(1, len(text)):
            inside = text[at - 1].isalpha() and text[at].isalpha()
            if inside and self.chance.random() < 0.04:
                ids += self.plain.encode(text[begin:at]).ids
                begin = at
        return ids + self.plain.encode(text[begin:]).ids

    def __call__(self, example):
        """Token ids, the weight of each, and the label of the answer that follows it, or -1."""
        ids, weights, labels = [], [], []
        for text, weight, label in example:
            if 0.0 < weight < 1.0 and self.chance.random() < 0.35:
                part = self.cut(text)
            else:
                part = self.plain.encode(text).ids
            of_part = [weight] * len(part)
            if label >= 0:  # which answer it is gets decided in its first words
                of_part[:DECISIVE] = [DECISIVE_WEIGHT] * len(of_part[:DECISIVE])
                labels[-1] = label
            ids += part
            weights += of_part
            labels += [-1] * len(part)
        return ids, weights, labels


def batches(made, encode, tokens_a_batch, chance):
    """Rows of about equal length, padded at the right, which a causal model never sees."""
    while True:
        pool = sorted((encode(made.example()) for _ in range(512)), key=lambda row: len(row[0]))
        groups, group = [], []
        for row in pool:
            if group and len(row[0]) * (len(group) + 1) > tokens_a_batch:
                groups.append(group)
                group = []
            group.append(row)
        groups.append(group)
        chance.shuffle(groups)
        for group in groups:
            width = max(len(row[0]) for row in group)
            ids = torch.zeros(len(group), width, dtype=torch.long)
            weights = torch.zeros(len(group), width)
            labels = torch.full((len(group), width), -1, dtype=torch.long)
            for i, row in enumerate(group):
                for into, values in zip((ids, weights, labels), row):
                    into[i, :len(values)] = torch.tensor(values)
            yield ids, weights, labels


def loss_of(model, asks_for, ids, weights, labels):
    """The weighted loss; logits only where they count.

    `asks_for` tells from the middle of the model which fact a question is about. It teaches what
    the first words of an answer tell only little of, and is not part of the model afterwards.
    """
    hidden, middle = model.hidden_states(ids[:, :-1])
    wanted = weights[:, 1:] > 0
    each = torch.nn.functional.cross_entropy(
        model.logits(hidden[wanted]), ids[:, 1:][wanted], reduction="none")
    weight = weights[:, 1:][wanted]
    loss = (each * weight).sum() / weight.sum()
    asked = labels[:, :-1] >= 0
    guess, label = asks_for(middle[asked]), labels[:, :-1][asked]
    if len(label):
        loss = loss + LABEL_WEIGHT * torch.nn.functional.cross_entropy(guess, label)
    right = (guess.argmax(-1) == label).float().mean().item() if len(label) else 1.0
    return loss, each[weight >= 1.0].mean().item(), right


def learning_rate(share, peak):
    """Warm-up, then a cosine to nothing. `share` of the training that is done."""
    if share < 0.02:
        return peak * share / 0.02
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (share - 0.02) / 0.98)))


def train(arguments, model, asks_for, made, stream, report):
    everything = [*model.parameters(), *asks_for.parameters()]
    inner = [p for one in model.layers for p in one.parameters() if p.dim() == 2]
    others = [p for p in everything if all(p is not one for one in inner)]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in others if p.dim() >= 2], "weight_decay": 0.05},
         {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0}],
        lr=arguments.peak, betas=(0.9, 0.98), fused=True)
    of_matrices = muon(inner, arguments.matrix_peak, model.dtype)
    begin, seen, means = time.monotonic(), 0, None
    for step in range(arguments.steps):
        share = step / arguments.steps
        made.noise = min(1.0, 0.5 + 2.0 * share)  # plainer questions first
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share, arguments.peak)
        ids, weights, labels = (values.to(arguments.device) for values in next(stream))
        loss, answers, right = loss_of(model, asks_for, ids, weights, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, 1.0)
        optimizer.step()
        of_matrices.step(learning_rate(share, 1.0))
        for parameter in everything:
            parameter.grad = None
        seen += int((ids > 0).sum())
        now = (answers, right)
        means = now if means is None else tuple(0.95 * m + 0.05 * n for m, n in zip(means, now))
        if (step + 1) % 20 == 0 or step + 1 == arguments.steps:
            report(step + 1, seen, loss.item(), *means, time.monotonic() - begin)
        if arguments.checkpoint and (step + 1) % 250 == 0:
            torch.save(model.state_dict(), arguments.checkpoint)


def curve_report(rows):
    def report(step, seen, loss, answers, right, seconds):
        rows.append((step, seen, round(loss, 4), round(answers, 4), round(right, 4)))
        print(f"step {step}: {seen} tokens, loss {loss:.4f}, answers {answers:.4f}, "
              f"facts told {right:.3f}, {seen / seconds:.0f} tokens/s, {seconds:.0f} s", flush=True)
    return report


def product_dtype(arguments):
    """bfloat16 where the machine multiplies it: elsewhere PyTorch widens it, which takes longer."""
    if arguments.product_dtype != "auto":
        return getattr(torch, arguments.product_dtype)
    fast = arguments.device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--curve", type=Path, default=None, help="CSV of the loss")
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--tokens-a-batch", type=int, default=2048)
    parser.add_argument("--peak", type=float, default=3e-3, help="AdamW's rate")
    parser.add_argument("--matrix-peak", type=float, default=0.02, help="Muon's rate")
    parser.add_argument("--vocab-size", type=int, default=2560)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--intermediate-size", type=int, default=768)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--product-dtype", default="auto",
                        choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--device", default="cpu", help="of PyTorch: cpu, cuda")
    parser.add_argument("--checkpoint", type=Path, default=None)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    for_tokens = corpus(HERE / "facts", random.Random(arguments.seed))
    tokenizer = make_tokenizer(texts_for_tokenizer(for_tokens, 20000), arguments.vocab_size)
    made = corpus(HERE / "facts", random.Random(arguments.seed + 1), held_out_questions())
    stream = batches(made, encoder(tokenizer, random.Random(arguments.seed + 2)),
                     arguments.tokens_a_batch, random.Random(arguments.seed + 3))
    dtype = product_dtype(arguments)
    model = lean_model(tokenizer.get_vocab_size(), 256, arguments.intermediate_size,
                       arguments.layers, dtype).to(arguments.device)
    print(f"products in {dtype}, {sum(p.numel() for p in model.parameters())} parameters, "
          f"{tokenizer.get_vocab_size()} tokens in the vocabulary", flush=True)
    asks_for = torch.nn.Linear(256, len(made.facts)).to(arguments.device)
    rows = []
    train(arguments, model, asks_for, made, stream, curve_report(rows))
    write_folder(model, tokenizer, arguments.out)
    if arguments.curve:
        lines = ["step,tokens,loss,answer_loss,facts_told"]
        lines += [",".join(map(str, row)) for row in rows]
        arguments.curve.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
