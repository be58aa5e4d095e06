"""Does every line of the machines matter to a test? See scripts/mutate-machines."""

import argparse
import concurrent.futures
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutants"

# A program of tests: the folder, which of its files, and what else they need. Only what does
# without the actor framework and without processes.
PROGRAMS = {
    "machines": ("actors", r"(worker_link|worker_place|gang_members|gang_epoch|gang_report|"
                           r"join_check|machine_random|leader_machine|leader_random)_test", []),
    "sim": ("sim", r".*", []),
    "supervisor": ("supervisor", r"(machine|node|rules|random|nodes_sim)_test",
                   ["base/process.cpp", "supervisor/health.cpp", "supervisor/health_socket.cpp"]),
}
SUPPORT = ["base/check.cpp", "base/error.cpp"]

# A machine's tests, the quick ones first: programs, each with its filter.
OF_MEMBERS = [("machines", "-Leader*"), ("sim", "*")]
OF_LEADER = [("machines", "Leader*")]
OF_SUPERVISOR = [("supervisor", "-*AtRandom*"), ("supervisor", "*AtRandom*")]
MACHINES = {
    "actors/gang/gang_machine.cpp": OF_MEMBERS,
    "actors/gang/gang_members.cpp": OF_MEMBERS,
    "actors/gang/gang_report.cpp": OF_MEMBERS,
    "actors/gang/join_check.cpp": OF_MEMBERS,
    "actors/worker/worker_machine.cpp": OF_MEMBERS,
    "actors/worker/worker_place.cpp": OF_MEMBERS,
    "actors/worker/worker_report.cpp": OF_MEMBERS,
    "actors/leader/leader_machine.cpp": OF_LEADER,
    "supervisor/supervisor_machine.cpp": OF_SUPERVISOR,
    "supervisor/supervisor_machine_messages.cpp": OF_SUPERVISOR,
    "supervisor/node_watch.cpp": OF_SUPERVISOR,
    "supervisor/restart_policy.cpp": OF_SUPERVISOR,
    "supervisor/vitals_watch.cpp": OF_SUPERVISOR,
}
# A change may make a machine run or grow without end: it has several times what the tests take.
LIMIT_FACTOR, LIMIT_LEAST_S, LIMIT_MOST_S = 5, 5, 60
MEMORY_BYTES = 2 << 30

# Asserts, which no test may trip: not a transition.
NOT_MUTATED = re.compile(r"check_invariants|leader_machine::check\(")

# Why a change that no test can see is none: (file, kind, the text that it is about) -> reason.
EXPLAINED = {
    ("actors/gang/gang_machine.cpp", "without an operand of &&",
     "phase_ == gang_phase::preparing"):
        "ranks are prepared in that phase only; it says when",
    ("actors/leader/leader_machine.cpp", "remove",
     "choice.emitted_ids.push_back(token.token.token_id);"):
        "kept for a request that goes on in the next epoch, which none does yet",
}

PROLOGUE = """#include <cstdlib>
#include <type_traits>
namespace {
inline bool mutant_is(int number) {
  static const int chosen = [] {
    const char* text = std::getenv("TROUPE_MUTANT");
    return text == nullptr ? -1 : std::atoi(text);
  }();
  return number == chosen;
}
}  // namespace
"""


