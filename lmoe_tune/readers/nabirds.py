"""NABirds (Van Horn et al. 2015): 555 species and plumages, 48,562 images; class ids have gaps."""

from __future__ import annotations

from pathlib import Path

from lmoe_tune.readers import numbered_lists
from lmoe_tune.readers.class_folders import CLASS_FOLDERS
from lmoe_tune.readers.layout import Kind, Layout, Reader

BIRDS = Kind(
    "birds",
    (
        "bird", "hen", "ostrich", "brambling", "goldfinch", "finch", "junco", "snowbird", "bunting",
        "robin", "bulbul", "jay", "magpie", "chickadee", "titmouse", "ouzel", "dipper", "eagle",
        "vulture", "owl", "hawk", "falcon", "grouse", "ptarmigan", "partridge", "peacock", "quail",
        "parrot", "macaw", "cockatoo", "lorikeet", "coucal", "bee eater", "hornbill", "hummingbird",
        "jacamar", "toucan", "drake", "merganser", "goose", "swan", "stork", "spoonbill",
        "flamingo", "heron", "egret", "bittern", "limpkin", "gallinule", "coot", "bustard",
        "turnstone", "sandpiper", "redshank", "dowitcher", "oystercatcher", "pelican", "penguin",
        "albatross", "gull", "tern", "sparrow", "warbler", "woodpecker", "wren",
    ),
    ((1502101, 1623109), (1789740, 1861800), (1998000, 2062000)),
)  # fmt: skip
"""All birds among ImageNet's synsets: WordNet's numbers follow its tree."""


def matches(root: Path) -> bool:
    """Whether the lists are NABirds'. CUB-200-2011 has the same lists, but numbers its images."""
    id_ = numbered_lists.first_line(root / "images.txt").split(" ")[0]
    return numbered_lists.exist(root) and ((root / "hierarchy.txt").exists() or not id_.isdigit())


READER = Reader(
    title="NABirds",
    layouts=(
        Layout(
            "images/ and numbered lists (NABirds)",
            (*numbered_lists.HOLDS, "classes.txt"),
            numbered_lists.read_numbered,
            matches,
        ),
        *CLASS_FOLDERS,
    ),
    source="unpack nabirds.tar.gz",
    num_classes=555,
    parts=("train", "test"),
    resize=512,
    crop=448,
    shows=BIRDS,
)
