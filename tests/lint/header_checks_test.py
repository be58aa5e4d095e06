#!/usr/bin/env python3
"""troupe_header_checks fails the build for a header that does not compile alone, and only then."""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(planted LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 20)
list(APPEND CMAKE_MODULE_PATH "{modules}")
include(header_checks)
troupe_header_checks(header_checks ROOT "${{CMAKE_SOURCE_DIR}}" FOLDERS base)
"""
ALONE = "#pragma once\n#include <string>\nstd::string name();\n"
NOT_ALONE = "#pragma once\nstd::string name();\n"
USES_A = '#pragma once\n#include "base/a.hpp"\n'
NOT_GUARDED = "struct twice {};\n"

options = None


class header_checks_test(unittest.TestCase):
    def build(self, headers):
        """Builds a project of these base/ headers; returns (exit status, output)."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "base").mkdir()
            (root / "CMakeLists.txt").write_text(PROJECT.format(modules=options.module_folder))
            for name, text in headers.items():
                (root / "base" / name).write_text(text)
            configured = subprocess.run(
                [options.cmake, "-S", root, "-B", root / "build", "-G", "Ninja",
                 f"-DCMAKE_CXX_COMPILER={options.compiler}"],
                capture_output=True, text=True, check=False)
            self.assertEqual(configured.returncode, 0, configured.stdout + configured.stderr)
            built = subprocess.run([options.cmake, "--build", root / "build"],
                                   capture_output=True, text=True, check=False)
            return built.returncode, built.stdout + built.stderr

    def test_passes_headers_that_compile_alone(self):
        status, output = self.build({"a.hpp": ALONE, "b.hpp": USES_A})
        self.assertEqual(status, 0, output)
        self.assertIn("a.cpp.o", output)

    def test_fails_for_a_header_that_lacks_an_include(self):
        status, output = self.build({"a.hpp": ALONE, "b.hpp": NOT_ALONE})
        self.assertNotEqual(status, 0)
        self.assertIn("base/b.hpp", output)

    def test_fails_for_a_header_without_a_guard(self):
        status, output = self.build({"b.hpp": NOT_GUARDED})
        self.assertNotEqual(status, 0)
        self.assertIn("redefinition", output)

    def test_leaves_a_header_with_a_source_to_that_source(self):
        status, output = self.build({"a.hpp": ALONE, "b.hpp": NOT_ALONE, "b.cpp": ""})
        self.assertEqual(status, 0, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--module-folder",
                        default=pathlib.Path(__file__).resolve().parents[2] / "cmake")
    options, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
