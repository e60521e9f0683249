"""What source files import, Python and Cython alike: arrows between modules, circles, outside."""

import re
from pathlib import Path
from typing import NamedTuple

PYTHON, CYTHON = {".py", ".pyi"}, {".pyx", ".pxd", ".pxi"}
ROOT = "__init__"  # the name here of the package itself
STRING = re.compile(
    r"""(?P<quote>\"{3}|'{3})(?:\\.|[^\\])*?(?P=quote)"""
    r"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*""",
    re.S,
)
# At the start of a statement, or after the colon of an `if`.
IMPORT = re.compile(
    r"(?:^|[;:])[ \t]*(?:from[ \t]+(?P<source>[\w.]+)[ \t]+)?"
    r"c?import[ \t]+(?P<names>[^;\n]+)",
    re.M,
)
# By its name, in a string.
DYNAMIC = re.compile(r"\b(?:import_module|__import__)[ \t]*\([ \t]*[\"']([\w.]+)[\"']")


class Import(NamedTuple):
    """``from source import names``, or ``import source`` without names."""

    source: str
    names: tuple[str, ...] = ()


def code_of(text: str) -> str:
    """Return a source without comments and text in strings, a statement a line.

    Of strings, those remain that may name a module.
    """

    def plain(match: re.Match) -> str:
        found = match[0]
        if found.startswith("#"):
            return ""
        return found if re.fullmatch(r"([\"'])[\w.]*\1", found) else '""'

    code = STRING.sub(plain, text).replace("\\\n", " ")
    depth, found = 0, []
    for character in code:
        depth += (character in "([{") - (character in ")]}")
        found.append(" " if character == "\n" and depth > 0 else character)
    if depth:
        raise ValueError("brackets do not match")
    return "".join(found)


def imports_of(text: str, *, by_name: bool = True) -> list[Import]:
    """Return all imports and cimports: in functions, for types, and those by name in a string."""
    code, found = code_of(text), []
    for match in IMPORT.finditer(code):
        names = [
            part.split()[0] for part in match["names"].strip("() \t").split(",") if part.strip()
        ]
        if match["source"]:
            found.append(Import(match["source"], tuple(names)))
        else:
            found += [Import(name) for name in names]
    return found + [Import(name) for name in DYNAMIC.findall(code) if by_name]


class Package:
    """The source files of a package, by module: ``a/b.pyx`` and ``a/b.pxd`` are the module a.b.

    A folder is the module of its ``__init__.py``.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, root.name
        self.files: dict[str, list[Path]] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix in PYTHON | CYTHON:
                parts = path.relative_to(root).with_suffix("").parts
                if parts[-1] == "__init__" and len(parts) > 1:
                    parts = parts[:-1]
                self.files.setdefault(".".join(parts), []).append(path)

    def arrows(self) -> dict[str, set[str]]:
        """Return the modules of the package that each module imports, named as they are here."""
        return {
            module: {
                target
                for found in self._imports(module)
                for target in self._targets(found, module)
                if target != module
            }
            for module in self.files
        }

    def outside(self) -> dict[str, set[str]]:
        """Return the other packages that each module imports."""
        return {
            module: {
                found.source.partition(".")[0]
                for found in self._imports(module)
                if not self._is_inside(found)
            }
            for module in self.files
        }

    def is_folder(self, module: str) -> bool:
        return any(path.stem == "__init__" for path in self.files[module])

    def _imports(self, module: str) -> list[Import]:
        return [found for path in self.files[module] for found in imports_of(path.read_text())]

    def _is_inside(self, found: Import) -> bool:
        return found.source.startswith(".") or found.source.partition(".")[0] == self.name

    def _targets(self, found: Import, module: str) -> list[str]:
        if not self._is_inside(found):
            return []
        if found.source.startswith("."):
            folder = module.split(".") if module != ROOT else []
            up = len(found.source) - len(found.source.lstrip("."))
            up -= self.is_folder(module)
            base = folder[: len(folder) - up] + found.source.strip(".").split(".")
        else:
            base = found.source.split(".")[1:]
        base = [part for part in base if part]
        submodules = [".".join([*base, name]) for name in found.names]
        itself = ".".join(base) or ROOT
        return [name if name in self.files else itself for name in submodules] or [itself]


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules each of which imports the others, directly or not."""
    reached = {}
    for start in arrows:
        found, open_ones = set(), [start]
        while open_ones:
            for target in arrows.get(open_ones.pop(), set()) - found:
                found.add(target)
                open_ones.append(target)
        reached[start] = found
    groups = {
        tuple(sorted(b for b in reached if b in reached[a] and a in reached[b])) for a in reached
    }
    return sorted(list(group) for group in groups if group)


def unit_of(module: str, ranks: list[list[str]]) -> tuple[int, str]:
    """Return the rank of a module and its entry there, the longest that fits; or -1 and ""."""
    found = [
        (len(unit), rank, unit)
        for rank, units in enumerate(ranks)
        for unit in units
        if module == unit or module.startswith(f"{unit}.")
    ]
    return max(found)[1:] if found else (-1, "")


def upward_arrows(package: Package, ranks: list[list[str]], exempt: set[str]) -> list[str]:
    """Return the imports that do not go downwards, and the modules that have no rank.

    A module may import what is in its own entry and in lower ranks; a file beside folders, also
    other files of its rank. `exempt` modules are left out, as such and as what is imported.
    """
    found = []
    for module, targets in package.arrows().items():
        rank, unit = unit_of(module, ranks)
        if module in exempt:
            continue
        if rank < 0:
            found.append(f"{module} has no rank")
            continue
        for target in sorted(targets - exempt):
            other, its_unit = unit_of(target, ranks)
            files = not any("." in m or package.is_folder(m) for m in (module, target) if m)
            beside = other == rank and (unit == its_unit or files)
            if target not in package.files:
                found.append(f"{module} imports {target}, which is not there")
            elif other >= 0 and other <= rank and not beside:
                found.append(f"{module} imports {target}, of rank {other} from rank {rank}")
    return found
