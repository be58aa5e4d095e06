"""Compares recreated golden files with the committed ones; for scripts/goldens --check.

Weights, texts and whole numbers must be equal. Figures may differ a little, because another
machine's float32 sums run in another order.
"""

import argparse
import json
import os
import sys

# AVX2 and AVX-512 kernels of the same packages differ by up to 2e-5 on these models.
FLOAT_TOLERANCE = 3e-5
BFLOAT16_SHARE = 1.0  # bfloat16 figures: within the recorded error of bfloat16 itself
DIFFERENCES_SHOWN_MAX = 50
# How far float32 is from float64 is itself rounding noise: half or double is the same answer.
NOISE = ("float64_difference_max",)


def files_below(root):
    found = []
    for folder, _, names in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def compare_numbers(want, have, where, tolerance, differences):
    if isinstance(want, int) and isinstance(have, int):
        if want != have:
            differences.append(f"{where}: {want} became {have}")
    elif not abs(want - have) <= tolerance:
        differences.append(f"{where}: {want} became {have}, more than {tolerance:.1e} apart")


def compare_values(want, have, where, tolerance, differences):
    """Walks two JSON values side by side; `where` names the place in the file."""
    if is_number(want) and is_number(have):
        compare_numbers(want, have, where, tolerance, differences)
    elif type(want) is not type(have):
        differences.append(f"{where}: {type(want).__name__} became {type(have).__name__}")
    elif isinstance(want, dict):
        if "logit_error_max" in want:
            tolerance = BFLOAT16_SHARE * want["logit_error_max"]
        for key in sorted(set(want) | set(have)):
            if key not in want or key not in have:
                differences.append(f"{where}: only one side has {key}")
            elif key not in NOISE:
                compare_values(want[key], have[key], f"{where}.{key}", tolerance, differences)
    elif isinstance(want, list):
        if len(want) != len(have):
            differences.append(f"{where}: {len(want)} entries became {len(have)}")
        for index, pair in enumerate(zip(want, have)):
            compare_values(*pair, f"{where}[{index}]", tolerance, differences)
    elif want != have:
        differences.append(f"{where}: {want!r} became {have!r}")


def compare_files(want_path, have_path, name, differences):
    with open(want_path, "rb") as file:
        want = file.read()
    with open(have_path, "rb") as file:
        have = file.read()
    if want == have:
        return
    if not name.endswith(".json"):
        differences.append(f"{name}: other bytes ({len(want)} bytes became {len(have)})")
        return
    try:
        compare_values(json.loads(want), json.loads(have), name, FLOAT_TOLERANCE, differences)
    except ValueError as error:
        differences.append(f"{name}: not JSON on one side: {error}")


def compare_trees(committed, recreated, whole):
    """whole: folders whose every committed file must have been recreated."""
    differences, have = [], files_below(recreated)
    for name in have:
        path = os.path.join(committed, name)
        if not os.path.exists(path):
            differences.append(f"{name}: recreated, but not committed")
        else:
            compare_files(path, os.path.join(recreated, name), name, differences)
    for folder in whole:
        for name in files_below(os.path.join(committed, folder)):
            if os.path.normpath(os.path.join(folder, name)) not in have:
                differences.append(f"{folder}/{name}: committed, but not recreated")
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("committed", help="the folder in the repository")
    parser.add_argument("recreated", help="the folder just made")
    parser.add_argument("--whole", action="append", default=[],
                        help="a folder below both in which no committed file may be left over")
    options = parser.parse_args()
    differences = compare_trees(options.committed, options.recreated, options.whole)
    for line in differences[:DIFFERENCES_SHOWN_MAX]:
        print(line, file=sys.stderr)
    if differences:
        print(f"goldens: {len(differences)} differences from {options.committed}", file=sys.stderr)
        return 1
    print(f"goldens: {len(files_below(options.recreated))} files recreated alike")
    return 0


if __name__ == "__main__":
    sys.exit(main())
