import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import protembed

PACKAGE = Path(protembed.__file__).parent
# From the top: each part imports from those below it, and command folders never from each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    # A search embeds FASTA files and reads results of `embed`, so it stands above that command.
    ("search",),
    ("pretraining", "embedding", "finetuning", "scoring", "attention"),
    ("inference", "training"),
    ("model",),
    ("report",),
    ("data", "evaluation"),
    ("device",),
    ("resources",),
    ("config",),
    ("io",),
    ("errors",),
    ("callbacks", "text", "_version"),
)
COMMANDS = {"pretraining", "embedding", "finetuning", "scoring", "attention", "search"}
RANK = {part: -rank for rank, layer in enumerate(LAYERS) for part in layer}
CHANGES_A_PATH = re.compile(
    r".+\.(write_text|write_bytes|mkdir|touch|unlink|rmdir|rename|symlink_to|hardlink_to)"
    r"|os\.(remove|removedirs|renames|replace|makedirs|truncate)"
    r"|shutil\.(rmtree|move|copy\w*)",
    re.DOTALL,
)
UNPICKLERS = ("pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve", "runpy", "yaml")
RUNS = re.compile(
    rf"({'|'.join(UNPICKLERS)}|torch)\.(\w*load\w*|open|run_\w+)|torch\.(jit|hub|package)\..+"
    r"|(builtins\.)?(eval|exec|compile|__import__)|(importlib\.)?import_module"
)
LOOK_UPS = re.compile(r"\bos\.(environ|getenv|cpu_count|sched_getaffinity)|\btorch\.(cuda|mps|backends|set_\w+)")


def module_of(path):
    return ".".join(["protembed", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


# The package's own __init__ names the public modules lazily, so it stands above and below all others.
SOURCES = set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"}
TREES = {module_of(path): ast.parse(path.read_text()) for path in SOURCES}


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in TREES else str(node.module) for name in names)


def part_of(module):
    return module.split(".")[1]


ARROWS = {(module, name) for module, tree in TREES.items() for name in imports_of(tree)}
OWN_ARROWS = {(module, name) for module, name in ARROWS if name in TREES}
CALLS = [
    (module, ast.unparse(node.func), node)
    for module, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.Call)
]


def test_imports_form_no_cycle():
    TopologicalSorter({module: {name for one, name in OWN_ARROWS if one == module} for module in TREES}).prepare()


def goes_down(module, name):
    high, low = part_of(module), part_of(name)
    return RANK[high] > RANK[low] or high == low


def test_imports_go_down_never_up_or_sideways():
    assert {arrow for arrow in OWN_ARROWS if not goes_down(*arrow)} == set()


def test_command_folders_never_import_each_other_except_search_which_reads_embeddings():
    folders = {(part_of(module), part_of(name)) for module, name in OWN_ARROWS}

    found = {(high, low) for high, low in folders if {high, low} <= COMMANDS and high != low}
    assert found == {("search", "embedding")}


def test_the_command_line_imports_no_report_and_no_training():
    assert {
        arrow for arrow in OWN_ARROWS if part_of(arrow[0]) == "cli" and part_of(arrow[1]) in ("report", "training")
    } == set()


def test_model_imports_of_data_only_the_alphabet():
    taken = {name for module, name in OWN_ARROWS if (part_of(module), part_of(name)) == ("model", "data")}

    assert taken <= {"protembed.data.alphabet"}


def test_only_the_command_line_prints():
    talkers = {module for module, name in ARROWS if name.split(".")[0] in ("typer", "rich")}
    talkers |= {module for module, function, _ in CALLS if function == "print"}

    assert {module for module in talkers if part_of(module) != "cli"} == set()


