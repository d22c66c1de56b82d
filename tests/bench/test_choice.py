"""The comparison of policies: what it is for, and that its picture can be read."""

from xml.etree import ElementTree

from bench.choice import POLICIES, World, table
from bench.lines import Line, draw


def test_affinity_finds_caches_and_keeps_waits_short_where_the_others_do_not():
    found = {name: World(choose).run(100) for name, choose in POLICIES.items()}
    affinity = found["affinity"]
    for name, other in found.items():
        if name != "affinity":
            assert affinity.hits > 1.5 * other.hits
            assert affinity.first_token_p50_s < other.first_token_p50_s
    assert found["power_of_two"].first_token_p99_s < found["random"].first_token_p99_s


def test_the_same_seed_tells_the_same():
    one, again = (World(POLICIES["affinity"]).run(50) for _ in range(2))
    assert one == again


def test_table_and_picture_hold_every_policy():
    found = {name: [World(choose).run(10)] * 7 for name, choose in POLICIES.items()}
    assert all(f"| `{name}` |" in table(found) for name in POLICIES)
    lines = [Line(name, ((1, 1), (2, 200))) for name in POLICIES]
    picture = ElementTree.fromstring(draw("title", (("panel", lines, 100.0),)))  # noqa: S314 (ours)
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == len(POLICIES)
