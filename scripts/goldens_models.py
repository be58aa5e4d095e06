"""Makes tests/golden/models: tiny Hugging Face folders, and what transformers says of them.

Weights come from numpy's Philox counter generator by integer arithmetic only, so that they are
the same bytes on every machine; every figure comes from Hugging Face transformers in eager mode.
Run it through scripts/goldens, which sets up the pinned packages.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

from goldens_cases import CASES

STEPS = 64
TOP = 5
MARGIN_MIN = 2e-3  # 20 times the tolerance on logprobs: a correct program cannot flip a token
CONTRAST_MIN = 1e-3  # 10 times that tolerance: a program without the feature must fail
CACHE_DIFFERENCE_MAX = 5e-6  # cached against whole-sequence float32 logits, by logit scale
FLOAT64_DIFFERENCE_MAX = 3e-5  # float32 rounding alone, a third of the tolerance
DISTINCT_MIN, DISTINCT_TAIL_MIN = 20, 8  # of all tokens and of the last 32: no loops
DECIMALS = 6


class Unfit(Exception):
    """This seed gives a golden that proves too little."""


def raw_normal(seed, name, count):
    """count float32 values, nearly normal with deviation 1, exact on every machine.

    The sum of the four 16-bit quarters of a raw draw (Irwin-Hall): no logarithm, so no libm.
    """
    key = np.frombuffer(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], dtype="<u8")
    draws = np.random.Philox(key=key).random_raw(count)
    quarters = draws.astype("<u8").view("<u2").reshape(count, 4).astype(np.int64).sum(axis=1)
    return ((quarters - 2 * 65535) / (65536 / math.sqrt(3.0))).astype(np.float32)


def spread(name, dims):
    """(mean, deviation) that keeps the residual stream lively and the logits decisive."""
    if name.endswith("q_norm.weight") or name.endswith("k_norm.weight"):
        return 1.5, 0.3
    if name.endswith("norm.weight"):
        return 1.0, 0.2
    if name.endswith(".bias"):
        return 0.0, 0.4
    scale = 1.3
    if "embed_tokens" in name or "lm_head" in name:
        scale = 3.0
    elif "q_proj" in name or "k_proj" in name:
        scale = 1.6
    elif "o_proj" in name or "down_proj" in name:
        scale = 2.2
    return 0.0, scale / math.sqrt(dims[-1])


def make_config(case, **changes):
    fields = {key: value for key, value in case.config.items() if value is not None
              or key in ("sliding_window",)}
    fields.update(changes)
    config = transformers.AutoConfig.for_model(case.model_type, **fields)
    config.architectures = [transformers.AutoModelForCausalLM._model_mapping[type(config)].__name__]
    return config


def make_model(case, seed):
    """The case's model in its stored dtype, every tensor drawn from (seed, tensor name)."""
    dtype = getattr(torch, case.dtype)
    model = transformers.AutoModelForCausalLM.from_config(
        make_config(case), dtype=dtype, attn_implementation="eager")
    state = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and case.config["tie_word_embeddings"]:
            continue
        mean, deviation = spread(name, tensor.shape)
        values = mean + deviation * raw_normal(seed, name, tensor.numel())
        state[name] = torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape).to(dtype)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    model.generation_config = transformers.GenerationConfig.from_model_config(model.config)
    return model.eval()


def prompts_of(case, seed):
    vocab = case.config["vocab_size"]
    prompts = []
    for index, length in enumerate(case.lengths):
        key = np.frombuffer(
            hashlib.sha256(f"{seed}:prompt {index}".encode()).digest()[:16], dtype="<u8")
        draws = np.random.Philox(key=key).random_raw(length)
        prompts.append([int(draw % np.uint64(vocab)) for draw in draws])
    return prompts


