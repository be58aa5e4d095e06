"""Sizes of functions, files and lines. What is larger stands in ratchet.txt, which may only shrink.

A ratchet line is `kind path[:function] value`; exempt.txt names what is exempt for good, and why.
"""

import ast
import re
import subprocess

from source import CODE_SUFFIXES, violation

FUNCTION_MAX = 70
HEADER_MAX = 250
SOURCE_MAX = 400
SOURCE_HARD_MAX = 600  # no ratchet goes above it
TEST_MAX = 800
COLUMNS_MAX = 100

RATCHET = "tests/lint/ratchet.txt"
EXEMPT = "tests/lint/exempt.txt"

# What opens a scope of declarations, as the last thing before its brace; `enum` holds none.
SCOPE_HEAD = re.compile(r"\b(?:namespace|class|struct|union|enum)\b|\bextern\s*\"")


def without_preprocessor(code):
    """Blanks directives with their continuation lines: macros hold unbalanced braces."""
    def blanked(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blanked, code, flags=re.MULTILINE)


def matching_braces(code):
    """Opening offset -> closing offset; None when they do not balance."""
    pairs, stack = {}, []
    for match in re.finditer(r"[{}]", code):
        if match.group() == "{":
            stack.append(match.start())
        elif stack:
            pairs[stack.pop()] = match.start()
        else:
            return None
    return pairs if not stack else None


def function_name(head):
    """`void foo::bar(int x) const` -> foo::bar; TEST(Grid, Cuts) -> TEST(Grid, Cuts)."""
    head = " ".join(head.split())
    test = re.match(r"(TEST(?:_[FP])?|TYPED_TEST(?:_P)?)\s*\([^)]*\)", head)
    if test:
        return test.group(0).replace(", ", ",")
    names = re.search(r"((?:[\w~]+(?:<[^()]*>)?::)*"
                      r"(?:operator\(\)|operator[^\s(]+|[\w~]+))\s*\(", head)
    return names.group(1) if names else head[:40]


class function_scanner:
    """Finds function bodies at namespace and class scope. Made for clang-formatted code."""

    def __init__(self, code):
        self.code = without_preprocessor(code)
        self.pairs = matching_braces(self.code)

    def functions(self):
        """[(name, first line, lines)]"""
        found = []
        if self.pairs is not None:
            self._scan(0, len(self.code), found)
        return found

    def _scan(self, begin, end, found):
        """One scope that holds declarations: a namespace, a class or the file."""
        head_begin, depth, i = begin, 0, begin
        while i < end:
            char = self.code[i]
            if char in "()":
                depth += 1 if char == "(" else -1
            elif char == ";" and depth == 0:
                head_begin = i + 1
            elif char == "{" and depth > 0:
                i = self.pairs[i]  # an argument: f(x{}), or a lambda in a declaration's default
            elif char == "{":
                close = self.pairs[i]
                if not self._is_initialiser(head_begin, i, close):
                    self._enter(head_begin, i, close, found)
                    head_begin = close + 1
                i = close
            i += 1

    def _is_initialiser(self, head_begin, open_at, close):
        """Of a member in a constructor's list: a_{1}, b_{2} {...}."""
        head = self.code[head_begin:open_at]
        after = self.code[close + 1:close + 200].lstrip()[:1]
        in_member_list = re.search(r"\)[^{}]*:[^:]", head) and re.search(r"[\w>]\s*$", head)
        return bool(in_member_list and after in (",", "{"))

    def _enter(self, head_begin, open_at, close, found):
        head = re.sub(r"^\s*(?:public|private|protected)\s*:", "", self.code[head_begin:open_at])
        declared = re.sub(r"\btemplate\s*<[^{]*?>(?!\s*[>,])|\balignas\s*\([^)]*\)", "", head)
        scope = SCOPE_HEAD.search(declared.rpartition(")")[2])
        if scope:
            if not scope.group().startswith("enum"):
                self._scan(open_at + 1, close, found)
            return
        is_table = re.search(r"=\s*[\w:<>, ]*$", head) or "(" not in head
        if is_table:
            return
        start = open_at - len(head.lstrip())
        first = self.code.count("\n", 0, start) + 1
        last = self.code.count("\n", 0, close) + 1
        found.append((function_name(head), first, last - first + 1))


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def file_limit(file):
    if file.path.startswith("tests/"):
        return "test", TEST_MAX
    if file.is_header:
        return "header", HEADER_MAX
    return "source", SOURCE_MAX


