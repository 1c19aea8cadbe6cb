"""Configuration of a training: defaults, limits, differences, and params files."""

import pytest

from labrnn.config import TrialConfig, read_yaml, validated
from labrnn.errors import LabError
from labrnn.parts import PARTS, Compound, LstmOptimizers


def fault(model=TrialConfig, **values):
    """Return the error message for these values."""
    with pytest.raises(LabError) as caught:
        validated(model, values, "some.yaml")
    return str(caught.value)


def test_defaults_match_the_lab():
    config = TrialConfig()
    lab = {
        "cell": "lstm", "embedding_dim": 1, "hidden_dim": 100, "n_layers": 1, "dropout_rate": 0.0,
        "bidirectional": False, "optim": "sgd", "lr": 0.01, "epochs": 5, "seed": 5,
        "batch_size": 96, "max_tokens": 256, "min_count": 5, "warmup_steps": 200,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in lab} == lab
    assert config.difference() == ""


def test_difference_lists_changed_fields_sorted():
    config = TrialConfig(
        optim="rmsprop", lr=0.001, n_layers=2, hidden_dim=305, embedding_dim=32, dropout_rate=0.2
    )
    assert config.difference() == (
        "DROPOUT_RATE=0.2,EMBEDDING_DIM=32,HIDDEN_DIM=305,LR=0.001,N_LAYERS=2,OPTIM=rmsprop"
    )
    assert TrialConfig(cell="gru", seed=6, lr=0.01).difference() == ""
    assert config.difference(config.replace(lr=0.1, epochs=7)) == "EPOCHS=5,LR=0.001"


@pytest.mark.parametrize(
    ("field", "lowest", "highest"),
    [("hidden_dim", 10, 320), ("embedding_dim", 1, 256), ("n_layers", 1, 4), ("epochs", 1, 100)],
)
def test_values_outside_the_lab_limits_are_refused(field, lowest, highest):
    for inside in (lowest, highest):
        assert getattr(validated(TrialConfig, {field: inside}, ""), field) == inside
    for outside in (lowest - 1, highest + 1):
        message = fault(**{field: outside})
        assert "some.yaml" in message
        assert f"{field} = {outside}" in message


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 0}, {"lr": -0.1}, {"lr": float("nan")}, {"lr": float("inf")}, {"lr": None},
        {"lr": "fast"}, {"lr": [0.1]}, {"dropout_rate": 1.0}, {"dropout_rate": -0.1},
        {"epochs": 2.5}, {"epochs": "many"}, {"optim": "sdg"}, {"optim": "SGD"}, {"cell": 1},
        {"seed": -1}, {"bidirectional": "perhaps"}, {"bidirectional": 2},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_value_is_reported(values):
    ((field, value),) = values.items()
    assert f"  {field} = {value!r}: " in fault(**values)


@pytest.mark.parametrize("field", ["lr", "epochs", "dropout_rate", "seed", "forget_bias", "optim"])
@pytest.mark.parametrize("value", [True, False])
def test_booleans_are_not_numbers(field, value):
    message = fault(**{field: value})
    assert f"{field} = {value}: a boolean; give a number" in message


def test_booleans_in_a_list_are_not_numbers():
    assert "seeds = [5, True]: a boolean" in fault(LstmOptimizers, seeds=[5, True])
    assert "optimizers = ['adam', False]" in fault(LstmOptimizers, optimizers=["adam", False])
    assert not validated(LstmOptimizers, {"train": False}, "").train


@pytest.mark.parametrize("part", [p for p in PARTS.values() if p.trains], ids=lambda p: p.name)
def test_lists_need_at_least_one_value_and_no_duplicates(part):
    # `rates` may be empty; then learning rates are not compared.
    lists = {
        n: f.default
        for n, f in part.model_fields.items()
        if isinstance(f.default, list) and n != "rates"
    }
    for name, values in lists.items():
        assert f"{name} = []: list should have at least 1 item" in fault(part, **{name: []})
        twice = [values[0], *values[:2]]
        assert f"holds {values[0]!r} 2 times; give each value once" in fault(part, **{name: twice})


