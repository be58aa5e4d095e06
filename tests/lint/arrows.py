"""Who may include and link whom: the arrows of docs/ARCHITECTURE.md, and who owns a third party."""

import re

from source import violation

# A folder -> the folders it may include. A header in place of a folder: only that header of it.
ARROWS = {
    "base": [],
    "schemas": ["base"],
    "kernels": ["base"],
    "transport": ["base", "schemas"],
    "supervisor": ["base", "schemas", "transport"],
    "net": ["base"],
    "models": ["base", "schemas", "kernels", "transport/collective.hpp"],
    "engine": ["base", "schemas", "kernels", "models", "transport"],
    "actors": ["base", "schemas", "kernels", "models", "transport", "engine"],
    "serving": ["base", "schemas", "net", "models/text", "actors"],
    "router": ["base", "net", "serving"],
    "lws": ["base", "schemas", "models", "net"],
}
# These join the parts: cli and examples may include all of the above, tests simply everything.
EVERYTHING = ["cli", "examples", "tests"]
FOLDERS = [*ARROWS, *EVERYTHING]

# A third party's include prefix -> the folders that own it ("*": any). Its tests may use it too.
THIRD_PARTY = {
    "tl/": ["base"],
    "spdlog/fmt/": ["*"],
    "spdlog/": ["base"],
    "fmt/": ["*"],
    "capnp/": ["schemas"],
    "kj/": ["schemas"],
    "hwy/": ["kernels"],
    "immintrin.h": ["kernels"],
    "x86intrin.h": ["kernels"],
    "cpuid.h": ["kernels"],
    "ucp/": ["transport"],
    "uct/": ["transport"],
    "ucs/": ["transport"],
    "nccl.h": ["kernels"],
    "openssl/": ["base", "transport", "net"],
    "boost/": ["net"],
    "nlohmann/": ["models", "serving", "router", "lws", "cli"],
    "yaml-cpp/": ["lws", "cli"],
    "caf/": ["actors"],
    "CLI/": ["cli"],
    "gtest/": [],
    "gmock/": [],
    "benchmark/": [],
}
TEST_LIBRARIES = ("gtest/", "gmock/", "benchmark/", "nlohmann/", "tl/")
CUDA = re.compile(r"^(cuda\w*|cublas\w*|mma|cooperative_groups|(cub|cuda|nvtx3)/.*)(\.h|\.hpp|$)")
# The operating system and the C library: <unistd.h>, <sys/mman.h>, ...
SYSTEM = re.compile(r"^(sys|linux|netinet|arpa|net|asm)/\w+\.h$|^[a-z_0-9]+\.h$")
GENERATED = re.compile(r"\.capnp\.h$")

# CMake targets of third parties -> the include prefix that stands for them in THIRD_PARTY.
LINKED = {
    "tl": "tl/", "spdlog": "spdlog/", "fmt": "fmt/", "CapnProto": "capnp/", "hwy": "hwy/",
    "ucx": "ucp/", "OpenSSL": "openssl/", "Boost": "boost/", "nlohmann_json": "nlohmann/",
    "yaml-cpp": "yaml-cpp/", "caf": "caf/", "CLI11": "CLI/", "GTest": "gtest/",
    "benchmark": "benchmark/",
}


def allowed(folder, target):
    """Whether a file of `folder` may include `target` (a path from the root)."""
    target_folder = target.split("/")[0]
    if folder in (target_folder, "tests"):
        return True
    if folder in EVERYTHING:
        return target_folder not in EVERYTHING
    return any(target == arrow or target.startswith(arrow + "/") for arrow in ARROWS[folder])


def owner_folder(path):
    """The folder whose third parties a file may use: tests/net/x_test.cpp -> net."""
    parts = path.split("/")
    return parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]


def third_party_prefix(name):
    return next((prefix for prefix in THIRD_PARTY if name.startswith(prefix)), None)


def check_ours(file, line, name, tree):
    if not allowed(file.folder, name):
        arrows = ARROWS.get(file.folder, FOLDERS[:-3]) or ["nothing of ours"]
        yield violation("arrows", file.path, line, f"{file.folder}/ may not include {name}; "
                        f"it may include {', '.join(arrows)}")
    elif name.endswith(".h") and not GENERATED.search(name) and file.folder != "tests" \
            and name.rpartition("/")[0] != file.path.rpartition("/")[0]:
        yield violation("third_party", file.path, line,
                        f"{name} is the C header of a part in another language: only its own "
                        "folder includes it")
    elif name not in tree.by_path and not GENERATED.search(name) \
            and not (tree.root / name).exists():
        yield violation("arrows", file.path, line, f"no file {name} (includes are from the root)")


def check_third_party(file, line, name):
    if CUDA.match(name):
        if file.suffix not in (".cu", ".cuh"):
            yield violation("third_party", file.path, line, f"{name}: CUDA only in .cu files")
        return
    prefix = third_party_prefix(name)
    if prefix is None:
        if "/" not in name and "." not in name or SYSTEM.match(name):
            return  # the standard library, the system
        yield violation("third_party", file.path, line,
                        f"{name} has no owner: name one in THIRD_PARTY of tests/lint/arrows.py")
        return
    owners = THIRD_PARTY[prefix]
    if "*" in owners or owner_folder(file.path) in owners:
        return
    if file.folder == "tests" and prefix in TEST_LIBRARIES:
        return
    if prefix == "benchmark/" and file.path.endswith(("_bench.cpp", "_bench.hpp")):
        return
    yield violation("third_party", file.path, line,
                    f"{name} belongs to {', '.join(owners) or 'tests'}, not to {file.folder}/")


