"""The tables on the data report what was split and what is in use."""

import pytest

from labrnn.config import TrialConfig
from labrnn.results import tables
from labrnn.reviews.description import describe_data
from labrnn.trials.store import Store
from tests.tiny import write_reviews


@pytest.mark.parametrize("in_use", [0, 150])
def test_a_limited_training_set_is_reported_beside_the_split(reviews, tmp_path, in_use):
    path = write_reviews(reviews, tmp_path / "reviews.csv")
    config = TrialConfig(train_reviews=in_use, min_count=1)
    data = describe_data(config, path, "", Store(tmp_path / "store"))
    table = tables.splits(data).set_index("split")
    assert table["reviews"].tolist() == ["210", "30", "60"]
    assert table["share"].tolist() == ["70 %", "10 %", "20 %"]
    assert table["in use"].tolist() == [str(in_use or 210), "30", "60"]
    text = tables.on_splits(data)
    limited = "`train_reviews` limits the 210 training reviews to 150"
    assert text.startswith(limited if in_use else "All reviews are in use.")
    assert "Its first words are “" in tables.on_vocabulary(data)
