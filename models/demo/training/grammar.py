"""The hand-written facts: questions as a small grammar, answers as they stand.

A line of a question reads `(which|what) port does <server> use [by default]`: (a|b) is one of
several, [a] may be left out, <name> is a macro of words.txt.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ATOM = re.compile(r"\(|\)|\||\[|\]|<[a-z_0-9]+>|[^()|\[\]<]+|<")


@dataclass
class fact:
    name: str
    topic: str
    questions: list = field(default_factory=list)  # parsed patterns
    aliases: list = field(default_factory=list)    # what "what is X" asks for
    answers: list = field(default_factory=list)


def parse(text, macros):
    """A pattern as nested tuples: ("all", parts), ("one", alternatives), ("maybe", part)."""
    tokens = ATOM.findall(text)
    at = 0

    def alternatives(close):
        nonlocal at
        choices, parts = [], []
        while at < len(tokens):
            token = tokens[at]
            at += 1
            if token == close:
                return ("one", choices + [("all", parts)])
            if token == "|" and close:
                choices.append(("all", parts))
                parts = []
            elif token == "(":
                parts.append(alternatives(")"))
            elif token == "[":
                parts.append(("maybe", alternatives("]")))
            elif token[0] == "<" and token[1:-1] in macros:
                parts.append(macros[token[1:-1]])
            else:
                parts.append(token)
        if close:
            raise ValueError(f"no {close} in: {text}")
        return ("all", parts)

    return alternatives("")


def expand(pattern, chance):
    """One random sentence of the pattern."""
    if isinstance(pattern, str):
        return pattern
    kind, inside = pattern
    if kind == "all":
        return "".join(expand(part, chance) for part in inside)
    if kind == "one":
        return expand(inside[chance.randrange(len(inside))], chance)
    return expand(inside, chance) if chance.random() < 0.5 else ""


def read_macros(path):
    macros = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, words = line.partition(" = ")
            macros[name] = parse(f"({words})", macros)
    return macros


def read_phrases(path):
    """[section] -> its lines."""
    sections, lines = {}, []
    for line in path.read_text().splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line:
            lines.append(line)
    return sections


def read_synonyms(path):
    synonyms = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            word, _, others = line.partition(": ")
            synonyms[word] = [other.strip() for other in others.split(",")]
    return synonyms


NO_FACTS = ("words.txt", "synonyms.txt", "phrases.txt", "prose.txt")


def read_facts(folder):
    folder = Path(folder)
    macros = read_macros(folder / "words.txt")
    facts = []
    last = None
    # Facts first: a file named more_* adds questions to them.
    for path in sorted(folder.glob("*.txt"), key=lambda path: (path.name[:5] == "more_", path)):
        if path.name in NO_FACTS:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            mark, _, rest = line.partition(" ")
            if not line:
                continue
            if mark == "#":
                last = fact(rest, path.stem)
                facts.append(last)
            elif mark == "+":
                last = next(one for one in facts if one.name == rest)
            elif mark == "def:":
                last.aliases += rest.split("|")
            elif mark in ("?", "!"):
                last.questions.append(parse(rest, macros))
            elif mark == "=":
                last.answers.append(rest.strip())
            else:
                raise ValueError(f"{path}:{number}: no known mark: {line}")
    for one in facts:
        if not one.answers or not (one.questions or one.aliases):
            raise ValueError(f"{one.topic}: {one.name} lacks questions or answers")
    return facts