def without_comments(text):
    """The same length, with comments, strings and character literals blanked."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0)) if match.group(0).startswith("/") else \
            match.group(0)[0] + re.sub(r"[^\n]", "_", match.group(0)[1:-1]) + match.group(0)[-1]
    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])'", blank, text,
                  flags=re.DOTALL)


class mutator:
    """Finds what can be removed in one file and writes the text that can do without each."""

    def __init__(self, path, first):
        self.path = path
        self.text = (ROOT / path).read_text()
        self.code = without_comments(self.text)
        self.inserts = []  # (offset, order, text)
        self.mutants = {}  # number -> (kind, line, text)
        self.next = first
        for begin, end in self.bodies():
            self.block(begin, end)

    def add(self, kind, begin, end):
        number = self.next
        self.next += 1
        line = self.text.count("\n", 0, begin) + 1
        self.mutants[number] = (kind, line, " ".join(self.text[begin:end].split()))
        return number

    def insert(self, offset, text):
        self.inserts.append((offset, len(self.inserts), text))

    def bodies(self):
        """Function bodies at namespace scope, of clang-formatted code."""
        function = (r"^(?!namespace|struct|class|enum|using|#|\}|constexpr)\S[^;{}]*"
                    r"(?:\{[^\n;{}]*\}[^;{}]*)*\)[^;{}()]*\{")
        for match in re.finditer(function, self.code, re.MULTILINE):
            if NOT_MUTATED.search(match.group(0)):
                continue
            begin = match.end()
            yield begin, self.closing(begin - 1)

    def closing(self, opening):
        pairs = {"(": ")", "{": "}", "[": "]"}
        stack = []
        for at in range(opening, len(self.code)):
            char = self.code[at]
            if char in pairs:
                stack.append(pairs[char])
            elif stack and char == stack[-1]:
                stack.pop()
                if not stack:
                    return at
        raise ValueError(f"{self.path}: unbalanced at {opening}")

    def skip_space(self, at):
        while self.code[at].isspace():
            at += 1
        return at

    def statement_end(self, at):
        while self.code[at] != ";":
            at = self.closing(at) + 1 if self.code[at] in "({[" else at + 1
        return at + 1

    def block(self, at, end):
        at = self.skip_space(at)
        while at < end:
            at = self.skip_space(self.statement(at))

    def statement(self, at):
        rest = self.code[at:at + 200]
        if rest[0] == "{":
            end = self.closing(at)
            self.block(at + 1, end)
            return end + 1
        label = re.match(r"(case [\w:]+|default)\s*:(?!:)", rest)
        if label:
            return self.case(at, at + label.end())
        head = re.match(r"(if|for|while|switch)\s*(constexpr\s*)?\(", rest)
        if head:
            opening = at + head.end() - 1
            closing = self.closing(opening)
            if head.group(1) == "if" and not head.group(2):
                self.condition(opening + 1, closing)
            end = self.statement(self.skip_space(closing + 1))
            after = self.skip_space(end) if end < len(self.code) - 1 else end
            if head.group(1) == "if" and re.match(r"else\b", self.code[after:after + 5]):
                return self.statement(self.skip_space(after + 4))
            return end
        end = self.statement_end(at)
        if self.removable(self.code[at:end]):
            number = self.add("remove", at, end)
            self.insert(at, f"if (!mutant_is({number})) ")
        return end

    def case(self, at, end):
        after = self.skip_space(end)
        if self.code.startswith("return", after):
            number = self.add("remove case", at, self.statement_end(after))
            self.insert(after, f"if (mutant_is({number})) break; ")
        return end

    @staticmethod
    def removable(statement):
        if re.match(r"(return;|continue;)", statement):
            return True
        if re.match(r"check(_invariants)?\(\);", statement):
            return False
        if re.match(r"(return|break|static_assert|TROUPE_|using|const\b|static_cast|auto\b)",
                    statement):
            return False
        head = re.split(r"[=({;]", statement, maxsplit=1)[0].strip()
        head = re.sub(r"\[[^\]]*\]|\s*(\+|-)$", "", head)
        return not re.search(r"[\w>&*]\s+[\w&*]", head)  # two names: a declaration

    def condition(self, begin, end):
        text = self.code[begin:end]
        declares = re.match(r"(const )?[\w:]+(<[\w:<>, ]+>)?\*? \*?\w+ = ", text)
        if declares:
            number = self.add("never", begin, end)
            value = self.text[begin + declares.end():end]
            self.insert(begin + declares.end(),
                        f"mutant_is({number}) ? std::decay_t<decltype({value})>{{}} : ")
            return
        parts, operator = self.operands(begin, end)
        never, always = self.add("never", begin, end), self.add("always", begin, end)
        self.insert(begin, f"!mutant_is({never}) && (mutant_is({always}) || (")
        if len(parts) > 1:
            for first, last in parts:
                number = self.add(f"without an operand of {operator}", first, last)
                neutral = f"mutant_is({number}) || (" if operator == "&&" else \
                    f"!mutant_is({number}) && ("
                self.insert(first, "(" + neutral)
                self.insert(last, "))")
        self.insert(end, "))")

    def operands(self, begin, end):
        """The parts between top-level operators; of mixed ones those of ||."""
        found = {"||": [], "&&": []}
        at = begin
        while at < end:
            if self.code[at] in "({[":
                at = self.closing(at)
            elif self.code[at:at + 2] in found:
                found[self.code[at:at + 2]].append(at)
                at += 1
            at += 1
        operator = "||" if found["||"] else "&&"
        edges = [begin - 2] + found[operator] + [end]
        return [(first + 2, last) for first, last in zip(edges, edges[1:])], operator

    def written(self):
        text, at = [PROLOGUE, f'#line 1 "{self.path}"\n'], 0
        for offset, _, insert in sorted(self.inserts):
            text += [self.text[at:offset], insert]
            at = offset
        return "".join(text + [self.text[at:]])


def compile_one(job):
    source, target = job
    compiler = ([shutil.which("ccache")] if shutil.which("ccache") else []) + [
        os.environ.get("CXX", "g++")]
    command = compiler + ["-std=c++20", "-O1", "-D_GLIBCXX_ASSERTIONS", "-w", f"-I{ROOT}", "-c",
                          str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source}:\n{done.stderr}")
    return target


def link(name, objects):
    program = BUILD / name
    command = [os.environ.get("CXX", "g++"), *map(str, objects), "-o", str(program), "-lgmock",
               "-lgtest", *([] if name == "sim" else ["-lgtest_main"]), "-lfmt", "-lpthread"]
    subprocess.run(command, check=True)
    return str(program)


def sources_of(program, mutators):
    """What the program is made of: changed machines, what they need, and tests."""
    folder, tests, support = PROGRAMS[program]
    for one in mutators:
        if any(name == program for name, _ in MACHINES[one.path]):
            yield BUILD / one.path.replace("/", "_")
    yield from (ROOT / path for path in SUPPORT + support)
    yield from (path for path in sorted((ROOT / "tests" / folder).glob("*.cpp"))
                if re.fullmatch(tests, path.stem))


def build(mutators, programs, jobs):
    """The programs' paths by name."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for one in mutators:
        (BUILD / one.path.replace("/", "_")).write_text(one.written())
    sources = {name: list(sources_of(name, mutators)) for name in programs}
    work = sorted({source for of_one in sources.values() for source in of_one})
    todo = [(source, BUILD / (str(source.relative_to(ROOT)).replace("/", "_") + ".o"))
            for source in work]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        objects = dict(zip(work, pool.map(compile_one, todo)))
    return {name: link(name, [objects[source] for source in sources[name]]) for name in programs}


