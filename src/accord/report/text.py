"""What the report explains, in one place: sentences for readers who meet these figures for the first time."""

from __future__ import annotations

LEADS = {
    "probes": "A probe is a simple classifier trained on frozen features. If it does better on the features than on the "
    "input itself, the encoder has made something easier to read.",
    "training": "How the run went, step by step. Point at a curve to read its values.",
    "energy": "The energy of a pair is low where the two belong together and high where they do not. The less the two "
    "hills overlap, the better the model tells them apart.",
    "surprise": "Where in time the energy of windows is high: there the series is not as training led the model to expect.",
    "futures": "What the model holds possible after each held-out past, read out as values, and held against what came.",
    "spectrum": "If the embeddings collapsed on to a few directions, or one point, they would say little about the "
    "samples. These figures would show it.",
    "map": "To the model every sample is a point in a space of many dimensions; this is its shadow in two.",
    "neighbours": "First a held-out sample, then those that the model finds most alike.",
    "pairs": "Pairs of two views of one held-out sample, in order of their energy: the figure below each pair.",
    "written pairs": "Two views of one held-out sample make a pair; these are the extremes of its energy.",
    "reproduce": "The commands that give this run and this page again.",
}

NO_LABELS = "This data has no labels, so there is nothing to probe. Nothing else on this page needs them."
NO_LOG = "This run has no training log (metrics.jsonl)."
NOT_EVALUATED = (
    "This run has been trained but not tested. `accord evaluate RUN` measures it; `accord report RUN` then writes this "
    "page again with all that it found."
)
NOTHING_MEASURED = "The evaluation holds none of the headline figures."

EXPLAIN = {
    "bars": "Longer is better. Whiskers are one standard deviation over draws of labels.",
    "gain": "“Gain” is learned features minus the best of the others, in percentage points.",
    "events": "Dashed upright lines mark what happened on the way:",
    "surprise": "0 is the usual energy of a held-out window, 1 (dashed) what one window in a hundred exceeds. The line shows where "
    "surprise is; whether there is any, only labels can tell.",
    "futures": "In the units of the data, means over {rows} held-out windows. minADE: how far the best hypothesis is from what came, "
    "mean over its steps; minFDE: at the last step; CRPS: all hypotheses as a distribution (for one, the mean error). More hypotheses "
    "make the best one better: compare minADE for equal numbers. The linear readout explains {r2} of the variance of training futures.",
    "futures standardised": "The same, each channel divided by its standard deviation over the training futures: all channels count "
    "alike, whatever their units, as where forecasts of standardised data are compared.",
    "constant channels": " Of {channels} channels, {constant} did not vary in training and are left out.",
    "crps fair": "CRPS of the hypotheses as independent draws of equal weight (fair): {fair}.",
    "ladder": "Gap: how far the mean energy lies above that of matched pairs. AUROC: share of comparisons in which the "
    "mismatch has the higher energy. d′: the gap in standard deviations.",
    "spectrum": "How much of the embedding lies along each of its directions, greatest first. A flat line uses all of "
    "them, a cliff only those before it. The dashed line is the effective rank.",
    "colours": "Colours and shapes are the labels, which training never saw. Classes that gather by themselves are the "
    "sign of a good embedding.",
    "lowest": "The views that go together best: easy samples, often plain or typical ones.",
    "highest": "The views the model finds hardest to bring together: look here for odd, cropped-out or wrong samples.",
}

FUTURES = {
    "hypotheses": ("Hypotheses: {k}", "the best of them, and all of them"),
    "mean": ("Their mean", "as the only prediction"),
    "last_value": ("Last value", "of the past, repeated: what takes no learning"),
}

LADDER = {
    "random": ("Random", "The partner comes from another sample, drawn by chance: easy to tell."),
    "nearest": ("Nearest", "The partner comes from the sample that is most alike to the model: hard to tell."),
    "perturbed": ("Perturbed", "The right partner, slightly damaged: how fine is the sense of the energy?"),
}

PROBES = {
    "few_label": ("Few labels", "logistic regression on {per_class} labelled samples per class, mean of {draws} draws"),
    "linear": ("Linear probe", "logistic regression on all labels of the training split"),
    "knn": ("Nearest neighbours", "vote of the most similar training samples"),
}

