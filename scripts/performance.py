"""See scripts/performance."""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- scripts/performance: begin -->"
END = "<!-- scripts/performance: end -->"

# Shapes of published models; weights are random, so config.json is all that is needed.
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
         "rms_norm_eps": 1e-5, "attention_bias": False, "torch_dtype": "bfloat16",
         "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": True}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
         "rms_norm_eps": 1e-6, "attention_bias": False, "torch_dtype": "bfloat16",
         "max_position_embeddings": 40960, "rope_theta": 1000000, "tie_word_embeddings": True}
SHAPES = {
    "qwen3-0.6b": {**QWEN3, "hidden_size": 1024, "intermediate_size": 3072,
                   "num_hidden_layers": 28, "num_attention_heads": 16,
                   "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "llama-3.2-1b": {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192,
                     "num_hidden_layers": 16, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256},
}


def failed(message):
    sys.exit(f"performance: {message}")


def flags():
    parser = argparse.ArgumentParser(prog="scripts/performance", description=__doc__)
    parser.add_argument("--model", action="append", metavar="NAME|FOLDER",
                        help=f"{', '.join(SHAPES)}, or a folder with a config.json [both]")
    parser.add_argument("--dtype", default="bfloat16,int8,int4", help="[%(default)s]")
    parser.add_argument("--concurrency", default="1,16,64", help="sequences at once [%(default)s]")
    parser.add_argument("--prompt-tokens", default="512,4096", help="[%(default)s]")
    parser.add_argument("--max-tokens", type=int, default=64, help="[%(default)s]")
    parser.add_argument("--repeat", type=int, default=5, help="medians of [%(default)s]")
    parser.add_argument("--quick", action="store_true",
                        help="one shape, two rounds, no long prompt")
    parser.add_argument("--gguf", action="append", default=[], metavar="FILE",
                        help="measured by llama-bench, if that is on PATH")
    parser.add_argument("--url", action="append", default=[],
                        help="a server with OpenAI's API, measured by troupe bench --url")
    parser.add_argument("--write", action="store_true", help="also into docs/performance.md")
    return parser.parse_args()


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        failed(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def bench(troupe, model, *more):
    return json.loads(run([troupe, "bench", model, "--load-format", "dummy", "--output", "json",
                           "--log-level", "warn", *more]))


def cores():
    return len(os.sched_getaffinity(0))


def percent(share):
    return f"{100 * share:.0f} %"


def rate(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def limits_of(report):
    machine = report["machine"]
    peak = next(iter(machine["matmul_peak_gflop_per_s"].values()))
    return f"{machine['read_bandwidth_gb_per_s']:.0f} GB/s, {peak:,.0f} GFLOP/s"


def rows_of(options, troupe, name, folder):
    """One row a measurement: shape, dtype, what, tokens/s, share, the limits of that run."""
    threads = cores()
    common = ["--repeat", options.repeat]
    one_process = ["--ranks", "threads", *common]
    two_ranks = ["--tensor-parallel-size", 2, "--threads-per-rank", max(1, threads // 2), *common]
    for dtype in options.dtype.split(","):
        for sequences in map(int, options.concurrency.split(",")):
            layouts = [("", one_process)]
            if sequences == 1 and threads > 1:
                layouts.append((", 2 processes", two_ranks))
            for layout, more in layouts:
                report = bench(troupe, folder, "--dtype", dtype, "--prompt-tokens", 64,
                               "--max-tokens", options.max_tokens, "--concurrency", sequences,
                               "--max-num-seqs", sequences, *more)
                yield (name, dtype, f"decode, {sequences} sequence{'s'[:sequences > 1]}{layout}",
                       rate(report["decode_tokens_per_s"]["median"]),
                       percent(report["decode_roofline_share"]), limits_of(report))
        for tokens in map(int, options.prompt_tokens.split(",")):
            report = bench(troupe, folder, "--dtype", dtype, "--prompt-tokens", tokens,
                           "--max-tokens", 1, *one_process)
            yield (name, dtype, f"prompt of {tokens:,}",
                   rate(report["prefill_tokens_per_s"]["median"]),
                   percent(report["prefill_matmul_share"]), limits_of(report))


def llama_rows(options):
    tool = shutil.which("llama-bench")
    if not tool and options.gguf:
        failed("--gguf needs llama-bench on PATH")
    for file in options.gguf:
        reports = json.loads(run([tool, "-m", file, "-t", cores(), "-r", options.repeat, "-p", 512,
                                  "-n", options.max_tokens, "-o", "json"]))
        for report in reports:
            what = "prompt of 512" if report["n_gen"] == 0 else "decode, 1 sequence"
            yield (pathlib.Path(file).stem, report.get("model_type", ""), f"{what}, llama-bench",
                   rate(report["avg_ts"]), "", "")


def url_rows(options, troupe):
    for url in options.url:
        report = json.loads(run([troupe, "bench", "--url", url, "--num-prompts", 32,
                                 "--prompt-tokens", 512, "--max-tokens", options.max_tokens,
                                 "--max-concurrency", 16, "--output", "json"]))
        yield (url, "", "32 requests, 16 at once", rate(report["completion_tokens_per_s"]), "", "")


def cpu_name():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "an unnamed CPU"


def table(rows, profile):
    today = datetime.date.today().isoformat()
    lines = [f"{cpu_name()}, {cores()} cores, `{profile}`, {today}.", "",
             "| shape | weights | what | tokens/s | share | read, product of that run |",
             "|---|---|---|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write(text):
    page = PAGE.read_text()
    if BEGIN not in page or END not in page:
        failed(f"{PAGE} has no place between '{BEGIN}' and '{END}'")
    head, rest = page.split(BEGIN, 1)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}")


def main():
    options = flags()
    if options.quick:
        options.repeat, options.max_tokens, options.prompt_tokens = 2, 32, "512"
    troupe = ROOT / "build" / "bin" / "troupe"
    if not troupe.exists():
        failed("no build/bin/troupe: run scripts/build")
    names = options.model or (["qwen3-0.6b"] if options.quick else list(SHAPES))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = pathlib.Path(name)
            if name in SHAPES:
                folder = pathlib.Path(scratch) / name
                folder.mkdir()
                (folder / "config.json").write_text(json.dumps(SHAPES[name]))
            for row in rows_of(options, troupe, folder.name, folder):
                rows.append(row)
                print(" | ".join(row), flush=True)
    for row in [*llama_rows(options), *url_rows(options, troupe)]:
        rows.append(row)
        print(" | ".join(row), flush=True)
    if options.write:
        about = json.loads(run([troupe, "inspect", "demo", "--output", "json"]))
        write(table(rows, about["numerics"].split("/")[0]))


if __name__ == "__main__":
    main()
