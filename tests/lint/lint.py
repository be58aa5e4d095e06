#!/usr/bin/env python3
"""The house rules as a test: arrows, sizes, words, format. Needs Python's standard library only.

    tests/lint/lint.py [--root FOLDER] [--rule NAME]... [--base REVISION] [--by-folder]

Prints one line for each violation, `path:line: [rule] what`; exit 1 when there is any.
"""

import argparse
import collections
import pathlib
import sys

import arrows
import formatting
import sizes
import words
from source import tree

# Name of a check -> the function of a tree that yields violations.
CHECKS = {
    "includes": arrows.includes,
    "links": arrows.links,
    "sizes": sizes.sizes,
    "exempt": sizes.empty_reasons,
    "words": words.words,
    "macros": words.macros,
    "pragma_once": words.pragma_once,
    "architecture": words.architecture,
    "named_tests": words.named_tests,
    "format": formatting.formatting,
}


def lint(root, only=(), base=None):
    """All violations, sorted; those that exempt.txt names with their rule are left out."""
    files = tree(root)
    exempted = sizes.exempt(files)
    found = []
    for name, check in CHECKS.items():
        if not only or name in only:
            found.extend(check(files))
    if base and (not only or "sizes" in only):
        found.extend(sizes.ratchet_only_shrinks(files, base))
    return sorted(v for v in set(found) if (v.rule, v.path) not in exempted), len(files.files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--rule", action="append", default=[], choices=CHECKS, dest="rules")
    parser.add_argument("--base", default="HEAD", help="since when the ratchet may not have grown")
    parser.add_argument("--by-folder", action="store_true", help="end with a count a folder")
    arguments = parser.parse_args()
    found, files = lint(arguments.root, arguments.rules, arguments.base)
    for one in found:
        print(one)
    if arguments.by_folder:
        for (folder, rule), count in sorted(collections.Counter(
                (one.path.rpartition("/")[0] or ".", one.rule) for one in found).items()):
            print(f"{count:4} {rule:18} {folder}")
    print(f"lint: {len(found)} violations in {files} files")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
