#!/usr/bin/env python3
"""The image of scripts/image, without a container engine: what is in it, and that it answers.

    image_test.py TROUPE

Needs root (chroot), Debian's tools and their network; 77 says that one of them is missing.
"""

import ctypes
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SKIPPED = 77
USER = 65532
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18
QUESTION = ["generate", "demo", "--prompt", "What is a gang?", "--max-tokens", "16"]


def make(binary, folder):
    done = subprocess.run([ROOT / "scripts/image", folder, "--binary", binary],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


class Image(unittest.TestCase):
    binary = None

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="troupe-image-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.told = make(cls.binary, cls.folder / "layout")
        cls.root = cls.folder / "root"
        cls.layers = []
        index = cls.read_json("index.json")
        cls.manifest = cls.read_blob_json(index["manifests"][0])
        cls.config = cls.read_blob_json(cls.manifest["config"])
        for described in cls.manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(cls.read_blob(described)), mode="r:gz") as tar:
                cls.layers.append(tar.getmembers())
                tar.extractall(cls.root)
        for mounted in ("proc", "dev"):
            (cls.root / mounted).mkdir()

    @classmethod
    def read_json(cls, name):
        return json.loads((cls.folder / "layout" / name).read_text(encoding="utf-8"))

    @classmethod
    def read_blob(cls, described):
        algorithm, digest = described["digest"].split(":")
        content = (cls.folder / "layout/blobs" / algorithm / digest).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest and len(content) == described["size"]
        return content

    @classmethod
    def read_blob_json(cls, described):
        return json.loads(cls.read_blob(described))

    def start(self, *words, **more):
        """A process of the image as an engine would start it, but for its namespaces."""
        user, group = map(int, self.config["config"]["User"].split(":"))
        libc = ctypes.CDLL(None, use_errno=True)

        def enter():
            root = str(self.root).encode()
            failed = libc.unshare(CLONE_NEWNS)
            failed |= libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            for name in (b"proc", b"dev"):
                failed |= libc.mount(b"/" + name, root + b"/" + name, None, MS_BIND | MS_REC, None)
            if failed:
                raise OSError(ctypes.get_errno(), "mounts of the container")
            os.chroot(root)
            os.chdir(self.config["config"]["WorkingDir"])
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)

        environment = dict(one.split("=", 1) for one in self.config["config"]["Env"])
        return subprocess.Popen(words, preexec_fn=enter, env=environment, text=True,
                                stdin=subprocess.DEVNULL, **more)

    def test_answers_with_the_bits_of_the_program(self):
        here = subprocess.run([self.binary, *QUESTION], capture_output=True, text=True,
                              check=True).stdout
        entry = self.config["config"]["Entrypoint"]
        inside = self.start(*entry, *QUESTION, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = inside.communicate(timeout=120)
        self.assertEqual(inside.returncode, 0, error)
        self.assertEqual(out, here)

    def test_serves_a_gang(self):
        with self.start(*self.config["config"]["Entrypoint"], "serve", "demo", "--port", "0",
                        "--tensor-parallel-size", "2", "--state-dir", "/tmp/state",
                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            try:
                url = json.loads(server.stdout.readline())["url"]
                self.assertEqual(json.loads(server.stdout.readline())["event"], "ready")
                with urllib.request.urlopen(url + "/v1/models", timeout=30) as answer:
                    self.assertEqual(json.load(answer)["data"][0]["id"], "demo")
            finally:
                server.terminate()
            self.assertEqual(server.wait(60), 0)

    def test_every_library_finds_its_own(self):
        loader = next((self.root / "usr/lib").rglob("ld-linux*.so.*"))
        inside = "/" + loader.relative_to(self.root).as_posix()
        for library in sorted((self.root / "usr/lib").rglob("*.so.*")):
            if library.is_symlink() or library == loader:
                continue
            listed = self.start(inside, "--list", "/" + library.relative_to(self.root).as_posix(),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            out, _ = listed.communicate(timeout=60)
            self.assertNotIn("not found", out, library)
        self.assertTrue(list((self.root / "usr/lib").rglob("libucp.so.0")))

    def test_has_one_program_and_nothing_to_climb_on(self):
        programs = []
        for layer in self.layers:
            for entry in layer:
                self.assertEqual((entry.uid, entry.gid), (0, 0), entry.name)
                if entry.name == "tmp":
                    continue
                if not entry.issym():
                    self.assertFalse(entry.mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID
                                                   | stat.S_ISGID), entry.name)
                is_library = re.search(r"\.so(\.|$)", entry.name)
                if entry.isreg() and entry.mode & stat.S_IXUSR and not is_library:
                    programs.append(entry.name)
        self.assertEqual(programs, ["usr/bin/troupe"])
        self.assertEqual(self.config["config"]["User"], f"{USER}:{USER}")

    def test_lists_all_that_is_in_it(self):
        sbom = json.loads((self.root / "usr/share/sbom/troupe.spdx.json").read_text("utf-8"))
        self.assertEqual(sbom["spdxVersion"], "SPDX-2.3")
        ids = {package["SPDXID"] for package in sbom["packages"]}
        self.assertEqual(len(ids), len(sbom["packages"]))
        for relation in sbom["relationships"]:
            self.assertIn(relation["relatedSpdxElement"], ids)
        listed = {package["name"]: package for package in sbom["packages"]}
        known = {path.name for path in (self.root / "var/lib/dpkg/status.d").iterdir()}
        self.assertGreater(len(known), 10)
        self.assertLessEqual(known, set(listed))
        for name in known:
            self.assertTrue((self.root / "usr/share/doc" / name / "copyright").exists(), name)
        self.assertIn("tokenizers", listed)
        program = (self.root / "usr/bin/troupe").read_bytes()
        self.assertEqual(listed["troupe"]["checksums"][0]["checksumValue"],
                         hashlib.sha256(program).hexdigest())

    def test_comes_out_the_same_again(self):
        self.assertEqual(make(self.binary, self.folder / "again")["digest"], self.told["digest"])


def missing():
    if os.geteuid() != 0:
        return "chroot needs root"
    for tool in ("apt-get", "dpkg-deb", "ldd", "strip", "git"):
        if not shutil.which(tool):
            return f"there is no {tool}"
    with tempfile.TemporaryDirectory() as folder:
        reached = subprocess.run(["apt-get", "download", "-q", "ca-certificates"], cwd=folder,
                                 capture_output=True, check=False)
    return "" if reached.returncode == 0 else "Debian's packages cannot be reached"


if __name__ == "__main__":
    Image.binary = sys.argv.pop(1)
    if reason := missing():
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
