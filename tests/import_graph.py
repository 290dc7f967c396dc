"""Prints the import graph of the project's parts as a Mermaid diagram.

    uv run -m tests.import_graph

An arrow from A to B means that a module of A imports one of B. docs/architecture.md shows it.
"""

from tests.test_imports import ALLOWED, imports_of, layer_of, module_name, python_files

# Parts that nearly everything imports would hide the rest.
HIDDEN = {"talkjax.errors", "talkjax.files", "talkjax.commands", "talkjax.conventions"}


def edges() -> set[tuple[str, str]]:
    """Returns (part, imported part) of all imports between different parts."""
    found = set()
    for path in python_files():
        part = layer_of(module_name(path))
        for imported in imports_of(path):
            other = layer_of(imported)
            if part and other and part != other and not {part, other} & HIDDEN:
                found.add((part, other))
    return found


def main() -> None:
    """Prints the diagram."""
    print("graph TD")
    for part in sorted(set(ALLOWED) - HIDDEN):
        print(f"  {part.replace('.', '_')}[{part}]")
    for part, other in sorted(edges()):
        print(f"  {part.replace('.', '_')} --> {other.replace('.', '_')}")


if __name__ == "__main__":
    main()
