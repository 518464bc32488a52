"""The shapes that a textbook draws: a star, a tree in layers, a ring, a chain, rows of switches with guests below.

A picture is read faster when it has the shape that its reader knows. What has no such shape is left to springs. All
places are in units of about the distance between two nodes; `layout` scales them to the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cloudlab.views.forces import Neighbours, Point, hops, spread

Places = dict[str, Point]
ROW = 24  # so many nodes beside each other can still be told apart
TURN = 2 * math.pi


def place(part: Neighbours, kinds: Mapping[str, str]) -> Places:
    """Place one connected part: find its shape, then draw it as that."""
    if len(part) == 1:
        return dict.fromkeys(part, (0.0, 0.0))
    hubs, leaves = _hubs(part)
    if rows := _switch_rows(hubs, leaves, kinds):
        return _rows(rows, leaves)
    if len(hubs) > ROW and (chain := _chain(hubs)):
        return _hang(_snake(chain), part)
    if sum(map(len, part.values())) == 2 * (len(part) - 1):
        return _place_tree(part, kinds)
    core = _core(part)
    if all(len(others) == 2 for others in core.values()):
        return _hang(_ring(_around(core), max(1.0, 1.2 * len(core) / TURN)), part)
    return _ring(list(part), 1.0) if _is_dense(part) else spread(part)


def _is_dense(part: Neighbours) -> bool:
    """Tell whether most nodes are linked with most others: such a graph is drawn as a ring with its diagonals."""
    return sum(map(len, part.values())) > 0.7 * len(part) * (len(part) - 1)


def _hubs(part: Neighbours) -> tuple[Neighbours, dict[str, list[str]]]:
    """Return the graph of the nodes with more than one link, and the nodes with only one that hang on each of them."""
    hubs = {name: [o for o in others if len(part[o]) > 1] for name, others in part.items() if len(others) > 1}
    return hubs, {name: [o for o in part[name] if len(part[o]) == 1] for name in hubs}


# --- rows: chains of switches, and leaf-spine fabrics -----------------------------------------------------------------
def _switch_rows(hubs: Neighbours, leaves: Mapping[str, list[str]], kinds: Mapping[str, str]) -> list[list[str]]:
    """Return the rows of a chain of switches or of a leaf-spine fabric, or nothing."""
    outside = any(kinds.get(name) == "uplink" for some in leaves.values() for name in some)
    if not 2 <= len(hubs) <= 2 * ROW or outside:
        return []
    lower = [name for name in hubs if leaves[name]]
    upper = [name for name in hubs if not leaves[name]]
    if not upper:
        chain = _chain(hubs)
        return [chain] if 0 < len(chain) <= ROW else []
    between = all((a in lower) != (b in lower) for a in hubs for b in hubs[a])
    return [upper, lower] if between and len(upper) > 1 and min(len(hubs[name]) for name in lower) > 1 else []


def _chain(hubs: Neighbours) -> list[str]:
    """Return the nodes of a chain from one end to the other, or nothing if it has branches."""
    ends = [name for name, others in hubs.items() if len(others) == 1]
    if len(ends) != 2 or any(len(others) > 2 for others in hubs.values()):
        return []
    distance = hops(hubs, ends[0])
    return sorted(hubs, key=distance.__getitem__)


def _snake(chain: list[str]) -> Places:
    """Draw a long chain to and fro, so that it fills the picture."""
    width = max(ROW, math.ceil(math.sqrt(3 * len(chain))))
    places = {}
    for number, name in enumerate(chain):
        row, column = divmod(number, width)
        places[name] = (float(width - 1 - column if row % 2 else column), -1.5 * row)
    return places


def _rows(rows: list[list[str]], leaves: Mapping[str, list[str]]) -> Places:
    """Draw rows of switches, and the guests of the last row below it."""
    columns = _columns(max(len(leaves[name]) for name in rows[-1]), len(rows[-1]))
    width = len(rows[-1]) * (columns + 0.6)
    places = {}
    for height, row in enumerate(reversed(rows)):
        for number, name in enumerate(row):
            places[name] = (width * (number + 0.5) / len(row), 1.4 * height)
    for name in rows[-1]:
        places |= _block(leaves[name], places[name], columns)
    return places


def _columns(most: int, blocks: int) -> int:
    """Return how many guests of one switch stand beside each other, so that all blocks fit into a row."""
    return most if most * blocks <= ROW else max(2, min(most, 3 * ROW // (2 * blocks)))


def _block(guests: list[str], top: Point, columns: int) -> Places:
    """Put guests below their switch, in rows; every other row is shifted, so that no link hides behind a guest."""
    places = {}
    for number, name in enumerate(guests):
        row, column = divmod(number, columns)
        here = min(columns, len(guests) - row * columns)
        shift = 0.0 if len(guests) <= columns else (0.2 if row % 2 else -0.2)
        places[name] = (top[0] + column - (here - 1) / 2 + shift, top[1] - 1 - 0.4 * row)
    return places


# --- trees ------------------------------------------------------------------------------------------------------------
def _place_tree(part: Neighbours, kinds: Mapping[str, str]) -> Places:
    """Draw a star as a star, a small tree in layers, a wide one as a star of stars."""
    uplinks = [name for name in part if kinds.get(name) == "uplink"]
    star = len(part) - 1 in map(len, part.values())
    root = uplinks[0] if len(uplinks) == 1 and not star else _centre(part)
    distance = hops(part, root)
    children = {name: [o for o in others if distance[o] > distance[name]] for name, others in part.items()}
    layers = max(distance.values())
    widest = sum(not below for below in children.values())
    if layers == 1 or (widest > ROW and layers <= 4):
        return _balloon(children, root, 0.0)[0]
    places = _layers(children, distance)
    return places if widest <= ROW else _rolled(places, widest)


def _centre(part: Neighbours) -> str:
    """Return the middle of a tree: what is left when its leaves are taken off again and again."""
    degree = {name: len(others) for name, others in part.items()}
    while len(degree) > 2:
        for leaf in [name for name, links in degree.items() if links <= 1]:
            del degree[leaf]
            for other in part[leaf]:
                if other in degree:
                    degree[other] -= 1
    return max(degree, key=lambda name: len(part[name]))


def _layers(children: Neighbours, distance: Mapping[str, int]) -> Places:
    """Give each leaf a column of its own and put each parent over the middle of its children."""
    across: dict[str, float] = {}
    column = 0
    for name in _depth_first(children, next(n for n, d in distance.items() if d == 0)):
        if children[name]:
            below = [across[child] for child in children[name]]
            across[name] = (min(below) + max(below)) / 2
        else:
            across[name] = float(column)
            column += 1
    return {name: (across[name], -float(distance[name])) for name in children}


def _rolled(places: Places, columns: int) -> Places:
    """Roll layers up into rings around the root."""
    turns = {name: TURN * x / columns for name, (x, _) in places.items()}
    return {name: (-y * math.cos(turns[name]), -y * math.sin(turns[name])) for name, (_, y) in places.items()}


def _depth_first(children: Neighbours, root: str) -> list[str]:
    """Return every node after its children, left before right."""
    order, stack = [], [root]
    while stack:
        order.append(stack.pop())
        stack += children[order[-1]]
    return order[::-1]


def _balloon(children: Neighbours, name: str, towards: float) -> tuple[Places, float]:
    """Draw a node with its subtrees in discs around it; return the places around 0,0 and the radius that they need.

    `towards` is the direction (radians) in which the node lies from its own parent.
    """
    if not any(children[child] for child in children[name]):
        places, radius = _rings(children[name])
        return {name: (0.0, 0.0), **places}, radius + 0.5
    count = len(children[name])
    aside = 0.5 if count % 2 == 0 else 0.0  # so that no child lies on the link to the parent
    angles = [towards + TURN * (number + aside) / count for number in range(count)]
    discs = [_balloon(children, child, angle) for child, angle in zip(children[name], angles, strict=True)]
    largest = max(radius for _, radius in discs)
    away = max(largest / math.sin(math.pi / count) if count > 1 else 0.0, largest + 0.6)
    places = {name: (0.0, 0.0)}
    for (disc, _), angle in zip(discs, angles, strict=True):
        places |= _moved(disc, (away * math.cos(angle), away * math.sin(angle)))
    return places, away + largest


def _rings(names: Sequence[str]) -> tuple[Places, float]:
    """Place nodes in rings around 0,0 and return the radius; one unit or more lies between two nodes."""
    if len(names) <= ROW:
        radius = max(1.2, len(names) / TURN)
        return _ring(names, radius), radius
    if len(names) <= 2 * ROW:
        outer = _ring(names, len(names) / TURN)
        inner = {name: (0.68 * x, 0.68 * y) for name, (x, y) in outer.items()}
        return {**outer, **{name: inner[name] for name in names[1::2]}}, len(names) / TURN
    rings = next(count for count in range(2, len(names)) if len(names) <= _capacity(count))
    places: Places = {}
    start = 0
    for ring in range(1, rings + 1):
        share = len(names) - start if ring == rings else round(len(names) * TURN * (ring + 1) / _capacity(rings))
        places |= _ring(names[start : start + share], ring + 1.0)
        start += share
    return places, rings + 1.0


def _capacity(rings: int) -> float:
    return TURN * sum(ring + 1 for ring in range(1, rings + 1))


def _ring(names: Sequence[str], radius: float) -> Places:
    """Spread nodes over a circle, clockwise from the top; none is straight below the middle, where its label stands."""
    if len(names) == 1:
        return {names[0]: (radius, 0.0)}
    step = TURN / max(1, len(names))
    start = TURN / 4 + (step / 2 if len(names) % 2 == 0 else 0)
    angles = [start - step * number for number in range(len(names))]
    return {n: (radius * math.cos(a), radius * math.sin(a)) for n, a in zip(names, angles, strict=True)}


def _moved(places: Places, by: Point) -> Places:
    return {name: (x + by[0], y + by[1]) for name, (x, y) in places.items()}


# --- rings and meshes, with what hangs on them ------------------------------------------------------------------------
def _core(part: Neighbours) -> Neighbours:
    """Return what is left of a graph when everything that hangs on it is cut off (the 2-core)."""
    left = {name: set(others) for name, others in part.items()}
    loose = [name for name, others in left.items() if len(others) == 1]
    while loose:
        name = loose.pop()
        for other in left.pop(name):
            left[other].discard(name)
            if len(left[other]) == 1:
                loose.append(other)
    return {name: [other for other in part[name] if other in left] for name in part if name in left}


def _around(ring: Neighbours) -> list[str]:
    """Walk once around a ring."""
    order = [next(iter(ring))]
    seen = set(order)
    while following := next((other for other in ring[order[-1]] if other not in seen), None):
        order.append(following)
        seen.add(following)
    return order


def _hang(places: Places, part: Neighbours) -> Places:
    """Add the trees that hang on a ring or mesh: each in the widest gap between its parent's links."""
    result = dict(places)
    reach = {name: 0.42 * _nearest(places, name, part) for name in places}
    for name in places:
        waiting = [(name, reach[name])]
        while waiting:
            parent, radius = waiting.pop()
            below = [other for other in part[parent] if other not in result]
            result |= _fan(parent, below, part, result, radius)
            waiting += [(child, 0.5 * radius) for child in below]
    return result


def _nearest(places: Places, name: str, part: Neighbours) -> float:
    return min(math.dist(places[name], places[other]) for other in part[name] if other in places)


def _fan(parent: str, below: list[str], part: Neighbours, places: Places, radius: float) -> Places:
    if not below:
        return {}
    x, y = places[parent]
    links = sorted(math.atan2(places[o][1] - y, places[o][0] - x) for o in part[parent] if o in places)
    gaps = [((b - a) % TURN or TURN, a) for a, b in zip(links, [*links[1:], links[0]], strict=True)]
    gap, start = max(gaps, key=lambda pair: (round(pair[0], 6), -pair[1]))
    rows = math.ceil(len(below) / 8)
    fan = {}
    for number, name in enumerate(below):
        row, column = divmod(number, 8)
        here = min(8, len(below) - 8 * row)
        aside = 0.0 if rows == 1 else 0.25 - 0.5 * (row % 2)  # so that no link hides behind a node of another row
        angle = start + gap * (column + 1 + aside) / (here + 1)
        away = radius * (1 if rows == 1 else 0.55 + 0.6 * row / rows)
        fan[name] = (x + away * math.cos(angle), y + away * math.sin(angle))
    return fan
