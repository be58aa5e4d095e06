"""Reads the tree for the lint: which files there are, and C++ with comments and strings blanked."""

import functools
import os
import pathlib
import re
from typing import NamedTuple

CPP_SUFFIXES = {".cpp", ".hpp", ".cu", ".cuh", ".h"}
HEADER_SUFFIXES = {".hpp", ".cuh", ".h"}  # .h: a header in C
CODE_SUFFIXES = CPP_SUFFIXES | {".py", ".rs", ".sh", ".cmake"}
TEXT_SUFFIXES = CODE_SUFFIXES | {".md", ".txt", ".json", ".yaml", ".yml", ".toml", ".capnp"}
# Made by builds or by tools; never part of the tree.
PRUNED = {".git", "build", "target", ".venv", ".ccache", "__pycache__", ".cache"}


class violation(NamedTuple):
    rule: str
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


class source_file:
    """One text file, by its path from the root."""

    def __init__(self, root, path):
        self.path = path
        self.suffix = pathlib.PurePath(path).suffix
        self.text = (root / path).read_text(encoding="utf-8", errors="replace")
        self.lines = self.text.splitlines()

    @property
    def folder(self):
        return self.path.split("/")[0] if "/" in self.path else ""

    @property
    def is_cpp(self):
        return self.suffix in CPP_SUFFIXES

    @property
    def is_header(self):
        return self.suffix in HEADER_SUFFIXES

    @functools.cached_property
    def code(self):
        """The text with comments and the insides of literals blanked; the same lines."""
        return blank_literals(self.text) if self.is_cpp else self.text

    @functools.cached_property
    def includes(self):
        """[(line, name, quoted)] of every #include, in order."""
        found = []
        in_comment = blank_literals(self.text, keep_strings=True).splitlines()
        for number, line in enumerate(in_comment, 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if match:
                found.append((number, match.group(2), match.group(1) == '"'))
        return found


class tree:
    """Every text file of the project. `root` may be any folder, so that tests can plant one."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = [source_file(self.root, path) for path in sorted(self._walk())]
        self.by_path = {file.path: file for file in self.files}

    def _walk(self):
        for folder, subfolders, names in os.walk(self.root):
            subfolders[:] = [name for name in subfolders if name not in PRUNED]
            for name in names:
                full = pathlib.Path(folder) / name
                if self._is_text(full):
                    yield full.relative_to(self.root).as_posix()

    @staticmethod
    def _is_text(path):
        if path.suffix:
            return path.suffix in TEXT_SUFFIXES and path.stat().st_size < 1 << 20
        if not path.is_file() or path.is_symlink():
            return False
        with path.open("rb") as file:  # scripts/build, .ci/run
            return file.read(2) == b"#!"

    @property
    def cpp(self):
        return [file for file in self.files if file.is_cpp]

    @property
    def headers(self):
        return [file for file in self.files if file.is_header]


# Comments, raw strings, strings and characters (not the ' of 1'000), in the order they can start.
LITERAL = re.compile(
    r"""//[^\n]*(?:\\\n[^\n]*)*
      | /\*.*?\*/
      | R"(?P<mark>[^()\s\\]{0,16})\(.*?\)(?P=mark)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9a-fA-F])'(?:\\.[^'\n]*|[^'\\\n])'
    """,
    re.DOTALL | re.VERBOSE,
)


def blank_literals(text, keep_strings=False):
    """Blanks comments and (unless kept) the insides of literals, keeping newlines and quotes."""

    def blanked(match):
        found = match.group(0)
        is_comment = found.startswith(("//", "/*"))
        if keep_strings and not is_comment:
            return found
        blank = re.sub(r"[^\n]", " ", found)
        if is_comment or "\n" in found:
            return blank
        return found[0] + blank[1:-1] + found[-1]

    return LITERAL.sub(blanked, text)
