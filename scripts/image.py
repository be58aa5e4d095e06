"""A root file system and an OCI image of troupe out of Debian packages: see scripts/image."""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
USER = 65532  # "nonroot", as the generated manifests have it
# What is opened by name at run time, and data: the rest follows from the program's libraries.
OPENED_BY_NAME = ("libucp.so.0",)  # --data-plane ucx
DATA_PACKAGES = ("ca-certificates",)
DROPPED = re.compile(
    r"usr/share/(?!doc/[^/]+(/copyright)?$)|usr/lib/[^/]+/(gconv|audit|engines-3)/|usr/s?bin/|"
    r"etc/(?!libibverbs\.d/)|var/|usr/lib/[^/]+/.*\.(a|la)$")


class ImageError(Exception):
    """One line for people."""


def run(*words, folder=None):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False,
                          env=os.environ | {"LC_ALL": "C"})
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ImageError(f"{' '.join(map(str, words))}: {' '.join(reason)}")
    return done.stdout


# --- packages ---------------------------------------------------------------------------------

def libraries_of(file):
    """Paths of the shared libraries that the loader finds for a file."""
    listed = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
    missing = re.findall(r"(\S+) => not found", listed)
    if missing:
        raise ImageError(f"{file} needs {missing[0]}, which is not installed")
    return {os.path.realpath(path) for path in re.findall(r"(/\S+) \(0x", listed)}


class Dpkg:
    """Which package owns a library. Its lists, read once: a query for each takes long."""

    def __init__(self):
        self.names = {}
        for entry in pathlib.Path("/var/lib/dpkg/info").glob("*.list"):
            for path in entry.read_text(encoding="utf-8").splitlines():
                if ".so" in path:
                    self.names[path] = entry.stem

    def owner(self, path):
        """The name of a library's package. dpkg knows some by their path without /usr."""
        for known in (path, path.removeprefix("/usr"), "/usr" + path):
            if known in self.names:
                return self.names[known].split(":")[0]
        raise ImageError(f"{path} belongs to no Debian package")

    def libraries(self, package):
        return {os.path.realpath(path) for path, name in self.names.items()
                if name.split(":")[0] == package and re.search(r"\.so(\.|$)", path)}


def named_library(name):
    found = re.search(rf"\b{re.escape(name)} .*=> (\S+)", run("/sbin/ldconfig", "-p"))
    if not found:
        raise ImageError(f"{name} is not installed (scripts/setup)")
    return os.path.realpath(found.group(1))


def needed_packages(binary):
    """All packages whose libraries the program needs, and those of what it opens by name."""
    dpkg = Dpkg()
    todo = libraries_of(binary) | {named_library(name) for name in OPENED_BY_NAME}
    packages, seen = set(DATA_PACKAGES), set()
    while todo:
        library = todo.pop()
        if library in seen:
            continue
        seen.add(library)
        package = dpkg.owner(library)
        if package not in packages:
            packages.add(package)
            todo |= dpkg.libraries(package)  # its plug-ins too
        todo |= libraries_of(library)
    return sorted(packages)


def download(package, folder):
    """The version that the program was built with, else, where that has gone, its successor."""
    version = run("dpkg-query", "-W", "-f", "${Version}\n", package).splitlines()[0]
    try:
        run("apt-get", "download", "-q", f"{package}={version}", folder=folder)
    except ImageError:
        run("apt-get", "download", "-q", package, folder=folder)


