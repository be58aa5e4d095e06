"""Words that do not belong: clocks in logic, sleeps in tests, unseeded chance, machines' paths."""

import re

from source import CODE_SUFFIXES, violation

# Left side: where it holds. Each is (rule, which files, pattern, in code only, message).
LOGIC = re.compile(r"^(schemas|kernels|transport|net|models|engine|actors|serving|lws)/")
MACHINE = re.compile(r"^actors/.*_machine\.[ch]pp$")
TESTS = re.compile(r"^(tests|examples)/")
# "/" stands apart so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(
    r"(?<![\w.~}$%*/-])" + "/" + r"(?:home|root|work|farm|Users|mnt)" + "/" + r"[\w.]")
FOREIGN_MACROS = re.compile(
    r"^(TROUPE_\w+|HWY_\w+|CAF_\w+|BOOST_\w+|SPDLOG_\w+|FMT_\w+|_GNU_SOURCE|_POSIX_C_SOURCE)$")


def cpp_only(file):
    return file.is_cpp


def cpp_except_base(file):
    return file.is_cpp and file.folder != "base"


def logic_cpp(file):
    return file.is_cpp and LOGIC.match(file.path)


def test_code(file):
    return TESTS.match(file.path) and file.suffix in (".cpp", ".hpp", ".py", ".rs", ".sh", "")


def build_files(file):
    return file.suffix in (".cmake", ".json", ".txt", ".cpp", ".hpp") and file.folder != "tests"


def written_text(file):
    """Not what is data: a vocabulary may hold any word."""
    return file.folder != "tests" or file.suffix in CODE_SUFFIXES


CODE_RULES = [
    ("system_clock", logic_cpp,
     re.compile(r"\b(system_clock|CLOCK_REALTIME|gettimeofday)\b|\btime\s*\(\s*(nullptr|NULL|0)"),
     "wall time in logic: take base's clock, which a test can turn"),
    ("machine_clock", lambda file: MACHINE.match(file.path), re.compile(r"_clock::now\b"),
     "a machine gets `now` as an argument"),
    ("random_device", cpp_except_base,
     re.compile(r"\brandom_device\b|\bs?rand\s*\(|\bgetrandom\s*\("),
     "chance without a seed: take base's generator; tests use fixed seeds"),
    ("sleep", test_code,
     re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep)\b|\bsleep\s*\(|^\s*sleep\s+[\d.$]"),
     "no sleeps in tests: wait until something holds, with a deadline"),
    ("no_proof", test_code,
     re.compile(r"\bDISABLED_\w|\b(EXPECT|ASSERT)_(TRUE\s*\(\s*true|FALSE\s*\(\s*false)\b"),
     "a test that is off or cannot fail"),
    ("fast_math", build_files, re.compile(r"-ffast-math|-Ofast|-funsafe-math|-fassociative-math"),
     "breaks the same bits"),
]
TEXT_RULES = [
    ("todo", written_text, re.compile(r"(?<!`)TODO\(now\)|\bFIXME\b|\bXXX\b|\bTODO\b(?!\()"),
     "left over: mend it, or write TODO(kind): text"),
    ("machine_path", written_text, MACHINE_PATH, "a path of one machine"),
]


def scan(file, lines, rules):
    for rule, holds, pattern, message in rules:
        if not holds(file):
            continue
        for number, line in enumerate(lines, 1):
            if pattern.search(line):
                yield violation(rule, file.path, number, f"{line.strip()[:60]}: {message}")


def words(tree):
    for file in tree.files:
        if file.path.startswith("tests/lint/"):
            continue  # it holds what it looks for
        yield from scan(file, file.code.splitlines(), CODE_RULES)
        yield from scan(file, file.lines, TEXT_RULES)


def macros(tree):
    for file in tree.cpp:
        for number, line in enumerate(file.code.splitlines(), 1):
            match = re.match(r"\s*#\s*define\s+(\w+)", line)
            if match and not FOREIGN_MACROS.match(match.group(1)):
                yield violation("macros", file.path, number,
                                f"{match.group(1)}: macros begin with TROUPE_")


def pragma_once(tree):
    for file in tree.headers:
        # A header in C, and one that Highway reads once per instruction set, guard themselves.
        if file.suffix == ".h" or "HWY_TARGET_TOGGLE" in file.text:
            continue
        if "#pragma once" not in file.text:
            yield violation("pragma_once", file.path, 1, "a header begins with #pragma once")


def architecture(tree):
    """Each folder of the root is told of in docs/ARCHITECTURE.md."""
    told = tree.by_path.get("docs/ARCHITECTURE.md")
    for folder in sorted({file.folder for file in tree.files if file.folder}):
        if not folder.startswith(".") and (told is None or f"{folder}/" not in told.text):
            yield violation("architecture", "docs/ARCHITECTURE.md", 1,
                            f"does not mention {folder}/")


def named_tests(tree):
    """A test that a document names, `folder.Suite.Name`, is there."""
    there = set()
    for file in tree.cpp:
        if file.folder == "tests":
            folder = file.path.split("/")[1]
            there |= {(folder, *found) for found in
                      re.findall(r"\bTEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", file.text)}
    folders = {folder for folder, _, _ in there}
    for file in tree.files:
        if not file.path.startswith("docs/"):
            continue
        for number, line in enumerate(file.lines, 1):
            for named in re.findall(r"`(\w+)\.([A-Z]\w+)\.([A-Z]\w+)`", line):
                if named[0] in folders and named not in there:
                    yield violation("named_tests", file.path, number,
                                    f"no test is named {'.'.join(named)}")
