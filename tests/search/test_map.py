import csv
import json
import re

import numpy as np
import pytest
from sklearn.decomposition import PCA

from protembed.config.embed import EmbedOptions
from protembed.config.map import MapConfig, MapOptions
from protembed.embedding.embed import embed_fasta
from protembed.errors import (
    ConfigError,
    DataError,
    OutputExistsError,
    TableError,
    UnusableResultError,
    VerificationError,
)
from protembed.search.annotations import Annotation, AnnotationTable
from protembed.search.map import make_map
from protembed.search.projection import PrincipalComponents, choose_projections, project
from protembed.search.vectors import Vectors

NUM_PROTEINS = 40


@pytest.fixture(scope="module")
def embedded(tiny_model, proteins, tmp_path_factory):
    """Embed some proteins with a tiny model; return the path of the result."""
    directory = tmp_path_factory.mktemp("embedded")
    fasta = directory / "proteins.fasta"
    fasta.write_text(
        "".join(f">p{number} protein {number}\n{sequence[:80]}\n" for number, sequence in enumerate(proteins[:40])),
        encoding="utf-8",
    )
    embed_fasta(fasta, EmbedOptions.from_values(model=tiny_model, output=directory / "p.npy"))
    return directory / "p.npy"


@pytest.fixture
def draw(embedded, tmp_path):
    def make(result=embedded, **options):
        return make_map(result, MapOptions.from_values(output=tmp_path / "map", perplexity=5, **options))

    return make


def page_data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1])


def write_labels(path, rows, header="id,family,mass"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_principal_components_are_those_of_scikit_learn_up_to_their_signs():
    vectors = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32) * np.arange(1, 13)
    components = PrincipalComponents(Vectors([vectors[:100], vectors[100:]]))

    expected = PCA(12, svd_solver="full").fit(vectors.astype(np.float64))

    scores = expected.transform(vectors)
    signs = np.sign((scores * components.scores).sum(0))
    np.testing.assert_allclose(components.scores, scores * signs, atol=1e-4)
    np.testing.assert_allclose(components.explained, expected.explained_variance_ratio_, rtol=1e-8)


def test_points_are_the_same_each_time():
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    components = PrincipalComponents(Vectors([vectors]))

    first, again = (project("tsne", components, MapConfig(perplexity=5)) for _ in range(2))

    assert first.tobytes() == again.tobytes()


def test_proteins_of_one_group_are_neighbours_on_the_map():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 25)
    vectors = (10 * rng.normal(size=(4, 16))[groups] + rng.normal(size=(100, 16))).astype(np.float32)

    points = project("tsne", PrincipalComponents(Vectors([vectors])), MapConfig(perplexity=10))

    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(100, np.inf))
    assert (groups[distances.argmin(1)] == groups).mean() > 0.95


@pytest.mark.parametrize(
    ("projection", "number", "expected"),
    [("auto", 1000, ["pca", "tsne"]), ("auto", 20, ["pca"]), ("pca", 1000, ["pca"]), ("tsne", 20_000, ["pca", "tsne"])],
)
def test_projection_fits_the_number_of_proteins(projection, number, expected):
    assert choose_projections(MapConfig(projection=projection), number) == expected


def test_many_proteins_are_drawn_by_umap_where_it_is_installed(monkeypatch):
    for spec, expected in ((object(), ["pca", "umap"]), (None, ["pca"])):
        monkeypatch.setattr("protembed.search.projection.find_spec", lambda name, spec=spec: spec)
        assert choose_projections(MapConfig(), 20_000) == expected


def test_umap_that_is_not_installed_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("protembed.search.projection.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install umap-learn"):
        choose_projections(MapConfig(projection="umap"), 1000)