def test_scientific_notation_without_a_dot_is_a_number(tmp_path):
    """PyYAML reads 1e-3, which has no dot, as text."""
    path = tmp_path / "params.yaml"
    path.write_text("lr: 1e-3\ndropout_rate: 2e-1\nbidirectional: yes\nepochs: 3\n")
    assert read_yaml(path)["lr"] == "1e-3"
    config = validated(TrialConfig, read_yaml(path), path)
    assert (config.lr, config.dropout_rate, config.bidirectional) == (0.001, 0.2, True)


def test_list_passed_as_text_by_papermill_is_refused():
    """`papermill -p depths [1,2]`."""
    message = fault(LstmOptimizers, seeds="[1,2]")
    assert "seeds = '[1,2]': input should be a valid list" in message
    assert "in papermill, write a list as -y 'seeds: [1,2]', not as -p" in message


def test_all_errors_are_reported_with_spelling_suggestions():
    message = fault(hiden_dim=20, lr=-1, colour="red")
    assert "3 bad value(s)" in message
    assert "hiden_dim: unknown parameter; did you mean `hidden_dim`?" in message
    assert "colour: unknown parameter; known: " in message
    assert len(fault(optim="x" * 10_000)) < 300


def test_fields_without_effect_do_not_change_the_configuration():
    assert TrialConfig(readout="last_step") == TrialConfig()
    assert TrialConfig(readout="last_step", bidirectional="no") == TrialConfig()
    assert TrialConfig(cell="gru", forget_bias=1.0) == TrialConfig(cell="gru")
    both = TrialConfig(bidirectional=True)
    assert both.replace(readout="last_step") != both
    assert both.replace(readout="last_step").replace(bidirectional=False) == TrialConfig()
    assert TrialConfig(forget_bias=1.0) != TrialConfig()
    assert "readout" in fault(readout="first_step")
    assert "forget_bias" in fault(cell="gru", forget_bias="much")


def test_configurations_are_immutable_and_hashable():
    config = TrialConfig(lr=0.1)
    assert config.replace(lr=0.01) == TrialConfig()
    assert len({config, TrialConfig(lr="0.1"), TrialConfig()}) == 2
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0
    with pytest.raises(LabError, match="TrialConfig: 1 bad value"):
        config.replace(lr=-1)
    assert TrialConfig(**config.model_dump(mode="json")) == config


# ----------------------------------------------------------------------------------- params files


def test_params_file_is_read(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("\ufeff# the quick setting\nseeds: [1, 2]\nlr: 0.001\n", encoding="utf-8")
    assert read_yaml(path) == {"seeds": [1, 2], "lr": 0.001}
    for empty in ("", "  \n", "# nothing\n", "---\n"):
        path.write_text(empty)
        assert read_yaml(path) == {}


BILLION_LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\n"


@pytest.mark.parametrize(
    "text",
    [
        "lr: 0.1\nlr: 0.2", "a: {b: 1, b: 2}", BILLION_LAUGHS,
        "!!python/object/apply:os.system [echo]", "lr: !!timestamp x", "lr: !!bool maybe",
        "seeds: !!set {1, 2}", "data: !!binary eA==", "lr: !!float 1", "lr: !mine 1",
        "!!omap [lr: 1]", "lr: !!python/name:os.system", "- lr", "lr 0.1", "lr: [1, 2", "5: lr",
        "no: 5", "? [a, b]\n: c", "\tlr: 1", "lr: 1\n---\nlr: 2", "lr: " + "[" * 5000,
        "lr: " + "1" * 5000, "lr: 2023-99-99", "lr: \x01",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_invalid_params_file_is_refused_in_one_message(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400


def test_unreadable_params_file_is_refused(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("lr: 0.1 # caf\xe9".encode("latin-1"))
    for path in (latin, tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(LabError, match=str(path)):
            read_yaml(path)


def test_compound_grid_enforces_the_lab_limit():
    lists = {"depths": [1, 2], "widths": [10, 20, 30, 40, 50], "sizes": [1, 2, 3, 4, 5]}
    assert len(validated(Compound, lists, "params").settings()) == 50
    message = fault(Compound, **lists | {"depths": [1, 2, 3]})
    assert "sizes = [1, 2, 3, 4, 5]: depths × widths × sizes are 75 trials" in message
    assert "are 75 trials" in fault(Compound, depths=[*range(1, 6)], widths=[*range(10, 15)])