METHODS = {
    "pca": "PCA, the two directions of greatest spread",
    "tsne": "t-SNE, which keeps neighbours together; distances between groups mean little",
}

SPECTRUM = {
    "rankme": ("Effective rank (RankMe)", "how many dimensions are really used; 1 is a collapse"),
    "feature_rankme": ("Effective rank of the features", "the same, for what probes read"),
    "lidar": ("LiDAR", "how many directions tell samples apart better than views of one sample"),
    "alpha_req": ("α-ReQ", "how fast the spectrum falls; about 1 is good, far above is too steep"),
    "std_mean": ("Standard deviation, mean", "spread of one dimension over samples"),
    "std_min": ("Standard deviation, least", "of the dimension that varies least"),
    "std_share_below_0.1": ("Dimensions that hardly vary", "share with a standard deviation below 0.1"),
    "off_diagonal_correlation": (
        "Correlation of dimensions",
        "mean size over pairs; at 0 each says something new, at 1 all say the same",
    ),
    "flatness": ("Variation of the energy", "variance over candidates relative to the mean; near 0 the energy is flat"),
}

COLLAPSES = {
    "constant": "All samples get nearly the same embedding, so it says nothing about them.",
    "dimensional": "The embeddings use only a few of their dimensions and say little about the samples.",
    "flat energy": "The energy does not tell pairs that belong together from random ones.",
}
REMEDIES = {
    "constant": "raise the weight of the variance (or SIGReg) term, lower the learning rate, and check that the inputs "
    "differ; with a teacher and nothing else, look for a predictor",
    "dimensional": "raise the weight of the covariance (or SIGReg) term, use larger batches, and make the views differ "
    "more; with a teacher and nothing else, look for a predictor",
    "flat energy": "make the two views share more (weaker augmentation), raise the weight of the invariance term, or "
    "train longer",
}
COLLAPSED = "The representation collapsed."

WARNINGS = {
    "weak energy": "The energy tells matched from random pairs only weakly: AUROC {auroc}, a coin gives 0.5.",
    "no gain": "With few labels the learned features are no better than {rival} ({points} points): "
    "train longer, or check that the views keep what matters.",
    "few held out": "Only {count} samples were held out: every figure here is rough.",
}

HEADLINE = {
    "few labels": "Held-out samples classified right by a simple classifier that saw only {per_class} labels per class.",
    "auroc": "How often a random pair has a higher energy than a pair that belongs together.",
    "retrieval": "How often the y that belongs to x (the other view of a sample, say) has the lowest energy of all {candidates}.",
    "rank": "About how many dimensions the embeddings really use. Near 1 would be a collapse.",
}

NAMES = {
    "vicreg": "VICReg",
    "vicregl": "VICRegL",
    "barlow_twins": "Barlow Twins",
    "sigreg": "SIGReg",
    "visreg": "VISReg",
    "mmcr": "MMCR",
    "coding_rate": "coding rate",
    "rdmreg": "RDMReg",
    "info_nce": "InfoNCE",
    "dcl": "DCL",
    "siglip": "SigLIP",
    "triplet": "triplets",
    "siamese": "DrLIM",
    "square_square": "square-square",
    "logistic": "logistic loss",
    "spectral": "spectral contrastive loss",
    "align_uniform": "alignment and uniformity",
    "contrastive_divergence": "contrastive divergence",
    "score_matching": "score matching",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "dino": "DINO",
    "jepa": "JEPA",
    "vit": "ViT",
    "pixel_predictor": "pixel predictor",
    "autoencoder": "auto-encoder",
    "masked_autoencoder": "masked auto-encoder",
    "gaussian": "Gaussian likelihood",
    "mixture": "mixture density network",
    "cvae": "conditional VAE",
    "flow": "normalising flow",
    "flow_matching": "flow matching",
    "patch": "patch network",
    "multiscale": "multi-scale network",
    "mlp": "MLP",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "vit_tiny": "ViT tiny",
    "vit_small": "ViT small",
    "vit_base": "ViT base",
    "cpu": "CPU",
}
