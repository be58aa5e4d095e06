"""Runs one model at many sizes and compares the JSON: see scripts/same-bits."""

import argparse
import itertools
import json
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TENSOR_PARALLEL = (1, 2, 4, 8)
PIPELINE_PARALLEL = (1, 2, 3)
CHUNKS = (0, 16, 64)  # 0: the whole prompt in one step
CHOICES = (1, 16)
THREADS = (1, 2)
FEEDS = tuple(itertools.product(CHUNKS, CHOICES, THREADS))
REQUESTS = {
    "greedy": ["--temperature", "0"],
    "sampled": ["--temperature", "0.8", "--top-p", "0.95", "--top-k", "50"],
}


def arguments():
    parser = argparse.ArgumentParser(
        prog="same-bits", description="The same tokens and logprob bits at every size.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="Hugging Face folder")
    parser.add_argument("--quick", action="store_true",
                        help="one thing changed at a time, and all at once: about 12 runs a path")
    parser.add_argument("--dtype", default="float32,bfloat16", help="[%(default)s]")
    parser.add_argument("--numerics", default="all",
                        help="instruction paths, e.g. avx512,avx2 [all this machine has]")
    parser.add_argument("--prompt-token-ids", help="1,2,3 [drawn from a fixed seed]")
    parser.add_argument("--prompt-tokens", type=int, default=150, help="when drawn [%(default)s]")
    parser.add_argument("--max-tokens", type=int, default=24, help="[%(default)s]")
    parser.add_argument("--ranks", choices=["threads", "processes"], help="[both, mixed]")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS",
                        help="of one run [%(default)s]")
    parser.add_argument("--binary", default=str(ROOT / "build/bin/troupe"), help="[%(default)s]")
    return parser.parse_args()


class Failed(Exception):
    """A run that did not give what it should; its text is one line."""


