"""Rules of the house that no linter knows."""

import ast
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAX_LINES = 400
# Folders of particular machines. Examples in docs are relative, or of a kind that no one has.
MACHINE_PATH = re.compile(r"(?<![\w.$}\])/-])/(?:home|root|Users|mnt|media|work|tmp)/\w")
# Text that decides where a package comes from.
SOURCES = re.compile(r"index-url|find-links|\[tool\.uv\.index|extra-index|https?://\S*/simple")


def files(*suffixes):
    """The repository's own files: what git tracks or would."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = [ROOT / name for name in listed.stdout.split("\0") if name.endswith(suffixes)]
    return [path for path in found if path.is_file()]


def test_no_file_is_longer_than_a_head_can_hold():
    long = {str(p.relative_to(ROOT)): n for p in files(".py") if (n := _lines(p)) > MAX_LINES}
    assert not long, f"split these (over {MAX_LINES} lines): {long}"


def _lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_paths_of_a_machine():
    texts = files(".py", ".md", ".toml", ".yml", ".yaml", ".json", "run", ".ipynb", ".txt")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def test_nothing_is_unpickled():
    words = re.compile(r"\bimport pickle\b|\bpickle\.load|allow_pickle\s*=\s*True|\bshelve\b")
    for path in files(".py"):
        if path != Path(__file__).resolve():
            assert not words.search(path.read_text(encoding="utf-8")), path


def test_no_large_files():
    """Shipped weights are a few MB; anything larger is a mistake."""
    large = {
        str(p.relative_to(ROOT)): p.stat().st_size for p in files("") if p.stat().st_size > 2**25
    }
    assert not large


# ---- names in prose ------------------------------------------------------------------------------

OURS = ("talkjax", "data_pipelines", "configs", "benchmarks", "tests")
BACKTICKED = re.compile(r"`+([^`\n]+)`+")
DOTTED = re.compile(rf"(?<![\w./-])(?:{'|'.join(OURS)})(?:\.[A-Za-z_]\w*)+(?![\w/])")
SHORT = re.compile(r"([A-Za-z_]\w*)((?:\.\w+)+)(?=\(|$)")
FILE_NAME = re.compile(r"\.(?:py|md|jsonl?|toml|safetensors)$")


def _defined(tree):
    """Names that the statements of a module or class define, with the nodes of its classes."""
    names = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).split(".")[0]: None for a in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = (n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
            names |= {n.id: None for n in found}
        elif isinstance(node, ast.If | ast.Try):
            names |= _defined(node)
    return names


def _resolves(name):
    """Whether a dotted name is a module of this repository or something defined in one."""
    path, parts = ROOT, name.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if parts and (path / f"{parts[0]}.py").is_file():
        path /= f"{parts.pop(0)}.py"
    elif (path / "__init__.py").is_file():
        path /= "__init__.py"
    elif parts:
        return False
    if not parts:
        return True
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = _defined(tree)
    if "__getattr__" in names:  # lazy exports are named in strings
        strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
        names |= {value: None for value in strings if isinstance(value, str)}
    for part in parts:
        if part not in names:
            return False
        node = names[part]
        if not isinstance(node, ast.ClassDef):
            return True  # attributes of an instance or of an imported name are not followed
        names = _defined(node)
    return True


def _imported(path):
    """What the names that a file imports from this project stand for."""
    if path.suffix != ".py":
        return {}
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    modules = (node for node in nodes if isinstance(node, ast.ImportFrom))
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in modules
        if (node.module or "").split(".")[0] in OURS
        for alias in node.names
    }


def _names_in_prose(path):
    """Yields (line number, name, what it stands for) of dotted names in backticks."""
    imported = _imported(path)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for span in BACKTICKED.findall(line):
            yield from ((number, name, name) for name in DOTTED.findall(span))
            if (short := SHORT.match(span)) and short[1] in imported:
                yield number, short[0], imported[short[1]] + short[2]


def test_names_in_prose_resolve():
    """Names of this project in backticks, whole, or short where a file imports their module."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in files(".py", ".md", ".toml")
        for number, name, meaning in _names_in_prose(path)
        if not FILE_NAME.search(name) and not _resolves(meaning)
    ]
    assert not wrong, "\n".join(wrong)


# ---- pins ---------------------------------------------------------------------------------------


def pins():
    """{package: {version: marker}}; a package may have one version for Python 3.11 alone."""
    found = {}
    for line in PROJECT["tool"]["uv"]["constraint-dependencies"]:
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        found.setdefault(requirement.name, {})[pin.version] = str(requirement.marker or "")
    return found


def test_pins_are_sorted_exact_and_without_addresses():
    names = list(pins())
    assert names == sorted(names) == [canonicalize_name(name) for name in names]
    markers = ['python_version < "3.12"', 'python_version >= "3.12"']
    for name, versions in pins().items():
        assert all(re.fullmatch(r"[0-9][0-9a-z.+]*", version) for version in versions), name
        assert list(versions.values()) in ([""], markers), name
    assert not SOURCES.search((ROOT / "pyproject.toml").read_text())
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "uv.lock" in ignored  # it would carry download addresses


def test_every_package_we_need_is_pinned():
    """Walks the installed packages from our requirements down."""
    project = PROJECT["project"]
    requirements = [
        *project["dependencies"],
        *(r for group in project["optional-dependencies"].values() for r in group),
        *(r for group in PROJECT["dependency-groups"].values() for r in group),
    ]
    todo = [(Requirement(text), "") for text in requirements]
    seen, missing, pinned, ours = set(), set(), pins(), project["name"]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in pinned and name != ours:
            missing.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                below = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # of an extra that is not installed
            todo += [(Requirement(text), wanted) for text in below]
    assert len(seen) > 50
    assert not missing


def test_the_lock_has_the_pinned_versions():
    path = ROOT / "uv.lock"
    if not path.exists():
        pytest.skip("no uv.lock: not run through uv")
    locked = {}
    for package in tomllib.loads(path.read_text())["package"]:
        if package["name"] != PROJECT["project"]["name"]:
            locked.setdefault(package["name"], set()).add(package["version"])
    pinned = {name: set(versions) for name, versions in pins().items()}
    assert locked == pinned, "renew constraint-dependencies from uv.lock"
