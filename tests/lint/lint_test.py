#!/usr/bin/env python3
"""Each rule of the lint catches what is planted against it, and lets the right thing pass."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import arrows
import formatting
import lint
import sizes
import tidy
from source import blank_literals

HEADER = "#pragma once\n"
OTHER_MACHINE = "/" + "home/someone/x"


def git(folder, *words):
    subprocess.run(["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t",
                    "-c", "commit.gpgsign=false", *words], check=True, capture_output=True)


def commit(folder):
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a change")


def lines(count, indent="  "):
    return f"{indent}++x;\n" * count


class planted(unittest.TestCase):
    """A tree of a few files in a folder of its own."""

    def found(self, files, base=None, rules=()):
        """The (rule, path) pairs that the lint finds in a tree of `files`: path -> text."""
        with tempfile.TemporaryDirectory() as folder:
            self.plant(folder, files)
            violations, _ = lint.lint(pathlib.Path(folder), rules, base)
        return sorted({(one.rule, one.path) for one in violations if one.rule != "architecture"})

    @staticmethod
    def plant(folder, files):
        for path, text in files.items():
            full = pathlib.Path(folder) / path
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(text)

    def assert_catches(self, rule, path, text, **others):
        self.assertEqual(self.found({path: text, **others.get("files", {})}), [(rule, path)])

    def assert_passes(self, path, text, **others):
        self.assertEqual(self.found({path: text, **others.get("files", {})}), [])


class arrows_test(planted):
    def test_the_table_has_no_cycle(self):
        order = list(arrows.ARROWS)
        for folder, targets in arrows.ARROWS.items():
            for target in targets:
                self.assertIn(target.split("/")[0], order)
                self.assertTrue(arrows.allowed(folder, target))
        done = set()
        while len(done) < len(order):  # takes away, again and again, what points only at done ones
            free = [folder for folder in order if folder not in done and
                    all(t.split("/")[0] in done for t in arrows.ARROWS[folder])]
            self.assertTrue(free, f"a cycle among {set(order) - done}")
            done.update(free)

    def test_catches_an_include_upwards(self):
        files = {"engine/step.hpp": HEADER}
        for folder in ("base", "kernels", "transport", "models"):
            self.assert_catches("arrows", f"{folder}/a.cpp", '#include "engine/step.hpp"\n',
                                files=files)
        self.assert_passes("actors/a.cpp", '#include "engine/step.hpp"\n', files=files)

    def test_catches_an_include_of_cli_or_of_tests(self):
        self.assert_catches("arrows", "engine/a.cpp", '#include "cli/flags.hpp"\n',
                            files={"cli/flags.hpp": HEADER})
        self.assert_catches("arrows", "cli/a.cpp", '#include "tests/tool.hpp"\n',
                            files={"tests/tool.hpp": HEADER})

    def test_lets_models_see_only_the_collective_of_transport(self):
        files = {"transport/collective.hpp": HEADER, "transport/threads.hpp": HEADER}
        self.assert_passes("models/a.cpp", '#include "transport/collective.hpp"\n', files=files)
        self.assert_catches("arrows", "models/a.cpp", '#include "transport/threads.hpp"\n',
                            files=files)

    def test_catches_a_folder_that_is_not_in_the_tree(self):
        self.assert_catches("arrows", "util/a.cpp", "int x;\n")
        self.assert_catches("arrows", "a.cpp", "int x;\n")

    def test_catches_includes_that_are_not_from_the_root(self):
        self.assert_catches("arrows", "base/a.cpp", '#include "error.hpp"\n',
                            files={"base/error.hpp": HEADER})
        self.assert_catches("arrows", "base/a.cpp", '#include "../base/error.hpp"\n',
                            files={"base/error.hpp": HEADER})
        self.assert_catches("arrows", "base/a.cpp", '#include "base/no_such.hpp"\n')

    def test_catches_an_own_header_that_is_not_first(self):
        files = {"base/a.hpp": HEADER}
        self.assert_catches("own_header_first", "base/a.cpp",
                            '#include <string>\n\n#include "base/a.hpp"\n', files=files)
        self.assert_passes("base/a.cpp", '#include "base/a.hpp"\n\n#include <string>\n',
                           files=files)

    def test_reads_no_include_in_a_comment(self):
        self.assert_passes("base/a.cpp",
                           '// #include "engine/a.hpp"\n/*\n#include <caf/all.hpp>\n*/\n')


class third_party_test(planted):
    OWNED = [("caf/all.hpp", "actors"), ("capnp/message.h", "schemas"), ("kj/io.h", "schemas"),
             ("ucp/api/ucp.h", "transport"), ("nccl.h", "kernels"), ("boost/asio.hpp", "net"),
             ("openssl/ssl.h", "net"), ("nlohmann/json.hpp", "models"), ("CLI/CLI.hpp", "cli"),
             ("hwy/highway.h", "kernels"), ("immintrin.h", "kernels"), ("yaml-cpp/yaml.h", "lws"),
             ("spdlog/spdlog.h", "base"), ("tl/expected.hpp", "base")]

    def test_catches_every_third_party_outside_its_owner(self):
        for name, owner in self.OWNED:
            with self.subTest(name):
                self.assert_passes(f"{owner}/a.cpp", f"#include <{name}>\n")
                self.assert_catches("third_party", "engine/a.cpp", f"#include <{name}>\n")

    def test_catches_gtest_outside_of_tests(self):
        self.assert_catches("third_party", "base/a.cpp", "#include <gtest/gtest.h>\n")
        self.assert_passes("tests/base/a_test.cpp", "#include <gtest/gtest.h>\n")

    def test_lets_tests_of_an_owner_use_its_third_party(self):
        self.assert_passes("tests/actors/a_test.cpp", "#include <caf/all.hpp>\n")
        self.assert_catches("third_party", "tests/engine/a_test.cpp", "#include <caf/all.hpp>\n")

    def test_catches_cuda_outside_of_cu_files(self):
        self.assert_catches("third_party", "kernels/a.cpp", "#include <cuda_runtime.h>\n")
        self.assert_passes("kernels/a.cu", "#include <cuda_runtime.h>\n")

    def test_catches_benchmark_outside_of_benchmarks(self):
        self.assert_catches("third_party", "kernels/a.cpp", "#include <benchmark/benchmark.h>\n")
        self.assert_passes("kernels/a_bench.cpp", "#include <benchmark/benchmark.h>\n")
        bench_header = "#pragma once\n#include <benchmark/benchmark.h>\n"
        self.assert_passes("kernels/a_bench.hpp", bench_header)

    def test_catches_a_third_party_without_owner(self):
        self.assert_catches("third_party", "base/a.cpp", "#include <absl/status/status.h>\n")
        self.assert_passes("base/a.cpp",
                           "#include <sys/mman.h>\n#include <unistd.h>\n#include <span>\n")

    def test_catches_generated_schemas_outside_of_schemas(self):
        self.assert_catches("third_party", "engine/a.cpp", '#include "schemas/wire.capnp.h"\n')

    def test_keeps_a_c_header_in_its_folder(self):
        files = {"models/text/crate.h": "int f();\n"}
        self.assert_passes("models/text/a.cpp", '#include "models/text/crate.h"\n', files=files)
        self.assert_catches("third_party", "models/a.cpp", '#include "models/text/crate.h"\n',
                            files=files)


class links_test(planted):
    def test_catches_a_link_upwards(self):
        self.assert_catches("links", "kernels/CMakeLists.txt",
                            "troupe_library(kernels DEPS troupe::base\n  troupe::engine)\n")
        self.assert_catches("links", "net/CMakeLists.txt",
                            "target_link_libraries(troupe_net PUBLIC troupe_actors)\n")
        self.assert_catches("links", "kernels/CMakeLists.txt",
                            "troupe_library(kernels DEPS troupe::text)\n")
        self.assert_passes("engine/CMakeLists.txt",
                           "troupe_library(engine DEPS troupe::models troupe::kernels)\n")
        self.assert_passes("serving/CMakeLists.txt", "troupe_library(serving DEPS troupe::text)\n")
        self.assert_catches("links", "serving/CMakeLists.txt",
                            "troupe_library(serving DEPS troupe::models)\n")

    def test_catches_a_third_party_linked_outside_its_owner(self):
        self.assert_catches("links", "engine/CMakeLists.txt",
                            "troupe_library(engine DEPS nlohmann_json::nlohmann_json)\n")
        self.assert_passes("models/CMakeLists.txt",
                           "troupe_library(models DEPS nlohmann_json::nlohmann_json)\n")

    def test_catches_an_include_that_is_not_linked(self):
        files = {"engine/CMakeLists.txt": "troupe_library(engine DEPS troupe::models)\n",
                 "models/CMakeLists.txt": "troupe_library(models DEPS troupe::base)\n",
                 "transport/collective.hpp": HEADER, "base/error.hpp": HEADER}
        self.assert_catches("links", "engine/a.cpp", '#include "transport/collective.hpp"\n',
                            files=files)
        self.assert_passes("engine/a.cpp", '#include "base/error.hpp"\n', files=files)

    def test_reads_no_link_in_a_comment(self):
        self.assert_passes("base/CMakeLists.txt", "# troupe_library(base DEPS troupe::engine)\n")


class sizes_test(planted):
    def function(self, body, head="void f(int x) "):
        return f"namespace a {{\n{head}{{\n{lines(body)}}}\n}}\n"

    def test_catches_a_function_of_71_lines(self):
        self.assert_passes("base/a.cpp", self.function(68))
        self.assert_catches("sizes", "base/a.cpp", self.function(69))

    def test_finds_functions_whatever_their_head(self):
        heads = ["foo::foo(int a) : a_{a}, b_{{1}, 2}, c_(3) ", "auto f() -> std::vector<int> ",
                 "bool operator==(const a& x) const noexcept ", "void operator()(int x) && ",
                 "template <class T>\n  requires(sizeof(T) > 1)\nT f(T x) ", "TEST(Grid, Cuts) ",
                 'extern "C" int f(void) ', "const auto f = [](int x) ", "int f(options o = {}) ",
                 "struct point f(struct point p) ", "HWY_ATTR void F(D d, float* HWY_RESTRICT x) ",
                 "class foo : bar {\n public:\n  explicit foo(int x) : bar{x} "]
        for head in heads:
            with self.subTest(head):
                text = self.function(69, head) + ("};\n" if head.startswith("class") else "")
                self.assert_catches("sizes", "base/a.cpp", text)

    def test_counts_no_scope_and_no_table_as_a_function(self):
        body = "int x(int y);\n" * 100
        for head in ("namespace b::c {", "struct alignas(64) s {", 'extern "C" {',
                     "template <class T>\n  requires(sizeof(T) > 1)\nclass c {",
                     "enum class e : int {", "struct s : std::array<int, 3> {"):
            with self.subTest(head):
                self.assert_passes("base/a.cpp", f"{head}\n{body}}};\n")
        self.assert_passes("base/a.cpp", "constexpr int x[] = {\n" + "f(1),\n" * 100 + "};\n")

    def test_counts_each_function_by_itself(self):
        self.assert_passes("base/a.cpp", self.function(40) + self.function(40))

    def test_reads_no_brace_in_comments_literals_and_macros(self):
        text = ("// {\n/* { */\nconst char* a = \"{\";\nconst char b = '{';\nint c = 1'000;\n"
                "const char* d = R\"x({ \")x\";\n#define TROUPE_A(x) \\\n  if (x) {\nint e;\n")
        self.assert_passes("base/a.cpp", text)
        self.assert_catches("sizes", "base/a.cpp", text + "}\n")

    def test_catches_long_files_by_their_kind(self):
        row = "int x(int y);\n"
        for path, limit in (("base/a.hpp", 250), ("base/a.cpp", 400), ("tests/base/a.cpp", 800),
                            ("scripts/a.py", 400)):
            text = "# x\n" if path.endswith(".py") else row
            first = HEADER if path.endswith(".hpp") else text
            with self.subTest(path):
                self.assert_passes(path, first + text * (limit - 1))
                self.assert_catches("sizes", path, first + text * limit)

    def test_catches_101_columns(self):
        self.assert_passes("base/a.cpp", "// " + "é" * 97 + "\n")
        self.assert_catches("sizes", "base/a.cpp", "// " + "é" * 98 + "\n")
        self.assert_catches("sizes", "scripts/run", "#!/bin/sh\n# " + "x" * 99 + "\n")

    def test_catches_a_long_python_function(self):
        body = "    x = 1\n" * 70
        self.assert_catches("sizes", "scripts/a.py", f"def f():\n{body}")

    def test_lets_a_ratchet_hold_what_is_larger_but_never_above_600(self):
        def held(count, value):
            return self.found({"base/a.cpp": "int x;\n" * count,
                               sizes.RATCHET: f"source base/a.cpp {value}  # split it\n"})
        self.assertEqual(held(500, 500), [])
        self.assertEqual(held(501, 500), [("sizes", "base/a.cpp")])
        self.assertEqual(held(499, 500), [("ratchet", sizes.RATCHET)])  # lower the number
        self.assertEqual(held(300, 500), [("ratchet", sizes.RATCHET)])  # remove the line
        self.assertEqual(held(601, 601), [("sizes", "base/a.cpp")])

    def test_catches_a_ratchet_that_grew_since_a_revision(self):
        files = {"base/a.cpp": "int x;\n" * 500, sizes.RATCHET: "source base/a.cpp 500\n"}
        with tempfile.TemporaryDirectory() as folder:
            self.plant(folder, files)
            git(folder, "init", "-q")
            commit(folder)
            root = pathlib.Path(folder)
            self.assertEqual(lint.lint(root, ["sizes"], "HEAD")[0], [])
            self.plant(folder, {"base/a.cpp": "int x;\n" * 501,
                                sizes.RATCHET: "source base/a.cpp 501\n"})
            self.assertEqual([v.rule for v in lint.lint(root, ["sizes"], "HEAD")[0]], ["ratchet"])

    def test_exempts_by_a_named_list_that_says_why(self):
        files = {"kernels/a.cpp": self.function(90, "void hot(int x) ")}
        files[sizes.EXEMPT] = "function kernels/a.cpp:hot  # one unrolled tile loop\n"
        self.assertEqual(self.found(files), [])
        files[sizes.EXEMPT] = "function kernels/a.cpp:hot\n"
        self.assertEqual(self.found(files), [("exempt", sizes.EXEMPT)])


class words_test(planted):
    def test_catches_what_is_left_over(self):
        for word in ("TODO" + "(now): x", "FIX" + "ME", "X" * 3, "TO" + "DO later"):
            with self.subTest(word):
                self.assert_catches("todo", "base/a.cpp", f"// {word}\n")
        self.assert_passes("base/a.cpp", "// TODO(speed): keep the table\n")
        self.assert_passes("docs/a.md", "`TODO(now)` fails the lint\n")

    def test_catches_paths_of_one_machine(self):
        for text in (f'const char* x = "{OTHER_MACHINE}";\n', f"// see {OTHER_MACHINE}\n"):
            self.assert_catches("machine_path", "base/a.cpp", text)
        self.assert_catches("machine_path", "docs/a.md", f"cd {OTHER_MACHINE}\n")
        self.assert_passes("docs/a.md", "~/home/x $HOME/mnt/x a/home/x https://x.y/home/z\n")
        self.assert_passes("tests/golden/text/vocabulary.json", f'["{OTHER_MACHINE}"]\n')

    def test_catches_wall_time_in_logic(self):
        for text in ("auto t = std::chrono::system_clock::now();\n", "auto t = time(nullptr);\n"):
            self.assert_catches("system_clock", "engine/a.cpp", text)
            self.assert_passes("base/clock.cpp", text)
        self.assert_passes("engine/a.cpp", "// no system_clock here\n")

    def test_catches_a_clock_in_a_machine(self):
        self.assert_catches("machine_clock", "actors/leader/leader_machine.cpp",
                            "auto t = std::chrono::steady_clock::now();\n")

    def test_catches_unseeded_chance(self):
        for path in ("tests/base/a_test.cpp", "engine/a.cpp"):
            self.assert_catches("random_device", path, "std::random_device device;\n")
        self.assert_passes("base/random.cpp", "std::random_device device;\n")

    def test_catches_sleeps_in_tests(self):
        for path, text in (("tests/a/a_test.cpp", "std::this_thread::sleep_for(1s);\n"),
                           ("tests/a/a_test.cpp", "usleep(1);\n"),
                           ("tests/a/run.py", "import time\ntime.sleep(1)\n"),
                           ("tests/a/run.sh", "#!/bin/sh\nsleep 1\n")):
            with self.subTest(text):
                self.assert_catches("sleep", path, text)
        self.assert_passes("tests/a/a_test.cpp", "TEST(Pool, WorkersSleep) { pool.sleepers(); }\n")

    def test_catches_tests_that_prove_nothing(self):
        for text in ("TEST(A, DISABLED_B) {}\n", "EXPECT_TRUE(true);\n"):
            self.assert_catches("no_proof", "tests/base/a_test.cpp", text)

    def test_catches_fast_math(self):
        self.assert_catches("fast_math", "kernels/CMakeLists.txt", "add_options(-ffast-math)\n")

    def test_catches_macros_of_other_names(self):
        self.assert_catches("macros", "base/a.hpp", HEADER + "#define CHECK(x) x\n")
        self.assert_passes("base/a.hpp", HEADER + "#define TROUPE_CHECK(x) x\n")
        self.assert_passes("kernels/a.cpp", "#define HWY_TARGET_INCLUDE x\n")

    def test_catches_a_header_without_pragma_once(self):
        self.assert_catches("pragma_once", "base/a.hpp", "int x;\n")

    def test_catches_a_folder_that_the_architecture_does_not_tell_of(self):
        with tempfile.TemporaryDirectory() as folder:
            self.plant(folder, {"base/a.cpp": "int x;\n", "docs/ARCHITECTURE.md": "docs/\n"})
            found, _ = lint.lint(pathlib.Path(folder), ["architecture"])
            self.assertEqual([one.message for one in found], ["does not mention base/"])
            self.plant(folder, {"docs/ARCHITECTURE.md": "docs/ base/\n"})
            self.assertEqual(lint.lint(pathlib.Path(folder), ["architecture"])[0], [])

    def test_catches_a_document_that_names_a_test_that_is_not_there(self):
        with tempfile.TemporaryDirectory() as folder:
            self.plant(folder, {"tests/net/a_test.cpp": "TEST_P(Suite, One) {}\n",
                                "docs/a.md": "`net.Suite.One` and `net.Suite.Two`, `a.B.C`\n"})
            found, _ = lint.lint(pathlib.Path(folder), ["named_tests"])
            self.assertEqual([one.message for one in found], ["no test is named net.Suite.Two"])


@unittest.skipUnless(formatting.installed(), f"no clang-format {formatting.VERSION}")
class formatting_test(planted):
    def test_catches_unformatted_code(self):
        style = {".clang-format": "BasedOnStyle: Google\n"}
        self.assert_catches("format", "base/a.cpp", "int   x;\n", files=style)
        self.assert_passes("base/a.cpp", "int x;\n", files=style)

    def test_needs_clang_format_in_ci_only(self):
        style = {".clang-format": "BasedOnStyle: Google\n"}
        with unittest.mock.patch.object(formatting, "installed", lambda: None):
            with unittest.mock.patch.dict("os.environ", {"CI": "true"}):
                self.assert_catches("format", ".clang-format", style[".clang-format"])
            with unittest.mock.patch.dict("os.environ", {"CI": ""}):
                self.assert_passes(".clang-format", style[".clang-format"])


class tidy_test(planted):
    """Which sources clang-tidy is given, and in which order."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name).resolve()
        self.build = self.root / "build"
        check = self.build / "tests/lint/header_checks/base/ids.cpp"
        files = [self.root / "base/a.cpp", self.root / "base/b.cpp", check]
        self.plant(self.root, {
            "base/a.cpp": "", "base/a.hpp": "", "base/b.cpp": "", "base/ids.hpp": "",
            ".gitignore": "build/\n", "build/compile_commands.json": json.dumps(
                [{"directory": str(self.build), "file": str(file)} for file in files])})
        git(self.root, "init", "-q")
        commit(self.root)

    def chosen(self, base):
        return [path.name for path in tidy.to_check(self.root, self.build, base)]

    def test_takes_what_changed_and_a_source_for_a_changed_header(self):
        self.assertEqual(self.chosen("HEAD"), [])
        self.plant(self.root, {"base/a.hpp": "int x;\n"})
        self.assertEqual(self.chosen("HEAD"), ["a.cpp"])
        commit(self.root)
        self.plant(self.root, {"base/ids.hpp": "int x;\n", "docs/a.md": "x\n"})
        self.assertEqual(self.chosen("HEAD"), ["ids.cpp"])
        self.assertEqual(sorted(self.chosen("HEAD~1")), ["a.cpp", "ids.cpp"])

    def test_takes_all_without_a_base_the_last_committed_first(self):
        self.plant(self.root, {"base/b.cpp": "int x;\n"})
        commit(self.root)
        self.assertEqual(sorted(self.chosen(None)), ["a.cpp", "b.cpp", "ids.cpp"])
        self.assertEqual(self.chosen(None)[0], "b.cpp")


class literals_test(unittest.TestCase):
    def test_blanks_comments_and_literals_and_keeps_lines(self):
        text = 'a = "x\\"y"; // z\nb = R"(\n")"; /* c\n*/ d = 1\'000 + \'"\' ;\n'
        blank = blank_literals(text)
        self.assertEqual(blank.count("\n"), text.count("\n"))
        self.assertEqual(len(blank), len(text))
        for letter in "xyzc":
            self.assertNotIn(letter, blank)
        self.assertIn("d = 1'000 + ' ' ;", blank)


if __name__ == "__main__":
    sys.exit(unittest.main())