def load(folder, dtype, config=None):
    """A fresh model: rope dynamic keeps state from one sequence to the next."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation="eager", local_files_only=True)
    rotary = model.model.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32, "angles must not be rounded to the model's dtype"
    return model.eval()


def incremental(model, prompt, forced=None):
    """Tokens and logits [STEPS, vocab], one token at a time on the cache, greedy or as forced."""
    tokens, rows, cache, ids = [], [], None, prompt
    for step in range(STEPS):
        out = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, -1])
        tokens.append(int(rows[-1].argmax()) if forced is None else forced[step])
        ids = tokens[-1:]
    return tokens, torch.stack(rows)


def one_pass(model, prompt, tokens):
    """Logits [STEPS, vocab] of the given tokens from a single pass without a cache."""
    out = model(input_ids=torch.tensor([prompt + tokens[:-1]]), use_cache=False)
    return out.logits[0, len(prompt) - 1:]


def is_dynamic(case):
    return case.config["rope_parameters"]["rope_type"] == "dynamic"


def teacher_forced(case, model, prompt, tokens):
    """rope dynamic turns each key by the frequencies of its own time: no single pass gives that."""
    if is_dynamic(case):
        return incremental(model, prompt, tokens)[1]
    return one_pass(model, prompt, tokens)


def log_softmax(logits):
    return torch.log_softmax(logits.double(), dim=-1)


def chosen(logprobs, tokens):
    return logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def rounded(values):
    return [round(float(value), DECIMALS) for value in values]


def require(condition, text):
    if not condition:
        raise Unfit(text)


def check_lively(tokens, margin):
    require(margin > MARGIN_MIN, f"margin {margin:.2g}")
    require(len(set(tokens)) >= DISTINCT_MIN, f"only {len(set(tokens))} distinct tokens")
    tail = len(set(tokens[-32:]))
    require(tail >= DISTINCT_TAIL_MIN, f"only {tail} distinct tokens at the end")


def check_cache(case, folder, prompt, tokens, logits):
    """The cached and the whole-sequence logits must agree, and for rope dynamic must not."""
    whole = one_pass(load(folder, torch.float32), prompt, tokens)
    difference = float((whole - logits).abs().max() / logits.abs().max())
    if is_dynamic(case):
        require(difference > CONTRAST_MIN, f"dynamic changes nothing: {difference:.2g}")
    else:
        assert difference < CACHE_DIFFERENCE_MAX, (case.name, difference)


def run_prompt(case, folder, prompt):
    """One prompt's entry of expected.json, and its figures for the whole case."""
    tokens, logits = incremental(load(folder, torch.float32), prompt)
    logprobs = log_softmax(logits)
    best = logprobs.topk(TOP, dim=-1)
    margin = float((best.values[:, 0] - best.values[:, 1]).min())
    check_lively(tokens, margin)
    check_cache(case, folder, prompt, tokens, logits)

    exact_tokens, exact = incremental(load(folder, torch.float64), prompt)
    require(exact_tokens == tokens, "float64 chooses other tokens")
    float64_difference = float(
        (chosen(log_softmax(exact), tokens) - chosen(logprobs, tokens)).abs().max())
    require(float64_difference < FLOAT64_DIFFERENCE_MAX, f"float64 {float64_difference:.2g}")

    half = teacher_forced(case, load(folder, torch.bfloat16), prompt, tokens).float()
    error = half - logits
    entry = {
        "prompt_token_ids": prompt,
        "token_ids": tokens,
        "logprobs": rounded(chosen(logprobs, tokens)),
        "top": [[[int(i), round(float(v), DECIMALS)] for i, v in zip(ids, values)]
                for ids, values in zip(best.indices, best.values)],
        "top2_margin_min": round(margin, DECIMALS),
        "bfloat16": {
            "logprobs": rounded(chosen(log_softmax(half), tokens)),
            "logit_error_max": round(float(error.abs().max()), DECIMALS),
            "logit_error_rms": round(float(error.pow(2).mean().sqrt()), DECIMALS),
        },
    }
    return entry, float(logits.abs().max()), float64_difference


def check_contrasts(case, folder, prompts):
    """Each feature of the case must matter: switched off, some logprob moves visibly."""
    for contrast in case.contrasts:
        config = make_config(case, **contrast)
        moved = 0.0
        for entry in prompts:
            prompt, tokens = entry["prompt_token_ids"], entry["token_ids"]
            model = load(folder, torch.float32, config=config)
            other = chosen(log_softmax(teacher_forced(case, model, prompt, tokens)), tokens)
            moved = max(moved, float((other - torch.tensor(entry["logprobs"])).abs().max()))
        require(moved > CONTRAST_MIN, f"{contrast} moves logprobs by only {moved:.2g}")


def old_config(case, config):
    """config.json as transformers 4 spelled it: converted by us, checked by Hugging Face."""
    old = dict(config)
    rope = old.pop("rope_parameters")
    old["rope_theta"] = rope.pop("rope_theta")
    rope_type = rope.pop("rope_type")
    old["rope_scaling"] = None if rope_type == "default" else {case.old_rope_key: rope_type, **rope}
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = "4.44.2"
    old.pop("layer_types", None)
    for field in case.drop_old:
        old.pop(field)
    return {**old, **case.old}


