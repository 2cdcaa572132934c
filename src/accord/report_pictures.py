"""The parts of the report that show samples: the map of the embeddings, nearest neighbours, and the pairs of lowest and highest energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accord.report_charts import Html, figure, join, percent, picture, short, tag
from accord.report_run import Run, Sprite, View, damaged
from accord.report_sections import section

COLOURS = 10
MAX_LEGEND = 20
MAP_WIDTH, MARGIN, TILE = 640.0, 16.0, 30.0
MAX_TILES = 260


def pool(sprite: Sprite | None) -> Html | None:
    """All thumbnails, once, out of sight: every picture of the page is a window on this one."""
    if sprite is None:
        return None
    image = tag("image", href=sprite.href, width=sprite.width, height=sprite.height, id="sprite")
    return tag("svg", tag("defs", image), class_="pool", width=0, height=0, aria_hidden="true")


def crisp(sprite: Sprite) -> str:
    """Pictures of a few pixels are enlarged without blur."""
    return " crisp" if sprite.side <= 16 else ""


def thumb(sprite: Sprite | None, index: int, name: str, style: str = "") -> Html:
    """One thumbnail, or an empty tile where there is none."""
    if sprite is None or index < 0:
        return tag("span", class_=f"thumb none {style}".strip())
    window = tag("use", href="#sprite")
    return tag(
        "svg",
        tag("title", name),
        window,
        class_=f"thumb{crisp(sprite)} {style}".strip(),
        viewBox=sprite.box(index),
        role="img",
    )


def label_name(classes: Sequence[str], label: int) -> str | None:
    """The class of a label, None where it is missing."""
    return classes[label] if 0 <= label < len(classes) else None


def colour(label: int, rank: dict[int, int]) -> str:
    """Colour and shape of a class: ten colours, and another shape for each next ten, so that colour is never alone."""
    place = rank.get(label)
    return "c-none" if place is None else f"c{place % COLOURS}"


def dot(x: float, y: float, label: int, rank: dict[int, int]) -> Html:
    """A sample on the map; the shape goes with the class as well, for those who do not tell the colours apart."""
    style, shape = colour(label, rank), rank.get(label, 0) % 4
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=4, class_=style)
    here = f"M{short(x)} {short(y)}"
    outline = ("m-3.5-3.5h7v7h-7z", "m0-4.8l4.6 8h-9.2z", "m0-5l5 5-5 5-5-5z")[shape - 1]
    return tag("path", d=here + outline, class_=style)


class Points:
    """The samples of the map: where they lie on the page, and what they are."""

    def __init__(self, view: View, classes: Sequence[str], sprite: Sprite | None):
        x, y = view.numbers("x"), view.numbers("y")
        self.label = view.indices("label", len(classes)) or [-1] * len(x)
        self.thumbnail = view.indices("thumbnail", sprite.count if sprite else None) or [-1] * len(x)
        self.key = view.texts("key") or [""] * len(x)
        if len({len(part) for part in (x, y, self.label, self.thumbnail, self.key)}) != 1:
            raise damaged("x, y, label, thumbnail and key have different lengths", view.where.rstrip("."))
        self.x, self.y, self.height = fitted(x, y)


def fitted(x: list[float], y: list[float]) -> tuple[list[float], list[float], float]:
    """Positions in the box of the map, with one scale for both directions (distances stay true) and y upwards."""
    if not x:
        return [], [], MAP_WIDTH
    spans = (max(x) - min(x) or 1.0), (max(y) - min(y) or 1.0)
    inner = MAP_WIDTH - 2 * MARGIN
    height = min(max(spans[1] / spans[0] * inner, 0.6 * inner), 0.95 * inner)
    scale = min(inner / spans[0], height / spans[1])
    left, top = MARGIN + (inner - scale * spans[0]) / 2, MARGIN + (height - scale * spans[1]) / 2
    low, high = min(x), max(y)
    return [left + scale * (v - low) for v in x], [top + scale * (high - v) for v in y], height + 2 * MARGIN


def tiles(points: Points) -> list[int]:
    """Samples whose pictures fit on the map without covering one another, chosen in order."""
    taken: list[int] = []
    for i, thumbnail in enumerate(points.thumbnail):
        if thumbnail < 0 or len(taken) >= MAX_TILES:
            continue
        if all(max(abs(points.x[i] - points.x[j]), abs(points.y[i] - points.y[j])) > 0.8 * TILE for j in taken):
            taken.append(i)
    return taken


def tile(points: Points, i: int, sprite: Sprite, rank: dict[int, int]) -> Html:
    """A picture on the map with a frame in the colour of its class."""
    x, y, half = round(points.x[i], 1), round(points.y[i], 1), TILE / 2
    inner = tag(
        "svg",
        tag("use", href="#sprite"),
        x=x - half,
        y=y - half,
        width=TILE,
        height=TILE,
        viewBox=sprite.box(points.thumbnail[i]),
    )
    frame = tag("rect", x=x - half, y=y - half, width=TILE, height=TILE, rx=2)
    return tag("g", inner, frame, class_=colour(points.label[i], rank), data_i=i)


def embedding_map(run: Run) -> tuple[Html | None, dict[str, object] | None]:
    """The embeddings in two dimensions, and what is shown under the pointer."""
    view, classes, sprite = run.evaluation.view("map"), run.evaluation.view("data").texts("classes"), run.sprite
    if not view:
        return None, None
    points = Points(view, classes, sprite)
    counts = Counter(label for label in points.label if label >= 0)
    shown = sorted(counts, key=lambda label: (-counts[label], label))[:MAX_LEGEND]
    rank = {label: place for place, label in enumerate(sorted(shown))}
    dots = [dot(round(points.x[i], 1), round(points.y[i], 1), points.label[i], rank) for i in range(len(points.x))]
    layers = [tag("g", *dots, class_="dots")]
    small = tiles(points) if sprite else []
    if sprite and small:
        layers.append(tag("g", *(tile(points, i, sprite, rank) for i in small), class_=f"tiles{crisp(sprite)}"))
    method = {
        "pca": "PCA, the two directions of greatest spread",
        "tsne": "t-SNE, which keeps neighbours together; distances between groups mean little",
    }
    how = method.get(view.text("method") or "", view.text("method") or "two dimensions")
    words = f"{len(points.x)} held-out samples as dots; coloured by class where there are labels."
    drawing = picture("Map of the embeddings", words, *layers, width=MAP_WIDTH, height=points.height, key="map")
    side = tag(
        "div",
        switch("layer", [("dots", "Dots"), ("tiles", "Pictures")], chosen=0 if counts else 1) if small else None,
        classes_legend(classes, shown, rank, counts) if counts else None,
        tag(
            "p",
            f"Each dot is one held-out sample, placed by {how}. Near means alike to the model. Point at a dot or tap it to see the sample.",
            class_="explain",
        ),
        tag(
            "p",
            "Colours and shapes are the labels, which training never saw: classes that gather by themselves are the sign of a good embedding.",
            class_="explain",
        )
        if counts
        else None,
        class_="side",
    )
    lead = "Every sample becomes a point in a space of many dimensions; this is its shadow in two."
    data: dict[str, object] = {
        "x": [round(v, 1) for v in points.x],
        "y": [round(v, 1) for v in points.y],
        "key": points.key,
        "label": points.label,
        "thumbnail": points.thumbnail,
    }
    return section(
        "map-of-embeddings",
        "Map of the embeddings",
        lead,
        tag("div", tag("div", drawing, class_="panel"), side, class_="map"),
    ), data


def switch(name: str, options: Sequence[tuple[str, str]], *, chosen: int) -> Html:
    """Radio buttons that the style sheet obeys, so they work without a script."""
    parts = []
    for i, (key, text) in enumerate(options):
        checked = "" if i == chosen else None
        parts.append(
            tag("label", tag("input", type="radio", name=name, id=f"{name}-{key}", checked=checked), tag("span", text))
        )
    return tag("div", *parts, class_="switch", role="radiogroup", aria_label="Show samples as")


def classes_legend(classes: Sequence[str], shown: Sequence[int], rank: dict[int, int], counts: Counter[int]) -> Html:
    """One button for each class: it brings out its samples and fades the others."""
    first = tag(
        "label", tag("input", type="radio", name="class", id="class-all", checked=""), tag("span", "all classes")
    )
    parts = [first]
    for label in sorted(shown):
        place = rank[label]
        mark = tag("svg", dot(6.0, 6.0, label, rank), viewBox="0 0 12 12", aria_hidden="true")
        chip = tag("span", mark, tag("em", classes[label]), tag("small", figure(counts[label])))
        parts.append(tag("label", tag("input", type="radio", name="class", id=f"class-{place}"), chip))
    rest = len(counts) - len(shown)
    more = tag("p", f"and {figure(rest)} smaller classes in grey", class_="explain") if rest else None
    return join([tag("div", *parts, class_="classes", role="radiogroup", aria_label="Bring out one class"), more])


def known_labels(run: Run) -> dict[int, int]:
    """The label of each thumbnail that is on the map."""
    view = run.evaluation.view("map")
    return dict(zip(view.indices("thumbnail"), view.indices("label"), strict=False))


def neighbours(run: Run) -> Html | None:
    """Some samples, each with those nearest to it in the embedding."""
    groups = run.evaluation.views("neighbours")
    if not groups:
        return None
    classes, sprite, labels = run.evaluation.view("data").texts("classes"), run.sprite, known_labels(run)
    limit = sprite.count if sprite else None
    cards, same, total = [], 0, 0
    for group in groups:
        query = group.index("query", limit)
        label = group.index("label", len(classes)) if group.values.get("label") is not None else labels.get(query, -1)
        found = [
            tag(
                "figure",
                thumb(sprite, query, group.text("key") or ""),
                caption(label_name(classes, label), group.text("key")),
                class_="query",
            )
        ]
        for one in group.views("neighbours"):
            other, style = one.index("label", len(classes)), ""
            if label >= 0 and other >= 0:
                total, same = total + 1, same + (label == other)
                style = "same" if label == other else "other"
            distance = one.number("distance")
            words = f"{one.text('key') or ''}{'' if distance is None else f' at distance {figure(distance)}'}"
            found.append(
                tag(
                    "figure",
                    thumb(sprite, one.index("thumbnail", limit), words, style),
                    caption(label_name(classes, other), one.text("key"), distance),
                )
            )
        cards.append(tag("div", *found, class_="row" if sprite else "row plain"))
    score = (
        f" Here {percent(same / total)} of the neighbours are of the same class as their sample; the others have a dashed frame."
        if total
        else ""
    )
    lead = f"On the left a held-out sample, beside it those that the model finds most alike.{score}"
    return section("neighbours", "Nearest neighbours", lead, tag("div", *cards, class_="rows"))


def caption(name: str | None, key: str | None, distance: float | None = None) -> Html:
    """The class of a sample, or else its key; the key is in the tooltip."""
    far = None if distance is None else tag("small", figure(distance))
    return tag("figcaption", tag("span", name or key or "", title=key), far)


def pairs(run: Run) -> Html | None:
    """The pairs that the model finds most and least in accord."""
    view, sprite = run.evaluation.view("pairs"), run.sprite
    if not view:
        return None
    limit = sprite.count if sprite else None
    columns = []
    for key, title, text in (
        ("lowest", "Lowest energy", "The two views that go together best: easy samples, often plain or typical ones."),
        (
            "highest",
            "Highest energy",
            "The two views the model finds hardest to bring together: look here for odd, cropped-out or wrong samples.",
        ),
    ):
        cards = []
        for pair in view.views(key):
            name = pair.text("key") or ""
            both = (
                [thumb(sprite, pair.index(side, limit), f"{name}, view {side}") for side in ("x", "y")]
                if sprite
                else []
            )
            cards.append(
                tag(
                    "figure",
                    tag("div", *both, class_="both") if both else None,
                    tag("figcaption", tag("b", figure(pair.number("energy"))), tag("span", name, title=name)),
                )
            )
        if cards:
            columns.append(
                tag(
                    "div",
                    tag("h3", title),
                    tag("div", *cards, class_="pairs" if sprite else "pairs plain"),
                    tag("p", text, class_="explain"),
                    class_="panel",
                )
            )
    if not columns:
        return None
    lead = "Pairs of two views of one held-out sample, in order of their energy (the figure below each pair)."
    return section("pairs", "Pairs of lowest and highest energy", lead, tag("div", *columns, class_="two"))