def measured(tree):
    """[(kind, key, line, value, limit)] of everything above its limit, worst first for a key."""
    for file in tree.files:
        if file.suffix not in CODE_SUFFIXES and file.suffix:
            continue
        kind, limit = file_limit(file)
        if len(file.lines) > limit:
            yield kind, file.path, 1, len(file.lines), limit
        wide = [(len(text), number) for number, text in enumerate(file.lines, 1)
                if len(text) > COLUMNS_MAX]
        if wide:
            columns, line = max(wide)
            yield "columns", file.path, line, columns, COLUMNS_MAX
        functions = ()
        if file.is_cpp:
            functions = function_scanner(file.code).functions()
        elif file.suffix == ".py":
            functions = python_functions(file.text)
        for name, line, lines in functions:
            if lines > FUNCTION_MAX:
                yield "function", f"{file.path}:{name}", line, lines, FUNCTION_MAX


def read_list(text):
    """Lines of words; # starts a comment."""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words:
            yield words


def parse_ratchet(text):
    return {(words[0], words[1]): int(words[2]) for words in read_list(text)}


def exempt(tree):
    """{(rule or kind, path or key)}; each line of exempt.txt also says why."""
    file = tree.by_path.get(EXEMPT)
    return {(words[0], words[1]) for words in read_list(file.text)} if file else set()


def sizes(tree):
    file = tree.by_path.get(RATCHET)
    ratchet = parse_ratchet(file.text) if file else {}
    exempted = exempt(tree)
    worst = {}
    for kind, key, line, value, limit in measured(tree):
        if (kind, key) not in exempted and value > worst.get((kind, key), (0,))[0]:
            worst[(kind, key)] = (value, line, limit)
    for (kind, key), (value, line, limit) in worst.items():
        path = key.split(":")[0]
        held = ratchet.get((kind, key), limit)
        if kind == "source":
            held = min(held, SOURCE_HARD_MAX)
        if value > held:
            name = key[len(path) + 1:]
            what = f"function {name} has {value} lines" if name else \
                f"{value} columns" if kind == "columns" else f"{kind} of {value} lines"
            yield violation("sizes", path, line, f"{what}; at most {held}")
    for (kind, key), held in ratchet.items():
        value = worst.get((kind, key), (0,))[0]
        if value < held:
            now = f"lower it to {value}" if value else "remove the line"
            yield violation("ratchet", RATCHET, 1, f"{kind} {key} shrank below {held}: {now}")
    for file in tree.cpp:
        if function_scanner(file.code).pairs is None:
            yield violation("sizes", file.path, 1, "braces do not balance outside of macros")


def ratchet_only_shrinks(tree, base):
    """Compares with the ratchet of an earlier revision: no new line, no larger number."""
    shown = subprocess.run(["git", "-C", str(tree.root), "show", f"{base}:{RATCHET}"],
                           capture_output=True, text=True, check=False)
    file = tree.by_path.get(RATCHET)
    if shown.returncode != 0 or file is None:
        return  # no such revision, or the ratchet is new in this one
    before = parse_ratchet(shown.stdout)
    for (kind, key), value in parse_ratchet(file.text).items():
        if value > before.get((kind, key), 0):
            yield violation("ratchet", RATCHET, 1,
                            f"{kind} {key} {value} grew since {base}: the ratchet may only shrink")


def empty_reasons(tree):
    file = tree.by_path.get(EXEMPT)
    for number, line in enumerate(file.lines if file else [], 1):
        words = line.split("#")[0].split()
        if words and (len(words) < 2 or not line.partition("#")[2].strip()):
            yield violation("exempt", EXEMPT, number, "needs: rule path  # why")