def bound_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def passes(command, number, limit_s):
    environment = {**os.environ, "TROUPE_MUTANT": str(number)}
    try:
        return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=limit_s,
                              preexec_fn=bound_memory).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--list", action="store_true", help="what would be removed, and no more")
    arguments = parser.parse_args()
    mutators, first = [], 0
    for path in MACHINES:
        mutators.append(mutator(path, first))
        first = mutators[-1].next
    chosen = [(one, number) for one in mutators if arguments.only in one.path
              for number in one.mutants]
    if arguments.list:
        for one, number in chosen:
            print(number, f"{one.path}:{one.mutants[number][1]}", *one.mutants[number][::2])
        return 0
    programs = build(mutators, {name for one, _ in chosen for name, _ in MACHINES[one.path]},
                     arguments.jobs)

    runs = {run: LIMIT_MOST_S for one, _ in chosen for run in MACHINES[one.path]}

    def is_green(run, number):
        return passes([programs[run[0]], "--gtest_brief=1", "--gtest_fail_fast=1",
                       f"--gtest_filter={run[1]}"], number, runs[run])

    for run in runs:
        begin = time.monotonic()
        if not is_green(run, -1):
            sys.exit("mutate-machines: the tests are red with nothing removed")
        took_s = arguments.jobs * (time.monotonic() - begin)
        runs[run] = min(LIMIT_MOST_S, max(LIMIT_LEAST_S, LIMIT_FACTOR * took_s))

    def survives(job):
        one, number = job
        return all(is_green(run, number) for run in MACHINES[one.path])

    alive = unexplained = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for (one, number), lives in zip(chosen, pool.map(survives, chosen)):
            if not lives:
                continue
            kind, line, text = one.mutants[number]
            reason = EXPLAINED.get((one.path, kind, text))
            alive += 1
            unexplained += reason is None
            print(f"{one.path}:{line}: {kind}: {text}: {reason or 'SURVIVES'}", flush=True)
    print(f"mutate-machines: {len(chosen)} changes, {len(chosen) - alive} turn tests red, "
          f"{alive - unexplained} are explained, {unexplained} survive")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
