"""clang-format: the C++ files are as `clang-format -i` leaves them."""

import os
import re
import shutil
import subprocess

from source import violation

VERSION = 14  # other versions format other things


def installed():
    """The program's name; None where there is none of that version."""
    for name in (f"clang-format-{VERSION}", "clang-format"):
        if shutil.which(name):
            shown = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
            if f"version {VERSION}." in shown.stdout:
                return name
    return None


def formatting(tree):
    if not (tree.root / ".clang-format").exists():
        return
    program = installed()
    if program is None:
        if os.environ.get("CI") == "true":
            yield violation("format", ".clang-format", 1,
                            f"clang-format {VERSION} is not installed")
        return
    paths = [file.path for file in tree.cpp if file.suffix != ".h"]
    seen = set()
    for start in range(0, len(paths), 50):
        shown = subprocess.run([program, "--dry-run", *paths[start:start + 50]], cwd=tree.root,
                               capture_output=True, text=True, check=False)
        for path, line in re.findall(r"^(.+?):(\d+):\d+: (?:warning|error): ", shown.stderr, re.M):
            if path not in seen:
                seen.add(path)
                yield violation("format", path, int(line),
                                f"first of its lines that {program} -i changes")
