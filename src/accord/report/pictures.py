"""The parts of the report that show samples: the map of the embeddings, nearest neighbours, and the pairs of lowest and highest energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accord.report.charts import Html, clip, figure, join, percent, picture, short, tag
from accord.report.read import Run, Sprite, View, damaged
from accord.report.sections import panel, section, side_by_side, table
from accord.report.text import EXPLAIN, LEADS, METHODS

MAX_LEGEND = 20
MAP_WIDTH, MARGIN, TILE = 640.0, 16.0, 30.0
MAX_TILES = 260


def pool(sprite: Sprite | None) -> Html | None:
    """All thumbnails, once, out of sight: every picture of the page is a window on this one."""
    if sprite is None:
        return None
    image = tag("image", href=Html(sprite.href), width=sprite.width, height=sprite.height, id="sprite")
    return tag("svg", tag("defs", image), class_="pool", width=0, height=0, aria_hidden="true")


def window(sprite: Sprite, index: int, name: str | None, style: str, **place: float) -> Html:
    """An SVG that shows one thumbnail of the pool; pictures of a few pixels are enlarged without blur."""
    title = None if name is None else tag("title", name)
    crisp = " crisp" if sprite.side <= 16 else ""
    return tag("svg", title, tag("use", href="#sprite"), class_=style + crisp, viewBox=sprite.box(index), **place)


def thumb(sprite: Sprite | None, index: int, name: str, style: str = "thumb") -> Html:
    """One thumbnail, or an empty tile where there is none."""
    if sprite is None or index < 0:
        return tag("span", class_=f"{style} none")
    return window(sprite, index, name, style)


def class_name(classes: Sequence[str], label: int) -> str | None:
    """The class of a label, None where it is missing."""
    return classes[label] if 0 <= label < len(classes) else None


def colour(label: int, rank: dict[int, int]) -> str:
    """The style of a class; ten colours, used again from the eleventh class on."""
    place = rank.get(label)
    return "k-none" if place is None else f"k{place}"


def dot(x: float, y: float, label: int, rank: dict[int, int]) -> Html:
    """A sample on the map; the shape goes with the class as well, for those who do not tell the colours apart."""
    style, shape = colour(label, rank), rank.get(label, 0) % 4
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=4, class_=style)
    outline = ("m-3.5-3.5h7v7h-7z", "m0-4.8l4.6 8h-9.2z", "m0-5l5 5-5 5-5-5z")[shape - 1]
    return tag("path", d=f"M{short(x)} {short(y)}{outline}", class_=style)


class Points:
    """The samples of the map: where they lie on the page, and what they are."""

    def __init__(self, view: View, classes: Sequence[str], sprite: Sprite | None):
        x, y = view.numbers("x"), view.numbers("y")
        self.label = view.indices("label", len(classes)) or [-1] * len(x)
        self.thumbnail = view.indices("thumbnail", sprite.total if sprite else None) or [-1] * len(x)
        self.key = view.texts("key") or [""] * len(x)
        if len({len(part) for part in (x, y, self.label, self.thumbnail, self.key)}) != 1:
            raise damaged("x, y, label, thumbnail and key differ in length", view.where.rstrip("."))
        self.x, self.y, self.height = fitted(x, y)

    def __len__(self) -> int:
        return len(self.x)


def fitted(x: list[float], y: list[float]) -> tuple[list[float], list[float], float]:
    """Positions in the box of the map and its height; one scale for both directions keeps distances true, and y points up."""
    if not x:
        return [], [], 0.0
    spans = (max(x) - min(x) or 1.0), (max(y) - min(y) or 1.0)
    inner = MAP_WIDTH - 2 * MARGIN
    height = min(max(spans[1] / spans[0] * inner, 0.6 * inner), 0.95 * inner)
    scale = min(inner / spans[0], height / spans[1])
    left, top = MARGIN + (inner - scale * spans[0]) / 2, MARGIN + (height - scale * spans[1]) / 2
    low, high = min(x), max(y)
    across, down = (
        [round(v, 1) for v in (left + scale * (v - low) for v in x)],
        [round(top + scale * (high - v), 1) for v in y],
    )
    return across, down, height + 2 * MARGIN


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
    x, y = points.x[i] - TILE / 2, points.y[i] - TILE / 2
    inner = window(sprite, points.thumbnail[i], None, "tile", x=x, y=y, width=TILE, height=TILE)
    frame = tag("rect", x=x, y=y, width=TILE, height=TILE, rx=2)
    return tag("g", inner, frame, class_=colour(points.label[i], rank), data_i=str(i))


def embedding_map(run: Run) -> tuple[Html | None, dict[str, object] | None]:
    """The embeddings in two dimensions, and what is shown under the pointer."""
    view, classes, sprite = run.evaluation.view("map"), run.evaluation.view("data").texts("classes"), run.sprite
    points = Points(view, classes, sprite)
    if not points:
        return None, None
    counts = Counter(label for label in points.label if label >= 0)
    shown = sorted(sorted(counts, key=lambda label: (-counts[label], label))[:MAX_LEGEND])
    rank = {label: place for place, label in enumerate(shown)}
    dots = [dot(x, y, label, rank) for x, y, label in zip(points.x, points.y, points.label, strict=True)]
    small = [tile(points, i, sprite, rank) for i in tiles(points)] if sprite else []
    layers = [tag("g", *dots, class_="dots"), tag("g", *small, class_="tiles") if small else Html()]
    layers.append(tag("circle", cx=0, cy=0, r=8, class_="ring"))
    words = f"{len(points)} held-out samples as dots{', coloured by class' if counts else ''}."
    drawing = picture("Map of the embeddings", words, MAP_WIDTH, points.height, *layers, key="map")
    side = tag(
        "div",
        switch(pictures=not counts) if small else None,
        classes_legend(classes, rank, counts) if counts else None,
        tag("p", how(view), class_="explain"),
        tag("p", EXPLAIN["colours"], class_="explain") if counts else None,
        class_="side",
    )
    data: dict[str, object] = {key: getattr(points, key) for key in ("x", "y", "key", "label", "thumbnail")}
    layout = tag("div", tag("div", drawing, class_="panel"), side, class_="map")
    return section("map-of-embeddings", "Map of the embeddings", LEADS["map"], layout), data


def how(view: View) -> str:
    """How samples came to their places."""
    method = view.text("method") or "two of its directions"
    return (
        f"Each mark is one held-out sample, placed by {METHODS.get(method, method)}. Near means alike to the model. "
        "Point at a mark or tap it to see the sample."
    )


def switch(*, pictures: bool) -> Html:
    """Marks or pictures: radio buttons that the style sheet obeys, so they work without a script."""
    parts = []
    for key, text, chosen in (("dots", "Marks", not pictures), ("tiles", "Pictures", pictures)):
        button = tag("input", type="radio", name="layer", id=f"layer-{key}", checked="" if chosen else None)
        parts.append(tag("label", button, tag("span", text)))
    return tag("div", *parts, class_="switch", role="radiogroup", aria_label="Show samples as")


def classes_legend(classes: Sequence[str], rank: dict[int, int], counts: Counter[int]) -> Html:
    """One button for each class: it brings out its samples and fades the others."""
    every = tag("input", type="radio", name="class", id="class-all", checked="")
    parts = [tag("label", every, tag("span", "all classes"))]
    for label, place in rank.items():
        mark = tag("svg", dot(6, 6, label, rank), viewBox="0 0 12 12", aria_hidden="true")
        chip = tag("span", mark, tag("em", classes[label]), tag("small", figure(float(counts[label]))))
        parts.append(tag("label", tag("input", type="radio", name="class", id=f"class-{place}"), chip))
    rest = len(counts) - len(rank)
    more = tag("p", f"and {rest:,} smaller classes in grey", class_="explain") if rest else None
    return join([tag("div", *parts, class_="classes", role="radiogroup", aria_label="Bring out one class"), more])


def known_labels(run: Run) -> dict[int, int]:
    """The label of each thumbnail that is on the map."""
    view = run.evaluation.view("map")
    pairs = zip(view.indices("thumbnail"), view.indices("label"), strict=False)
    return {thumbnail: label for thumbnail, label in pairs if thumbnail >= 0}


def neighbours(run: Run) -> Html | None:
    """Some samples, each with those nearest to it in the embedding."""
    groups = run.evaluation.views("neighbours")
    if not groups:
        return None
    classes, labels = run.evaluation.view("data").texts("classes"), known_labels(run)
    rows, same, total = [], 0, 0
    for group in groups:
        label = known_label(group, labels, classes)
        others = [one.index("label", len(classes)) for one in group.views("neighbours")]
        if label >= 0:
            same, total = same + others.count(label), total + sum(other >= 0 for other in others)
        rows.append((pictured if run.sprite else written)(run.sprite, group, classes, label))
    score = (
        f" Of these neighbours {percent(same / total)} are of the same class{MARKED[run.sprite is None]}."
        if total
        else ""
    )
    content = tag("div", *rows, class_="rows") if run.sprite else tag("ul", *rows, class_="written")
    return section("neighbours", "Nearest neighbours", LEADS["neighbours"] + score, content)


MARKED = ("; the others are marked", "")


def pictured(sprite: Sprite | None, group: View, classes: Sequence[str], label: int) -> Html:
    """A sample and its neighbours as pictures in a row."""
    found = [neighbour(sprite, one, classes, label) for one in group.views("neighbours")]
    return tag("div", query(sprite, group, classes, label), *found, class_="row")


def written(sprite: Sprite | None, group: View, classes: Sequence[str], label: int) -> Html:
    """A sample and its neighbours by their keys, for data without pictures."""
    found = []
    for one in group.views("neighbours"):
        name = class_name(classes, one.index("label", len(classes)))
        words = [name, distance_text(one.number("distance"))]
        found.append(tag("span", one.text("key") or "", " ", tag("small", ", ".join(w for w in words if w))))
    own = class_name(classes, label)
    return tag("li", tag("b", group.text("key") or ""), " ", tag("small", own) if own else None, *found)


def distance_text(distance: float | None) -> str | None:
    """A distance with two decimals."""
    return None if distance is None else f"{distance:.2f}"


def known_label(group: View, labels: dict[int, int], classes: Sequence[str]) -> int:
    """The label of a sample whose neighbours are shown: its own, or else that of its thumbnail on the map."""
    return group.index("label", len(classes)) if "label" in group.values else labels.get(group.index("query"), -1)


def query(sprite: Sprite | None, group: View, classes: Sequence[str], label: int) -> Html:
    """The sample whose neighbours follow."""
    key, index = group.text("key") or "", group.index("query", sprite.total if sprite else None)
    return tag("figure", thumb(sprite, index, key), caption(class_name(classes, label), key), class_="query")


def neighbour(sprite: Sprite | None, one: View, classes: Sequence[str], label: int) -> Html:
    """A neighbour with its class and distance, marked where its class is another than that of the sample."""
    other, key, distance = one.index("label", len(classes)), one.text("key") or "", one.number("distance")
    index = one.index("thumbnail", sprite.total if sprite else None)
    style = "thumb other" if label >= 0 and other >= 0 and label != other else "thumb"
    return tag(
        "figure",
        thumb(sprite, index, f"{key} at distance {figure(distance)}", style),
        caption(class_name(classes, other), key, distance),
    )


def caption(name: str | None, key: str, distance: float | None = None) -> Html:
    """The class of a sample, or else its key; the key is in the tooltip."""
    far = None if distance is None else tag("small", distance_text(distance))
    return tag("figcaption", tag("span", name or key, title=clip(key)), far)


def pairs(run: Run) -> Html | None:
    """The pairs that the model finds most and least in accord."""
    view = run.evaluation.view("pairs")
    columns = []
    for key, title in (("lowest", "Lowest energy"), ("highest", "Highest energy")):
        found = view.views(key)
        if found and run.sprite:
            columns.append(
                panel(title, EXPLAIN[key], tag("div", *(pair(run.sprite, one) for one in found), class_="pairs"))
            )
        elif found:
            rows = [[one.text("key") or "", figure(one.number("energy"))] for one in found]
            columns.append(panel(title, EXPLAIN[key], table(["Sample", "Energy"], rows)))
    if not columns:
        return None
    lead = LEADS["pairs"] if run.sprite else LEADS["written pairs"]
    return section("pairs", "Pairs of lowest and highest energy", lead, side_by_side(*columns))


def pair(sprite: Sprite, one: View) -> Html:
    """The two views of a pair, and its energy."""
    name = one.text("key") or ""
    views = [thumb(sprite, one.index(side, sprite.total), f"{name}, view {side}") for side in ("x", "y")]
    words = tag("figcaption", tag("b", figure(one.number("energy"))), tag("span", name, title=clip(name)))
    return tag("figure", tag("div", *views, class_="both"), words)
