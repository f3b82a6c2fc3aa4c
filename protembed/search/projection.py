"""From vectors of many numbers to points on a plane: PCA, t-SNE and UMAP, each the same each time."""

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from protembed.config.map import MAX_TSNE_PROTEINS, MapConfig, ProjectionName
from protembed.errors import ConfigError
from protembed.search.protein_map import Points
from protembed.search.vectors import Vectors, blocks_of

# t-SNE and UMAP start from so many principal components, which hold most of the variance and take less time.
_NUM_COMPONENTS = 50
# Vectors that are read at once.
_BLOCK_ROWS = 8192
# t-SNE needs more points than its perplexity, and a map of fewer says nothing that PCA does not.
_MIN_POINTS_PER_NEIGHBOUR = 3


def choose_projections(config: MapConfig, num_proteins: int) -> list[ProjectionName]:
    """Choose which projections a map has: PCA, and at most one more, which is shown first.

    Raises:
        ConfigError: UMAP is requested, and not installed; or there are too few proteins for the request.
    """
    has_umap = find_spec("umap") is not None
    if config.projection == "umap" and not has_umap:
        raise ConfigError("projection", "umap", "the package umap-learn is needed: pip install umap-learn")
    is_small = num_proteins < _MIN_POINTS_PER_NEIGHBOUR * config.perplexity
    if config.projection == "auto":
        if is_small or (num_proteins > MAX_TSNE_PROTEINS and not has_umap):
            return ["pca"]
        return ["pca", "tsne" if num_proteins <= MAX_TSNE_PROTEINS else "umap"]
    if config.projection != "pca" and is_small:
        expected = f"{_MIN_POINTS_PER_NEIGHBOUR} times as many proteins are needed, and there are {num_proteins:,}"
        raise ConfigError("perplexity", config.perplexity, expected)
    return list(dict.fromkeys(("pca", config.projection)))


class PrincipalComponents:
    """The principal components of vectors.

    Args:
        vectors: The vectors, read a block at a time, twice.

    Attributes:
        scores: Each vector along the first components, (proteins, components), float32; less than 50 components if the
            vectors are narrower or fewer. The sign of a component is that of its largest weight.
        explained: The fraction of the variance along each of them, (components,), float64.
    """

    def __init__(self, vectors: Vectors) -> None:
        number, dim = len(vectors), vectors.dim
        mean = np.sum([block.sum(0) for _, block in blocks_of(vectors, _BLOCK_ROWS)], axis=0) / number
        covariance = np.zeros((dim, dim))
        for _, block in blocks_of(vectors, _BLOCK_ROWS):
            covariance += (block - mean).T @ (block - mean)
        variances, axes = np.linalg.eigh(covariance / number)
        axes = axes[:, ::-1][:, : min(_NUM_COMPONENTS, max(2, number - 1))]
        axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
        parts = [(block - mean) @ axes for _, block in blocks_of(vectors, _BLOCK_ROWS)]
        self.scores: Points = np.concatenate(parts).astype(np.float32)
        total = max(float(variances.sum()), np.finfo(np.float64).tiny)
        self.explained: NDArray[np.float64] = np.maximum(variances[::-1][: axes.shape[1]], 0) / total


def project(name: ProjectionName, components: PrincipalComponents, config: MapConfig) -> Points:
    """Compute points on a plane, (proteins, 2), float32.

    Source: van der Maaten and Hinton 2008 (t-SNE); McInnes, Healy and Melville 2018 (UMAP).
    """
    makers: Mapping[ProjectionName, Callable[[Points, MapConfig], Points]] = {
        "pca": lambda scores, _: scores[:, :2],
        "tsne": _tsne,
        "umap": _umap,
    }
    return np.ascontiguousarray(makers[name](components.scores, config), dtype=np.float32)


def _tsne(scores: Points, config: MapConfig) -> Points:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # One thread, because several add up the forces in an order that changes from run to run.
    with threadpool_limits(1):
        points: Points = TSNE(perplexity=config.perplexity, init="pca", random_state=0).fit_transform(scores)
    return points


def _umap(scores: Points, config: MapConfig) -> Points:
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value")  # a seed means one thread, as it should
        reducer = UMAP(n_neighbors=max(2, config.perplexity // 2), random_state=config.seed)
        points: Points = reducer.fit_transform(scores)
    return points