def test_map_holds_every_protein_with_its_points_and_nearest(draw, embedded):
    summary = draw()

    with (summary.output / "points.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    data = page_data(summary.page)
    assert (summary.num_proteins, summary.projections) == (NUM_PROTEINS, ["pca", "tsne"])
    assert [row["id"] for row in rows] == data["ids"] == [f"p{number}" for number in range(NUM_PROTEINS)]
    assert list(rows[0]) == ["id", "pca_1", "pca_2", "tsne_1", "tsne_2"]
    assert (summary.output / "map.png").read_bytes().startswith(b"\x89PNG")
    assert data["descriptions"][:2] == ["protein 0", "protein 1"]  # without the identifier before it


def test_same_command_draws_nothing_again_and_another_needs_force(draw):
    first = draw()
    before = first.page.read_bytes()

    assert draw().was_done
    with pytest.raises(OutputExistsError):
        draw(projection="pca")
    again = draw(projection="pca", force=True)

    assert not again.was_done and again.page.read_bytes() != before


def test_same_command_gives_the_same_bytes(draw, tmp_path, embedded):
    first = draw()
    options = MapOptions.from_values(output=tmp_path / "other", perplexity=5)
    second = make_map(embedded, options)

    for name in ("map.html", "points.tsv", "map.png"):
        assert (first.output / name).read_bytes() == (second.output / name).read_bytes()


def test_columns_of_the_table_colour_the_points(draw, tmp_path):
    rows = [f"p{number},{'kinase' if number % 3 else 'protease'},{number / 7}" for number in range(30)]
    labels = write_labels(tmp_path / "labels.csv", rows)

    summary = draw(labels=labels, colour="mass")

    colourings = page_data(summary.page)["colourings"]
    assert [each["name"] for each in colourings] == summary.colours == ["mass", "family", "length"]
    assert colourings[1]["classes"] == ["kinase", "protease"]
    assert summary.num_labelled == 30
    assert summary.warnings == [f"10 proteins without a row in {labels}: shown in grey"]


def test_classes_are_counted_with_the_share_of_their_nearest_of_the_same_class(draw, tmp_path):
    rows = [f"p{number},{'a' if number < 20 else 'b'}" for number in range(NUM_PROTEINS)]

    page = draw(labels=write_labels(tmp_path / "labels.csv", rows, "id,family")).page.read_text(encoding="utf-8")

    assert "nearest is alike" in page and "50% of proteins drawn at random do" in page


@pytest.mark.parametrize(
    ("rows", "header", "options", "error", "message"),
    [
        (["q1,a"], "id,family", {}, TableError, "such as 'p0'; check the column of identifiers, or name it with `id`"),
        (["p1,a"], "key,family", {}, TableError, "no id column"),
        (["p1,a", "p1,b"], "id,family", {}, TableError, "line 3: 'p1' has an earlier row with other cells"),
        (["p1,a", "p2,b"], "id,family", {"colour": "size"}, ConfigError, "a column of labels.csv with classes"),
    ],
)
def test_unsuitable_table_is_an_error(draw, tmp_path, monkeypatch, rows, header, options, error, message):
    monkeypatch.chdir(tmp_path)
    write_labels(tmp_path / "labels.csv", rows, header)
    with pytest.raises(error, match=re.escape(message)):
        draw(labels="labels.csv", **options)


def test_sequences_are_on_the_page_so_that_a_selection_can_be_saved(draw, embedded, tmp_path):
    summary = draw(sequences=embedded.with_name("proteins.fasta"))

    sequences = page_data(summary.page)["sequences"]
    assert len(sequences) == NUM_PROTEINS and all(sequences)


def test_vectors_of_residues_and_too_few_proteins_are_errors(tiny_model, tmp_path, draw):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nMSILVTRP\n")
    embed_fasta(fasta, EmbedOptions.from_values(model=tiny_model, output=tmp_path / "two.npy"))
    options = EmbedOptions.from_values(model=tiny_model, output=tmp_path / "two.h5", per_residue=True)
    embed_fasta(fasta, options)

    with pytest.raises(DataError, match="it has 2 proteins; a map needs at least 3"):
        draw(tmp_path / "two.npy")
    with pytest.raises(UnusableResultError, match="a map shows proteins"):
        draw(tmp_path / "two.h5")


def test_page_as_output_is_an_error_that_names_the_directory(embedded, tmp_path):
    with pytest.raises(ConfigError, match="a directory is written"):
        make_map(embedded, MapOptions.from_values(output=tmp_path / "map.html"))


def test_changed_result_is_an_error_and_leaves_nothing(embedded, tmp_path):
    for file in embedded.parent.glob("p.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed = tmp_path / "p.npy"
    changed.write_bytes(changed.read_bytes()[:-4] + b"\0\0\0\0")

    with pytest.raises(VerificationError, match="hash"):
        make_map(changed, MapOptions.from_values(output=tmp_path / "map"))
    assert not (tmp_path / "map").exists() and not list(tmp_path.glob("*.partial"))


def test_identifiers_are_text_on_the_page(tiny_model, tmp_path):
    fasta = tmp_path / "hostile.fasta"
    names = ["</script><script>alert(1)</script>", "=cmd()", "<b>bold</b>", "plain"]
    fasta.write_text("".join(f">{name}\n{'MKTAYIAK' * (1 + number)}\n" for number, name in enumerate(names)))
    embed_fasta(fasta, EmbedOptions.from_values(model=tiny_model, output=tmp_path / "h.npy"))

    page = make_map(tmp_path / "h.npy", MapOptions.from_values(output=tmp_path / "map")).page

    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<b>bold" not in text
    assert page_data(page)["ids"] == names


@pytest.mark.parametrize(
    ("cells", "classes", "values"),
    [
        (["a", "b", "a", ""], ["a", "b"], None),
        (["1", "0", "1", "0"], ["0", "1"], None),
        (["0.5", "", "1.5", "nan"], [], [0.5, None, 1.5, None]),
    ],
)
def test_column_has_classes_or_values(cells, classes, values):
    annotation = Annotation.make("x", cells)
    assert (list(annotation.classes), annotation.values) == (classes, values)


@pytest.mark.parametrize("cells", [["same"] * 5, ["one", "two", "three", "four", "five", "six"], [""] * 3])
def test_column_that_says_nothing_about_groups_is_left_out(cells):
    assert Annotation.make("x", cells) is None


def test_rarest_of_many_classes_become_one():
    cells = [f"class {number}" for number in range(150) for _ in range(3)]
    annotation = Annotation.make("x", cells)
    assert len(annotation.classes) == 100 and annotation.classes[-1] == "other"
    assert max(annotation.codes) == 99


def test_table_is_found_by_any_usual_name_of_the_identifiers(tmp_path):
    path = write_labels(tmp_path / "labels.tsv", ["a\tx", "b\ty"], "Accession\tkind")
    table = AnnotationTable.read(path)
    assert (table.names, table.count(["a", "sp|b|B_HUMAN", "c"])) == (["kind"], 2)