def output_of(options, command):
    try:
        done = subprocess.run([options.binary, *command], capture_output=True, text=True,
                              timeout=options.timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"no answer after {options.timeout:g} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise Failed(f"exit {done.returncode}: {last}")
    return done.stdout


def json_of(options, command):
    text = output_of(options, [*command, "--output", "json"])
    try:
        return json.loads(text, parse_float=str)  # as printed: equal bits print equally
    except json.JSONDecodeError as error:
        raise Failed(f"output is not JSON: {error}") from error


class Model:
    """What the runs of one model have in common."""

    def __init__(self, options, path):
        self.options = options
        self.path = path
        about = json_of(options, ["inspect", path])
        self.heads = about["num_attention_heads"]
        self.layers = about["num_hidden_layers"]
        room = about["max_position_embeddings"] - options.max_tokens
        if options.prompt_token_ids:
            self.prompt = options.prompt_token_ids
        else:
            draw = random.Random(20261121)
            count = max(1, min(options.prompt_tokens, room))
            ids = [draw.randrange(about["vocab_size"]) for _ in range(count)]
            self.prompt = ",".join(map(str, ids))

    def paths(self, dtype):
        """Instruction paths of this machine for `dtype`, fastest first."""
        about = json_of(self.options, ["inspect", self.path, "--dtype", dtype])
        available = [profile.split("/")[0] for profile in about["numerics_available"]]
        if self.options.numerics == "all":
            return available
        wanted = self.options.numerics.split(",")
        return [path for path in available if path in wanted]

    def holds(self, tensor_parallel, pipeline_parallel):
        return tensor_parallel <= self.heads and pipeline_parallel <= self.layers

    def flags(self, profile, size, feed, request):
        (dtype, path), (tensor, pipeline), (chunk, choices, threads) = profile, size, feed
        # One rank is the reference, as a thread; more are processes, and threads where the prompt
        # goes in whole.
        in_threads = (tensor, pipeline) == (1, 1) or chunk == 0
        flags = ["generate", self.path, "--prompt-token-ids", self.prompt, "--ranks",
                 self.options.ranks or ("threads" if in_threads else "processes"),
                 "--dtype", dtype, "--numerics", path, "--max-tokens",
                 str(self.options.max_tokens), "--ignore-eos", "--logprobs", "5", "--seed", "7",
                 "--tensor-parallel-size", str(tensor), "--pipeline-parallel-size", str(pipeline),
                 "--threads-per-rank", str(threads), "--n", str(choices), *REQUESTS[request]]
        tokens = self.prompt.count(",") + 1
        # Enough for every choice's prompt in one step, so that "whole" is whole.
        flags += ["--max-num-batched-tokens", str(max(512, tokens * choices))]
        return flags + (["--long-prefill-token-threshold", str(chunk)] if chunk else [])

    def run(self, *what):
        return json_of(self.options, self.flags(*what))["choices"]


def first_difference(expected, found):
    """Where two lists of choices part; None where they do not. Extra choices do not count."""
    for choice, (a, b) in enumerate(zip(expected, found)):
        if a == b:
            continue
        for at, (token_a, token_b) in enumerate(zip(a["logprobs"], b["logprobs"])):
            if token_a == token_b:
                continue
            what = [f"{token['token_id']} {token['logprob']}" for token in (token_b, token_a)]
            if what[0] == what[1]:
                return f"choice {choice} token {at}: other alternatives to {what[0]}"
            return f"choice {choice} token {at}: {what[0]} instead of {what[1]}"
        return f"choice {choice} differs beside its tokens"
    return None


def matrix(model, quick):
    """(size, feed) to run, by size."""
    sizes = itertools.product(TENSOR_PARALLEL, PIPELINE_PARALLEL)
    for turn, size in enumerate(size for size in sizes if model.holds(*size)):
        if not quick:
            yield size, FEEDS
        elif size == (1, 1):
            yield size, [(0, 1, 2), (16, 1, 1), (64, 1, 1), (0, 16, 1), (16, 16, 2)]
        else:
            yield size, [FEEDS[(turn * 5) % len(FEEDS)]]


def describe(feed):
    chunk, choices, threads = feed
    return f"chunk {chunk or 'whole'} n {choices} threads {threads}"


def compare(model, profile, quick):
    """Prints a row for each size; the number of runs and of those that differ or failed."""
    base = {request: model.run(profile, (1, 1), (0, 1, 1), request) for request in REQUESTS}
    # With 16 choices all must agree with each other's run, the first with that of one choice.
    sixteen = {request: model.run(profile, (1, 1), (0, 16, 1), request) for request in REQUESTS}
    runs = bad = 0
    for size, feeds in matrix(model, quick):
        same, wrong = 0, []
        for feed, request in itertools.product(feeds, REQUESTS):
            try:
                found = model.run(profile, size, feed, request)
                difference = first_difference(base[request], found)
                if difference is None and feed[1] == 16:
                    difference = first_difference(sixteen[request], found)
                    if len(found) != 16:
                        difference = f"{len(found)} choices instead of 16"
            except Failed as error:
                difference = str(error)
            if difference is None:
                same += 1
            else:
                wrong.append(f"{request}, {describe(feed)}: {difference}")
        print(f"  tp {size[0]} pp {size[1]}   {same:3d} of {same + len(wrong):3d} runs the same"
              + ("" if not wrong else "   DIFFERENT"), flush=True)
        for line in wrong:
            print("    " + line, flush=True)
        runs += same + len(wrong)
        bad += len(wrong)
    return runs, bad


def check_refusals(model, profile):
    """A size that the model does not hold must be refused, not run; the number that was not."""
    bad = 0
    for size in itertools.product(TENSOR_PARALLEL, PIPELINE_PARALLEL):
        if model.holds(*size):
            continue
        try:
            model.run(profile, size, (0, 1, 1), "greedy")
            outcome = f"ran, with {model.heads} heads and {model.layers} layers"
        except Failed as error:
            outcome = str(error)
        refused = outcome.startswith("exit 3: ")
        bad += not refused
        print(f"  tp {size[0]} pp {size[1]}   " + ("refused, as it must be" if refused
                                                   else f"{outcome}   WRONG"), flush=True)
    return bad


def check_model(options, path):
    """The number of runs and of those that differ or failed."""
    model = Model(options, path)
    runs = bad = 0
    for dtype in options.dtype.split(","):
        paths = model.paths(dtype)
        if not paths:
            print(f"{path} {dtype}: this machine has none of {options.numerics}")
        for turn, numerics in enumerate(paths):
            print(f"{path} {dtype} {numerics}", flush=True)
            if turn == 0:
                bad += check_refusals(model, (dtype, numerics))
            more, wrong = compare(model, (dtype, numerics), options.quick)
            runs += more
            bad += wrong
    if runs == 0:
        raise Failed("nothing was run")
    return runs, bad


def main():
    options = arguments()
    if not pathlib.Path(options.binary).is_file():
        print(f"same-bits: no {options.binary}: run scripts/build first", file=sys.stderr)
        return 2
    runs = bad = 0
    for path in options.models:
        try:
            more, wrong = check_model(options, path)
        except Failed as error:
            print(f"same-bits: {path}: {error}", file=sys.stderr)
            more, wrong = 0, 1
        runs += more
        bad += wrong
    if bad:
        print(f"{bad} differences or failures in {runs} runs")
        return 1
    print(f"{runs} runs, all the same to the bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
