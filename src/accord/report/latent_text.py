"""What the report says about z, in one place: sentences for readers who meet it for the first time."""

from __future__ import annotations

LEAD = (
    "One x may have several right y's. z is what tells them apart: given y, the model infers it; without y, each z is one "
    "prediction. It may say only little, for a z that says everything would make every y look right."
)

KINDS = {
    "codebook": ("codes", "z is one of some learned codes, or a row of them"),
    "conditionalprior": ("codes, with a prior", "z is a learned code; how much it costs depends on x"),
    "gaussian": ("normal numbers", "z costs more the farther it is from 0"),
    "noisy": ("a noisy channel", "z arrives with noise, so it cannot say much"),
    "lowdimensional": ("few numbers", "z is free but narrow"),
    "sparse": ("sparse numbers", "few numbers of z are not 0; each costs"),
    "markov": ("codes in sequence", "the price of a code depends on the one before"),
    "gaussianwalk": ("a walk", "z changes slowly along a sequence"),
}
"""Kind of a latent by its name, and what it means."""

FINDERS = {
    "enumerate": ("trying all", "exact"),
    "coordinate": ("choice by choice", "from several starts"),
    "bestof": ("the best of some draws", "from the prior"),
    "descend": ("descent", "from several starts"),
    "ista": ("soft thresholding", "ISTA or FISTA"),
    "lista": ("a trained network", "LISTA: thresholding steps that were learned"),
    "amortize": ("a network's guess", "perhaps refined by a few steps"),
    "variational": ("a network", "that gives a distribution of z"),
    "langevin": ("particles", "annealed Langevin dynamics"),
    "viterbi": ("dynamic programming", "exact for a sequence"),
}
"""How z is found by the name of the minimiser, and a word about it."""

CHEATING = {
    "inferred": ("As it is", "z is inferred from the true y", "", ""),
    "prior": (
        "z is only guessed",
        "drawn from the prior, without a look at y",
        "higher: z says something about y",
        "hardly higher: z says nothing, the model averages (dead latent)",
    ),
    "permuted_x": (
        "x of another sample",
        "and z is inferred again, to make the best of it",
        "higher: y needs its own x",
        "hardly higher: z alone explains y, x does not matter (latent takes all)",
    ),
    "transplanted": (
        "z moved to another x",
        "z is kept as it was inferred for its own pair",
        "higher: z and x work together",
        "hardly higher: x does not matter",
    ),
}
"""Name and meaning of a way to tamper with a pair, and what follows if the energy rises and if it does not."""

PANELS = {
    "cheating": "Mean energies of held-out pairs. Each time a part of a pair is replaced, the energy should rise: if it does not, the "
    "part that was replaced was not needed.",
    "usage": "Share of held-out pairs for which a code is the best one. The dashed line is equal use; codes that are hardly ever "
    "used are grey.",
    "wells": "A walk in a straight line from one prediction of an x to another. Both ends are right answers and have no energy; the "
    "average in the middle is no answer, and is uphill. Other predictions on the way may have wells of their own. A model "
    "without z has its only valley near the middle.",
    "free_energy": "With more codes to choose from, the best one fits better. Where the line goes flat, more codes explain no more.",
    "auroc": "How often a random pair has more energy than a true one. If it falls to the right, z has become too powerful: it "
    "explains wrong pairs as well.",
}

PREDICTIONS = {
    "pictures": "First what is given, and what came true; then what the model holds possible. A prediction is a point among "
    "embeddings, so it is shown by the real y nearest to it in the training samples, large, and the next two, small. Below: how "
    "probable the prior finds it. The framed one (✓) is nearest to the truth.",
    "written": "What the model holds possible for some held-out samples: each prediction with its energy, how probable the prior "
    "finds it, and the training samples whose y is nearest to it. The one that is nearest to the truth is marked (✓).",
}