def unpack(packages, folder):
    """(name, version, architecture) of each, as it was unpacked."""
    described, todo, taken = [], list(packages), set()
    while todo:
        package = todo.pop(0)
        taken.add(package)
        with tempfile.TemporaryDirectory() as downloads:
            download(package, downloads)
            file, = pathlib.Path(downloads).iterdir()
            run("dpkg-deb", "-x", str(file), str(folder))
            fields = run("dpkg-deb", "-W", "--showformat=${Package}\t${Version}\t${Architecture}",
                         str(file))
        described.append(tuple(fields.strip().split("\t")))
        licence = folder / "usr/share/doc" / package
        if licence.is_symlink() and os.readlink(licence) not in taken | set(todo):
            todo.append(os.readlink(licence))  # it is in another package
    merge_usr(folder)
    authorities = sorted((folder / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = b"".join(path.read_bytes().rstrip(b"\n") + b"\n" for path in authorities)
    for path in sorted(folder.rglob("*"), reverse=True):
        inside = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif DROPPED.match(inside):
            path.unlink()
    write(folder / "etc/ssl/certs/ca-certificates.crt", bundle)
    return sorted(described)


def merge_usr(folder):
    """/lib and /lib64 are links into /usr, as on every Debian of today."""
    for name in ("lib", "lib64"):
        old = folder / name
        if old.is_dir() and not old.is_symlink():
            for path in sorted(old.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    continue
                new = folder / "usr" / path.relative_to(folder)
                new.parent.mkdir(parents=True, exist_ok=True)
                if not os.path.lexists(new):
                    os.replace(path, new)
            shutil.rmtree(old)
        if (folder / "usr" / name).is_dir() and not os.path.lexists(old):
            old.symlink_to(f"usr/{name}")


# --- what is in it ----------------------------------------------------------------------------

def crates():
    """(name, version, checksum) of the Rust crates that are linked in."""
    text = (ROOT / "models/text/Cargo.lock").read_text(encoding="utf-8")
    return re.findall(r'\[\[package\]\]\nname = "([^"]+)"\nversion = "([^"]+)"\n'
                      r'source = "[^"]+"\nchecksum = "([0-9a-f]+)"', text)


def spdx(packages, binary_digest, version, created):
    """https://spdx.github.io/spdx-spec/v2.3: what a scanner reads."""
    def entry(name, release, reference, **more):
        short = hashlib.sha256(reference.encode()).hexdigest()[:8]  # a_b and a-b differ
        return {"SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{name}-{short}"),
                "name": name, "versionInfo": release, "downloadLocation": "NOASSERTION",
                "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
                "copyrightText": "NOASSERTION", "filesAnalyzed": False,
                "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER",
                                  "referenceType": "purl", "referenceLocator": reference}]} | more

    own = entry("troupe", version, f"pkg:generic/troupe@{version}", licenseDeclared="Apache-2.0",
                checksums=[{"algorithm": "SHA256", "checksumValue": binary_digest}])
    parts = [entry(name, release, f"pkg:deb/debian/{name}@{release}?arch={architecture}")
             for name, release, architecture in packages]
    parts += [entry(name, release, f"pkg:cargo/{name}@{release}",
                    checksums=[{"algorithm": "SHA256", "checksumValue": checksum}])
              for name, release, checksum in crates()]
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"troupe-{version}",
            "documentNamespace": f"https://spdx.org/spdxdocs/troupe-{version}-{binary_digest}",
            "creationInfo": {"created": created, "creators": ["Tool: scripts/image"]},
            "documentDescribes": [own["SPDXID"]], "packages": [own] + parts,
            "relationships": [{"spdxElementId": own["SPDXID"], "relationshipType": "CONTAINS",
                               "relatedSpdxElement": part["SPDXID"]} for part in parts]}


