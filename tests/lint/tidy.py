#!/usr/bin/env python3
"""clang-tidy over what changed, in parallel, within a time.

    tests/lint/tidy.py --build FOLDER [--base REVISION] [--minutes N] [--jobs N]

With a base: the sources that changed since, and a source for each header that changed. Without one:
all sources, the last committed first, until the time is over. Prints what it did not reach. What
clang 14 cannot parse and g++ can (a newer CPU's name) is told, and no failure.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

FINDING = re.compile(r"^\S+:\d+:\d+: (?:warning|error): .*\[(.*)\]$", re.M)


def git_lines(root, *words):
    shown = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True,
                           check=False)
    return shown.stdout.splitlines() if shown.returncode == 0 else []


def compiled(build, root):
    """Path from the root -> what clang-tidy is asked for; header checks stand for their header."""
    by_path = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        check = re.search(r"/header_checks/(.*)\.cpp$", path.as_posix())
        if check and build in path.parents:
            by_path[check.group(1) + ".hpp"] = path
        elif root in path.parents and build not in path.parents:
            by_path[path.relative_to(root).as_posix()] = path
    return by_path


def changed_since(root, base):
    changed = git_lines(root, "diff", "--name-only", "--diff-filter=d", base, "--")
    return changed + git_lines(root, "ls-files", "--others", "--exclude-standard")


def to_check(root, build, base):
    """Sources in the order in which to take them."""
    by_path = compiled(build, root)
    if base:
        order = changed_since(root, base)
    else:
        order = git_lines(root, "ls-files", "--others", "--exclude-standard")
        order += git_lines(root, "log", "--format=", "--name-only")
        order += sorted(by_path)
    chosen = {}  # keeps the order
    for path in order:
        source = by_path.get(path) or by_path.get(re.sub(r"\.hpp$", ".cpp", path))
        if source:
            chosen[source] = None
    return list(chosen)


class runner:
    def __init__(self, build, total, deadline):
        self.build, self.total, self.deadline = build, total, deadline
        self.done = self.failed = self.left = self.unread = 0
        self.lock = threading.Lock()

    def check(self, source):
        if time.monotonic() > self.deadline:
            with self.lock:
                self.left += 1
            return
        start = time.monotonic()
        shown = subprocess.run(["clang-tidy", "-p", str(self.build), "--quiet", str(source)],
                               capture_output=True, text=True, check=False)
        checks = FINDING.findall(shown.stdout)
        findings = [check for check in checks if not check.startswith("clang-diagnostic")]
        unread = not findings and "clang-diagnostic-error" in checks
        with self.lock:
            self.done += 1
            print(f"[{self.done}/{self.total}] {source.name} {time.monotonic() - start:.0f} s"
                  + (f", {len(findings)} findings" if findings else "")
                  + (", which clang cannot parse" if unread else ""), flush=True)
            if unread:
                self.unread += 1
                print(shown.stdout, flush=True)
            elif shown.returncode != 0:
                self.failed += 1
                print(shown.stdout if findings else shown.stdout + shown.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--base")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    commit = f"{arguments.base}^{{commit}}"
    if arguments.base and not git_lines(root, "rev-parse", "--verify", commit):
        parser.error(f"no revision {arguments.base}")
    sources = to_check(root, arguments.build, arguments.base)
    run = runner(arguments.build, len(sources), time.monotonic() + 60 * arguments.minutes)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run.check, sources))
    clean = run.done - run.failed - run.unread
    print(f"tidy: {clean} sources clean, {run.failed} with findings, {run.unread} that clang "
          f"cannot parse, {run.left} not reached in {arguments.minutes:g} minutes")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
