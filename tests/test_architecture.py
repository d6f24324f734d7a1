"""The shape of the program: one direction of imports, light importing, a known surface."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ballet_qa
from conftest import ROOT

PACKAGE = ROOT / "src" / "ballet_qa"
LAYERS = [
    {"types", "errors", "settings", "terminal"},
    {"words", "passages", "generation", "columns", "networks", "cores", "keys", "origins"}
    | {"metrics", "questions", "markup", "archives", "uploads"},
    {"fusion", "names", "terms", "texts", "vectors", "encoder", "cross_encoder", "epub", "pdf"}
    | {"page_inputs"},
    {"loaders", "index", "followups"},
    {"sections", "home"},
    {"shards", "extraction"},
    {"corpus"},
    {"build", "retriever", "reader"},
    {"answering", "doctor", "matches", "parts"},
    {"conversation", "evaluation", "library"},
    {"adding", "catalogue", "cluster_build"},
    {"render"},
    {"guard", "mcp_server"},
    {"page_routes", "connections"},
    {"ui", "api"},
    {"server"},
    {"cluster_serve"},
    {"cli"},
    {"__main__"},
]
HEAVY = {"torch", "transformers", "sentence_transformers", "faiss", "gradio", "tantivy", "fastapi"}
HEAVY |= {"onnxruntime", "tokenizers", "numpy", "rich", "pydantic", "jinja2"}


def imports_of(path: Path) -> set[str]:
    """The modules of this package that a file imports, inside functions too, but for type hints."""
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ballet_qa"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found |= {parts[1] for parts in names if parts[0] == "ballet_qa" and len(parts) > 1}
    return found - {"__version__"}


def test_every_module_has_its_layer() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set().union(*LAYERS)


def test_a_module_imports_from_lower_layers_only() -> None:
    upward = []
    for level, layer in enumerate(LAYERS):
        lower = set().union(*LAYERS[:level])
        for module in sorted(layer):
            wrong = imports_of(PACKAGE / f"{module}.py") - lower
            # types.Answer shows itself in a notebook by way of render, at call time.
            if module == "types":
                wrong -= {"render"}
            upward += [f"{module} imports {name}" for name in sorted(wrong)]
    assert upward == []


def test_gradio_is_imported_in_the_ui_alone() -> None:
    users = [
        p.name
        for p in PACKAGE.glob("*.py")
        if re.search(r"^\s*(import|from) gradio", p.read_text(), re.M)
    ]
    assert users == ["ui.py"]


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ballet_qa",
        "import ballet_qa.cli",
        "from typer.testing import CliRunner; from ballet_qa.cli import app; "
        "r = CliRunner().invoke(app, ['--help']); assert r.exit_code == 0; print(file=sys.stderr)",
    ],
)
def test_importing_and_help_are_light(code: str) -> None:
    assert loaded_by(code) & HEAVY == set()


TORCH = {"torch", "transformers", "sentence_transformers", "safetensors", "scipy", "sklearn"}
PAGE = {"gradio", "fastapi", "starlette", "uvicorn", "jinja2", "httpx", "pandas", "rich"}
READING_FILES = {"lxml", "mammoth", "pypdfium2", "striprtf", "markdown_it", "charset_normalizer"}


def test_the_retriever_is_imported_without_torch() -> None:
    loaded = loaded_by("from ballet_qa import Retriever, Answerer, build_index")
    assert loaded & (TORCH | PAGE) == set()


def asked_in_a_shell(index: Path) -> str:
    return (
        "from ballet_qa.cli import app; "
        f"app(['ask', 'Who owns the café?', '--index', {str(index)!r}], standalone_mode=False)"
    )


def test_a_question_in_a_shell_loads_what_it_needs_alone(seeds_index: Path) -> None:
    loaded = loaded_by(asked_in_a_shell(seeds_index))
    assert {"onnxruntime", "faiss", "tantivy", "tokenizers"} <= loaded
    assert loaded & (TORCH | PAGE | READING_FILES) == set()


def test_building_and_serving_load_no_torch(seeds_index: Path, tmp_path: Path) -> None:
    build = f"from ballet_qa import build_index; build_index({str(ROOT / 'seeds')!r}, "
    assert loaded_by(build + f"{str(tmp_path / 'index')!r})") & TORCH == set()
    serve = (
        "from ballet_qa.library import Library; from ballet_qa.server import create_app; "
        f"create_app(Library({str(seeds_index)!r}))"
    )
    assert loaded_by(serve) & (TORCH - {"safetensors"}) == set()


def test_the_page_is_imported_without_writing_stubs_of_gradio() -> None:
    """Half of Gradio's import is that; and what is patched against it is put back."""
    code = (
        "import ast, inspect; before = inspect.getfile; ast.get_source_segment = exit; "
        "import ballet_qa.ui; assert inspect.getfile is before"
    )
    assert "gradio" in loaded_by(code)


def test_the_exported_names() -> None:
    assert ballet_qa.__all__ == [
        "Answer",
        "Answerer",
        "BalletQAError",
        "BuildReport",
        "Citation",
        "Finding",
        "Hit",
        "Passage",
        "Retriever",
        "Story",
        "build_index",
    ]
    assert all(getattr(ballet_qa, name).__name__ == name for name in ballet_qa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ballet_qa.nothing  # noqa: B018


def readme_commands() -> list[str]:
    """The ``ballet-qa`` lines of the README's shell blocks."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("ballet-qa")]


def test_every_command_is_in_the_readme() -> None:
    told = {shlex.split(line)[1] for line in readme_commands()}
    assert told >= {"build", "search", "ask", "serve", "info", "evaluate", "doctor"}


def test_the_readmes_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.M), target