def write(path, content, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def commit_time():
    """Seconds since 1970: SOURCE_DATE_EPOCH, else of the commit that is checked out."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or
               run("git", "log", "-1", "--format=%ct", folder=ROOT))


def version_of(binary):
    return run(str(binary), "--version").split()[-1]


def utc(seconds):
    return run("date", "-u", "-d", f"@{seconds}", "+%Y-%m-%dT%H:%M:%SZ").strip()


class RootFs:
    """Two folders: the packages, which change seldom, and the program."""

    def __init__(self, folder, binary):
        self.packages_folder, self.program_folder = folder / "packages", folder / "program"
        self.packages_folder.mkdir()
        self.packages = unpack(needed_packages(binary), self.packages_folder)
        self.version = version_of(binary)
        self.write_system_files()
        self.add_program(binary)

    def write_system_files(self):
        etc = self.packages_folder / "etc"
        write(etc / "passwd", f"root:x:0:0:root:/:/nonexistent\n"
                              f"nonroot:x:{USER}:{USER}:nonroot:/:/nonexistent\n")
        write(etc / "group", f"root:x:0:\nnonroot:x:{USER}:\n")
        write(etc / "nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        write(etc / "os-release", pathlib.Path("/etc/os-release").read_bytes())
        for name, version, architecture in self.packages:  # where scanners look without dpkg
            write(self.packages_folder / "var/lib/dpkg/status.d" / name,
                  f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n"
                  f"Architecture: {architecture}\n")
        (self.packages_folder / "tmp").mkdir(mode=0o1777)

    def add_program(self, binary):
        target = self.program_folder / "usr/bin/troupe"
        write(target, binary.read_bytes(), 0o755)
        run("strip", "--strip-unneeded", str(target))  # keeps the build id
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        write(self.program_folder / "usr/share/doc/troupe/copyright",
              (ROOT / "LICENSE").read_bytes())
        write(self.program_folder / "usr/share/sbom/troupe.spdx.json",
              json.dumps(spdx(self.packages, digest, self.version, utc(commit_time())), indent=1))


# --- the image --------------------------------------------------------------------------------

def layer(folder, seconds):
    """A tar of a folder that depends on its contents alone."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, arcname=path.relative_to(folder).as_posix())
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = seconds
            if entry.isreg():
                with open(path, "rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    return raw.getvalue()


class Layout:
    """https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md"""

    def __init__(self, folder):
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        write(folder / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}))

    def blob(self, media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        write(self.folder / "blobs/sha256" / digest, content)
        return {"mediaType": f"application/vnd.oci.image.{media_type}",
                "digest": f"sha256:{digest}", "size": len(content)}

    def add(self, folders, config, seconds, tag):
        layers, plain = [], []
        for folder in folders:
            content = layer(folder, seconds)
            plain.append("sha256:" + hashlib.sha256(content).hexdigest())
            packed = io.BytesIO()
            with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as out:
                out.write(content)
            layers.append(self.blob("layer.v1.tar+gzip", packed.getvalue()))
        config["rootfs"] = {"type": "layers", "diff_ids": plain}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.blob("config.v1+json", json.dumps(config).encode()),
                    "layers": layers}
        entry = self.blob("manifest.v1+json", json.dumps(manifest).encode())
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        write(self.folder / "index.json", json.dumps(
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [entry]}))
        return entry["digest"], sum(one["size"] for one in layers)


def make_image(arguments, files):
    seconds = commit_time()
    architecture = run("dpkg", "--print-architecture").strip()  # Debian's names are OCI's here
    config = {"created": utc(seconds), "architecture": architecture, "os": "linux",
              "config": {"User": f"{USER}:{USER}", "Entrypoint": ["/usr/bin/troupe"],
                         "Env": ["PATH=/usr/bin"], "WorkingDir": "/",
                         "Labels": {"org.opencontainers.image.title": "troupe",
                                    "org.opencontainers.image.version": files.version}}}
    target = pathlib.Path(arguments.folder)
    layout = Layout(target)
    digest, size = layout.add([files.packages_folder, files.program_folder], config, seconds,
                              arguments.tag or files.version)
    print(json.dumps({"digest": digest, "compressed_bytes": size,
                      "packages": len(files.packages), "folder": str(target)}))


def make_rootfs(arguments, files):
    for part in (files.packages_folder, files.program_folder):
        shutil.copytree(part, arguments.folder, symlinks=True, dirs_exist_ok=True)
    print(json.dumps({"folder": arguments.folder, "packages": len(files.packages)}))


def main():
    parser = argparse.ArgumentParser(prog="image", description=__doc__)
    parser.add_argument("folder", help="comes into being; is not there yet")
    parser.add_argument("--binary", default=str(ROOT / "build/bin/troupe"), help="[%(default)s]")
    parser.add_argument("--tag", help="reference name in the layout [the version]")
    parser.add_argument("--rootfs", action="store_true", help="the root file system alone")
    arguments = parser.parse_args()
    binary = pathlib.Path(arguments.binary)
    if not binary.is_file():
        raise ImageError(f"no program {binary}: scripts/build makes it")
    target = pathlib.Path(arguments.folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ImageError(f"{target} is there already")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        files = RootFs(pathlib.Path(folder), binary)
        (make_rootfs if arguments.rootfs else make_image)(arguments, files)


if __name__ == "__main__":
    try:
        main()
    except ImageError as problem:
        sys.exit(f"image: {problem}")
