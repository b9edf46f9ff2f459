from __future__ import annotations

import pytest

from lmoe_tune.readers import LayoutError
from lmoe_tune.readers.layout import Entry
from lmoe_tune.readers.reading import make_reading, told_apart

ANT = Entry("ant/1.jpg", "ant", "train")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (ANT._replace(label="bee"), "ant/1.jpg is 'ant' in train and 'bee' in train"),
        (ANT._replace(official="test"), "ant/1.jpg is 'ant' in train and 'ant' in test"),
    ],
)
def test_an_image_has_one_class_and_one_part(other: Entry, said: str) -> None:
    with pytest.raises(LayoutError, match=f"contradict themselves about 1 image: {said}"):
        make_reading([ANT, other], classes=["ant", "bee"])


def test_an_image_that_is_listed_twice_alike_is_taken_once_and_it_is_said() -> None:
    reading = make_reading([ANT, ANT._replace()], classes=["ant"], absent=["x", "x"])
    assert reading.entries == (ANT,) and reading.absent == ("x",)
    assert reading.notes == ("images that are listed more than once are taken once: ant/1.jpg",)


def test_classes_of_one_name_stay_apart_and_it_is_said() -> None:
    names, notes = told_apart({"3": "Eider", "5": "Teal", "9": "Eider "})
    assert names == {"3": "Eider (3)", "5": "Teal", "9": "Eider  (9)"}
    assert notes == ["several classes have the same name, and get their ids: Eider"]