def check_old_config(case, folder, old, entry):
    """Hugging Face itself must read config_old.json as the same model, to the bit."""
    with tempfile.TemporaryDirectory() as other:
        for name in os.listdir(folder):
            shutil.copy(os.path.join(folder, name), other)
        write_json(os.path.join(other, "config.json"), old)
        prompt, tokens = entry["prompt_token_ids"], entry["token_ids"]
        ours = teacher_forced(case, load(folder, torch.float32), prompt, tokens)
        theirs = teacher_forced(case, load(other, torch.float32), prompt, tokens)
        assert torch.equal(ours, theirs), f"{case.name}: config_old.json is another model"


def set_stop(case, model, prompts):
    """Writes the end-of-sequence ids as the case wants them; weights and tokens do not change.

    number: one id that the second prompt produces. list: that id and another in a list. null: none.
    generation_config: config.json has a number, generation_config.json (which wins) a list.
    """
    produced = prompts[1]["token_ids"][20]
    other = case.config["vocab_size"] - 1
    in_config = {None: case.config["eos_token_id"], "number": produced, "null": None,
                 "list": [other, produced], "generation_config": other}[case.stop]
    stops = [other, produced] if case.stop == "generation_config" else in_config
    model.config.eos_token_id = in_config
    model.generation_config.eos_token_id = stops
    model.generation_config._from_model_config = case.stop != "generation_config"
    ids = [] if stops is None else stops if isinstance(stops, list) else [stops]
    for entry in prompts:
        hits = [step for step, token in enumerate(entry["token_ids"]) if token in ids]
        entry["stops_after"] = hits[0] + 1 if hits else None  # the stop token is counted
    return ids


def check_generate(folder, prompts):
    """transformers' own generate() ends where stops_after says."""
    for entry in prompts:
        prompt = entry["prompt_token_ids"]
        out = load(folder, torch.float32).generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False, max_new_tokens=STEPS)
        want = entry["token_ids"][:entry["stops_after"] or STEPS]
        assert out[0].tolist()[len(prompt):] == want, (folder, "generate() differs")


def save(case, model, folder):
    more = {} if case.shard_bytes is None else {"max_shard_size": case.shard_bytes}
    model.save_pretrained(folder, **more)
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)  # safetensors writes 0600


def make_case(case, seed, folder):
    model = make_model(case, seed)
    save(case, model, folder)
    results = [run_prompt(case, folder, prompt) for prompt in prompts_of(case, seed)]
    prompts = [entry for entry, _, _ in results]
    check_contrasts(case, folder, prompts)
    set_stop(case, model, prompts)
    save(case, model, folder)
    check_generate(folder, prompts)
    if case.old is not None:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            old = old_config(case, json.load(file))
        check_old_config(case, folder, old, prompts[-1])
        write_json(os.path.join(folder, "config_old.json"), old)
    expected = {
        "about": case.about, "seed": seed, "stored_dtype": case.dtype,
        "logit_scale": round(max(scale for _, scale, _ in results), DECIMALS),
        "float64_difference_max": float(f"{max(other for _, _, other in results):.1e}"),
        "prompts": prompts,
    }
    write_json(os.path.join(folder, "expected.json"), expected, compact=True)


def write_json(path, value, compact=False):
    with open(path, "w", encoding="utf-8") as file:
        if compact:
            json.dump(value, file, separators=(",", ":"))
        else:
            json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")


def find_seed(case, seeds_max=200):
    for seed in range(1, seeds_max + 1):
        with tempfile.TemporaryDirectory() as folder:
            try:
                make_case(case, seed, folder)
                return seed
            except Unfit as reason:
                print(f"  {case.name} seed {seed}: {reason}", file=sys.stderr, flush=True)
    raise SystemExit(f"{case.name}: no fit seed up to {seeds_max}: change the case")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the folder that receives one folder a case")
    parser.add_argument("--case", action="append", help="only this case (may be repeated)")
    parser.add_argument("--find-seeds", action="store_true", help="print fit seeds, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cases = [case for case in CASES if not options.case or case.name in options.case]
    if options.case and len(cases) != len(set(options.case)):
        print(f"goldens_models: no such case in {options.case}: see goldens_cases.py",
              file=sys.stderr)
        return 2
    with torch.no_grad():
        for case in cases:
            if options.find_seeds:
                print(f"{case.name} {find_seed(case)}", flush=True)
                continue
            folder = os.path.join(options.out, case.name)
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            try:
                make_case(case, case.seed, folder)
            except Unfit as reason:
                print(f"goldens_models: {case.name} seed {case.seed}: {reason}: use --find-seeds",
                      file=sys.stderr)
                return 1
            print(f"{case.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