def check_file(file, tree):
    if file.folder not in FOLDERS:
        yield violation("arrows", file.path, 1,
                        f"{file.folder or 'the root'} is no folder of the tree: give it a row in "
                        "ARROWS of tests/lint/arrows.py and in docs/ARCHITECTURE.md")
        return
    for line, name, quoted in file.includes:
        if GENERATED.search(name) and file.folder not in ("schemas", "tests"):
            yield violation("third_party", file.path, line, f"{name}: Cap'n Proto only in schemas/")
        elif name.split("/")[0] in FOLDERS and "/" in name and (quoted or name in tree.by_path):
            yield from check_ours(file, line, name, tree)
        elif quoted and third_party_prefix(name) is None:
            yield violation("arrows", file.path, line,
                            f'"{name}": includes of ours are written from the root')
        else:
            yield from check_third_party(file, line, name)


def own_header_first(tree):
    """foo.cpp includes foo.hpp first, which proves that foo.hpp compiles alone."""
    for file in tree.cpp:
        own = re.sub(r"\.cu$", ".cuh", re.sub(r"\.cpp$", ".hpp", file.path))
        if own == file.path or own not in tree.by_path:
            continue
        first = file.includes[0] if file.includes else (1, "nothing", True)
        if first[1] != own:
            yield violation("own_header_first", file.path, first[0],
                            f"the first include is {first[1]}, not its own header {own}")


def includes(tree):
    for file in tree.cpp:
        yield from check_file(file, tree)
    yield from own_header_first(tree)


# --- target_link_libraries agree with the includes --------------------------------------------

LINK_CALL = re.compile(r"\b(troupe_library|target_link_libraries|troupe_program)\s*\(([^)]*)\)")
NESTED = {"text": "models/text", "demo": "models/demo"}  # targets of folders within a folder
KEYWORDS = {"PUBLIC", "PRIVATE", "INTERFACE", "DEPS", "EXCLUDE"}


def target_folder(target):
    """troupe::models or troupe_models -> models; troupe::text -> models/text."""
    name = re.sub(r"^troupe(::|_)", "", target)
    return NESTED.get(name, name)


def link_calls(tree):
    """(file, line, folder of the target, its dependencies) of every link line outside tests/."""
    for file in tree.files:
        if not file.path.endswith("CMakeLists.txt") or file.folder == "tests":
            continue
        text = re.sub(r"#[^\n]*", "", file.text)
        for match in LINK_CALL.finditer(text):
            words = match.group(2).split()
            if words:
                line = text.count("\n", 0, match.start()) + 1
                yield file, line, [word for word in words[1:] if word not in KEYWORDS]


def linked_folders(tree):
    """folder -> the folders its CMakeLists.txt links, directly."""
    links = {}
    for file, _, dependencies in link_calls(tree):
        names = {target_folder(d) for d in dependencies if d.startswith("troupe")}
        links.setdefault(file.folder, set()).update(name.split("/")[0] for name in names)
    return links


def reachable(links, folder):
    seen, todo = set(), [folder]
    while todo:
        for linked in links.get(todo.pop(), ()):
            if linked not in seen:
                seen.add(linked)
                todo.append(linked)
    return seen


def check_link(file, line, dependency):
    if dependency.startswith("troupe"):
        linked = target_folder(dependency)
        top = linked.split("/")[0]
        if top not in FOLDERS:
            return  # troupe_options and targets inside one folder
        permitted = allowed(file.folder, linked) or any(  # an arrow to one header of it
            arrow.startswith(linked + "/") and arrow.endswith(".hpp")
            for arrow in ARROWS.get(file.folder, ()))
        if not permitted:
            yield violation("links", file.path, line, f"{file.folder}/ may not link {dependency}")
        return
    prefix = LINKED.get(dependency.split("::")[0])
    if prefix is None:
        return
    owners = THIRD_PARTY[prefix]
    if file.folder in owners or "*" in owners:
        return
    if prefix == "benchmark/":  # only benchmarks link it; their includes are checked
        return
    yield violation("links", file.path, line, f"{dependency} belongs to "
                    f"{', '.join(owners) or 'tests'}, not to {file.folder}/")


def links(tree):
    for file, line, dependencies in link_calls(tree):
        if file.folder not in FOLDERS:
            continue
        for dependency in dependencies:
            yield from check_link(file, line, dependency)
    linked = linked_folders(tree)
    for file in tree.cpp:
        if file.folder not in linked:
            continue
        reached = reachable(linked, file.folder) | {file.folder}
        for line, name, quoted in file.includes:
            top = name.split("/")[0]
            if quoted and top in ARROWS and top not in reached and name in tree.by_path:
                yield violation("links", file.path, line,
                                f"includes {name}, but {file.folder}/CMakeLists.txt does not link "
                                f"troupe::{top}")
