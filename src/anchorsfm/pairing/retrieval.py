"""How alike photographs are, from the descriptors that are computed anyway.

Aggregated selective match kernels (ASMK: Tolias, Avrithis, Jegou, "Image search with selective match kernels:
aggregation across single and multiple images", IJCV 2016). A vocabulary of `NUM_WORDS` centres is found by k-means on a
sample of the set itself, so there is nothing to download and photographs of any kind have one of their own. Every
descriptor of a photograph belongs to its nearest word; the differences from the word's centre are summed up and made to
length 1, so that repeated structure counts once. The similarity of two photographs is the sum over the words they share
of the cube of the cosine between these sums (0 where it is negative), weighted by the square of the word's inverse
document frequency, and divided by the roots of both photographs' similarities with themselves: 0 to 1.

Words are gone through one after the other, each with the photographs that have it (an inverted file).
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Num

from anchorsfm.features.base import Features
from anchorsfm.features.store import FeatureStore
from anchorsfm.scene.progress import Progress

NUM_WORDS = 1024
MAX_DESCRIPTORS = 1000
"""Of a photograph: those of the best score, which for SIFT are the largest image structures."""
TRAINING_PER_WORD = 30
"""Descriptors that a centre is the mean of, before and on average; they come evenly from all photographs."""
LLOYD_ROUNDS = 4
SELECTIVITY = 3
"""Power of the cosine."""


def image_similarity(
    features: FeatureStore, progress: Progress, num_workers: int
) -> Float32[np.ndarray, "image image"]:
    """Similarity of every two photographs, 0 to 1; 0 for those without keypoints.

    The order of the photographs does not matter beyond rounding.

    Raises InputError if a photograph cannot be read.
    """
    strongest = features.each(_strongest, "finding keypoints", progress, num_workers)
    order = np.argsort(np.array(features.images.digests), kind="stable")
    centre = _vocabulary([strongest[image] for image in order])
    aggregated = [_aggregate(descriptor, centre) for descriptor in strongest]
    del strongest
    return _kernel([word for word, _ in aggregated], [vector for _, vector in aggregated], len(centre))


def _strongest(features: Features) -> Num[np.ndarray, "chosen width"]:
    return features.descriptor[np.argsort(-features.score, kind="stable")[:MAX_DESCRIPTORS]]


def _unit(descriptor: Num[np.ndarray, "descriptor width"]) -> Float[torch.Tensor, "descriptor width"]:
    return torch.nn.functional.normalize(torch.from_numpy(descriptor).float(), dim=1)


def _vocabulary(descriptors: list[Num[np.ndarray, "_ width"]]) -> Float[torch.Tensor, "word width"]:
    """Unit vectors by spherical k-means, from evenly spaced descriptors."""
    present = [descriptor for descriptor in descriptors if len(descriptor)]
    if not present:
        return torch.zeros(0, descriptors[0].shape[1] if descriptors else 1)
    count = -(-NUM_WORDS * TRAINING_PER_WORD // len(present))
    spread = [d[np.linspace(0, len(d) - 1, min(count, len(d))).astype(int)] for d in present]
    sample = torch.cat([_unit(descriptor) for descriptor in spread])
    num_words = min(NUM_WORDS, -(-len(sample) // TRAINING_PER_WORD))
    centre = sample[torch.linspace(0, len(sample) - 1, num_words).long()]
    for _ in range(LLOYD_ROUNDS):
        word = _nearest(sample, torch.nn.functional.normalize(centre, dim=1))
        centre = torch.zeros_like(centre).index_add_(0, word, sample)
    return torch.nn.functional.normalize(centre, dim=1)


def _nearest(
    unit: Float[torch.Tensor, "descriptor width"], centre: Float[torch.Tensor, "word width"]
) -> Int[torch.Tensor, "descriptor"]:
    return torch.cat([(part @ centre.T).argmax(1) for part in unit.split(4096)])


def _aggregate(
    descriptor: Num[np.ndarray, "descriptor width"], centre: Float[torch.Tensor, "word width"]
) -> tuple[Int[np.ndarray, "own_word"], Float[torch.Tensor, "own_word width"]]:
    """Words of a photograph, and the direction in which its descriptors differ from each (half precision)."""
    if not len(descriptor):
        return np.zeros(0, np.int64), torch.zeros(0, centre.shape[1], dtype=torch.float16)
    unit = _unit(descriptor)
    nearest = _nearest(unit, centre)
    word, row = torch.unique(nearest, return_inverse=True)
    total = torch.zeros(len(word), unit.shape[1]).index_add_(0, row, unit - centre[nearest])
    return word.numpy(), torch.nn.functional.normalize(total, dim=1).half()


def _kernel(
    words: list[Int[np.ndarray, "_"]], vectors: list[Float[torch.Tensor, "_ width"]], num_words: int
) -> Float32[np.ndarray, "image image"]:
    """The normalised similarities."""
    num_images = len(words)
    similarity = np.zeros((num_images, num_images), np.float32)
    image = np.repeat(np.arange(num_images), [len(word) for word in words])
    word, vector = np.concatenate([np.zeros(0, np.int64), *words]), torch.cat(vectors) if vectors else torch.zeros(0, 1)
    by_word = np.argsort(word, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(word, minlength=num_words))])
    for low, high in zip(start[:-1].tolist(), start[1:].tolist(), strict=True):
        if high > low:
            rows = by_word[low:high]
            having = vector[torch.from_numpy(rows)].float()
            weight = np.log(num_images / len(rows)) ** 2
            cosine = (having @ having.T).clamp_min(0).numpy()
            similarity[np.ix_(image[rows], image[rows])] += np.float32(weight) * cosine**SELECTIVITY
    norm = np.sqrt(np.maximum(np.diag(similarity), np.float32(1e-12)))
    normalised = similarity / (norm[:, None] * norm[None])
    return np.maximum(normalised, normalised.T)  # products of matrices may round differently in both triangles