def opens_for_writing(function, call):
    # A method's mode comes first, a function's second. An archive's member comes before its mode, which therefore does
    # not count: the stream of the archive was opened in io.writing.
    place = 1 if re.fullmatch(r"((io|os|gzip|bz2|lzma)\.)?open", function) else 0
    modes = [*call.args[place : place + 1], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return function.split(".")[-1] == "open" and any(re.fullmatch("[rbt]*[wax+][rwaxbt+]*", text) for text in texts)


def changes_a_path(function, call):
    replaces = function.endswith(".replace") and len(call.args) == 1 and not call.keywords
    return replaces or CHANGES_A_PATH.fullmatch(function) or opens_for_writing(function, call)


def test_paths_are_written_in_io_writing_alone():
    writers = {(module, function) for module, function, call in CALLS if changes_a_path(function, call)}

    assert {writer for writer in writers if writer[0] != "protembed.io.writing"} == set()
    assert ("protembed.io.writing", "source.replace") in writers


def test_errors_name_options_as_python_does():
    texts = {
        (module, part.value)
        for module, function, call in CALLS
        if function.endswith("Error") or function == "super().__init__"
        for part in ast.walk(call)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }

    assert {(module, text) for module, text in texts if re.search(r"(^|[\s(])--[a-z]", text)} == set()


@pytest.mark.promise(18)
def test_nothing_is_unpickled_or_evaluated():
    callers = {(module, function) for module, function, _ in CALLS if RUNS.fullmatch(function)}
    trusts = {
        (module, keyword.arg)
        for module, _, call in CALLS
        for keyword in call.keywords
        if (keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False")
        or keyword.arg in ("trust_remote_code", "weights_only")
    }
    imported = {arrow for arrow in ARROWS if arrow[1].split(".")[0] in UNPICKLERS}

    assert callers | trusts | imported == set()


def at_import(node):
    """Yield what runs when a module is imported: all but functions and imports for types."""
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not is_for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def test_importing_a_module_looks_up_neither_the_environment_nor_a_device():
    looked_up = {
        (module, ast.unparse(node))
        for module, tree in TREES.items()
        for node in at_import(tree)
        if isinstance(node, ast.Attribute) and LOOK_UPS.search(ast.unparse(node))
    }

    assert looked_up == set()


def imported_with(module):
    """List what importing a module imports, directly or through other modules of the package."""
    found, waiting = set(), [module]
    while waiting:
        trees = [node for node in at_import(TREES[waiting.pop()]) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = set(imports_of(ast.Module(trees, []))) - found
        found |= names
        waiting += names & TREES.keys()
    return found


LIGHT = ["config", "io", "data.fasta", "data.sequences", "data.windows", "data.hashing", "model.catalog"]


def test_what_looks_at_paths_sequences_and_options_imports_no_heavy_library():
    starts = tuple(f"protembed.{part}" for part in LIGHT)
    modules = {name for name in TREES if name.startswith(starts)} - {"protembed.io.arrays"}
    heavy = ("torch", "h5py", "scipy", "sklearn", "Bio", "matplotlib", "safetensors", "huggingface_hub")

    assert {
        (module, name) for module in modules for name in imported_with(module) if name.split(".")[0] in heavy
    } == set()


def test_sub_package_init_files_are_empty():
    assert [path for path in PACKAGE.glob("*/**/__init__.py") if path.read_text()] == []


@pytest.mark.parametrize(
    ("work", "absent"),
    [
        ("import protembed.cli.app", ["numpy", "torch"]),
        ("protembed.list_models()", ["torch"]),
        (
            "from protembed.embedding import embed, job; protembed.load_checkpoint()",
            ["huggingface_hub", "matplotlib", "sklearn", "torch._dynamo", "transformers"],
        ),
        # Every command as a function: paths and options are checked, and finished results are found, without torch.
        (
            "protembed.embed_fasta, protembed.check_embeddings, protembed.finetune_model, protembed.predict_fasta; "
            "protembed.join_embeddings, protembed.search_embeddings, protembed.make_map; "
            "protembed.score_variants, protembed.inspect_attention, protembed.pretrain_model",
            ["matplotlib", "scipy", "sklearn", "torch"],
        ),
    ],
    ids=["help", "models", "embed", "before computing"],
)
def test_light_commands_import_no_heavy_library(work, absent):
    code = f"import sys, protembed; {work}; print([name for name in {absent} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (result.stdout, result.stderr) == ("[]\n", "")
