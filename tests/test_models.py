"""The classifier: agreement with plain PyTorch, published sizes, and initialisation."""

import pytest
import torch
from exact import assert_equal_but_for_rounding, assert_exact, longest_sum
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from labrnn.config import TrialConfig
from labrnn.errors import LabError
from labrnn.network.batches import Batches
from labrnn.network.models import Classifier, build, find_device
from labrnn.network.packing import Packing
from labrnn.network.recurrent import run_layers
from labrnn.network.registry import count_parameters
from labrnn.published import MODEL, VOCABULARY_SIZE, published

CPU = torch.device("cpu")
CELLS = ("lstm", "gru")
DIRECTIONS = (
    {},
    {"bidirectional": True},
    {"bidirectional": True, "readout": "last_step"},
)


def model_of(vocabulary_size, sparse=False, **fields):
    torch.manual_seed(1)
    model = Classifier(TrialConfig(**fields), vocabulary_size, sparse).eval()
    for name, weight in model.named_parameters():
        if "bias" in name:  # zeros would hide misplaced biases
            nn.init.normal_(weight, std=0.1)
    return model


class Plain(nn.Module):
    """The published model in plain `torch.nn`: padded, then packed."""

    def __init__(self, model, dtype=torch.float64):
        super().__init__()
        config = model.config
        self.embedding = nn.Embedding(*model.embedding.weight.shape, padding_idx=0)
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell](
            config.embedding_dim,
            config.hidden_dim,
            config.n_layers,
            bidirectional=config.bidirectional,
            batch_first=True,
        )
        self.output = nn.Linear(config.hidden_dim * (1 + config.bidirectional), 2)
        self.readout = config.readout if config.bidirectional else "last_step"
        self.load_state_dict(model.state_dict())
        self.to(dtype)

    def forward(self, rows):
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        packed = pack_padded_sequence(
            self.embedding(ids), lengths, batch_first=True, enforce_sorted=False
        )
        out, state = self.rnn(packed)
        state = state[0] if isinstance(state, tuple) else state
        if self.readout == "final_state":
            return self.output(torch.cat([state[-2], state[-1]], dim=1))
        out = pad_packed_sequence(out, batch_first=True)[0]
        return self.output(out[torch.arange(len(rows)), lengths - 1])


def logits_of(model, rows, backend=None):
    packing = Packing([len(row) for row in rows])
    ids = torch.tensor([rows[r][t] for r, t in zip(packing.rows, packing.steps, strict=True)])
    return model(ids, packing, backend)


def gradients(model, logits):
    labels = torch.arange(len(logits)) % 2
    model.zero_grad()
    nn.functional.cross_entropy(logits, labels).backward()
    return {name: p.grad.to_dense() for name, p in model.named_parameters()}


def assert_same(model, rows, backend):
    """Compare logits and gradients with plain PyTorch."""
    plain = [Plain(model, dtype) for dtype in (torch.float32, torch.float64)]
    logits = [logits_of(model, rows, backend), *(p(rows) for p in plain)]
    logits[-1].retain_grad()
    found = [gradients(*pair) for pair in zip((model, *plain), logits, strict=True)]
    assert found[0].keys() == found[-1].keys()
    assert_exact(*([values] for values in logits), longest_sum(model.rnn, map(len, rows)))
    entering = (logits[-1].grad @ plain[-1].output.weight).abs().max().item()
    assert_exact(*(f.values() for f in found), longest_sum(model.rnn, map(len, rows)), entering)


ROWS = [[2, 3, 4, 5, 6], [7], [8, 9, 2, 2, 2, 2, 3], [4, 1, 5], [1], [3, 3, 9, 9, 8, 7, 5]]


@pytest.mark.parametrize("backend", ["fused", "dense", "packed"])
@pytest.mark.parametrize("fields", DIRECTIONS, ids=["unidirectional", "final state", "last step"])
@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_logits_and_gradients_match_plain_pytorch(cell, n_layers, fields, backend):
    model = model_of(10, cell=cell, n_layers=n_layers, embedding_dim=3, hidden_dim=12, **fields)
    assert_same(model, ROWS, backend)


TWO = {"n_layers": 2, "bidirectional": True}


@pytest.mark.parametrize(
    ("fields", "reviews"),
    [({}, 24), (TWO, 24), ({**TWO, "hidden_dim": 305, "embedding_dim": 32}, 3)],
    ids=["one layer", "two layers", "the lab's widest"],
)
@pytest.mark.parametrize("cell", CELLS)
def test_real_reviews(real_corpus, cell, fields, reviews):
    model = model_of(real_corpus.vocabulary_size, cell=cell, **{"embedding_dim": 8, **fields})
    rows = [real_corpus.example(row)["ids"] for row in real_corpus.rows["train"][:reviews]]
    assert max(map(len, rows)) > 200
    assert_same(model, rows, "fused")


@pytest.mark.parametrize("cell", CELLS)
def test_logits_do_not_depend_on_batch_or_order(real_corpus, cell):
    model = model_of(real_corpus.vocabulary_size, cell=cell, n_layers=2, bidirectional=True)
    rows = real_corpus.rows["valid"]

    @torch.no_grad()
    def logits(size, rows):
        return torch.cat(
            [model(b.ids, b.packing) for b in Batches(real_corpus, size, CPU).of(rows)]
        )

    ids = [real_corpus.example(row)["ids"] for row in rows]
    with torch.no_grad():
        plain = [[Plain(model, kind)(ids)] for kind in (torch.float32, torch.float64)]
    for found in (logits(len(rows), rows), logits(1, rows), logits(7, rows[::-1]).flip(0)):
        assert_exact([found], *plain, longest_sum(model.rnn, map(len, ids)))


@pytest.mark.parametrize("cell", CELLS)
def test_backward_output_at_the_last_step_has_read_one_token(cell):
    """This is the published defect: earlier tokens do not reach the backward half."""
    fields = {"cell": cell, "bidirectional": True, "embedding_dim": 3, "hidden_dim": 10}
    one, other = [2, 3, 4, 5], [9, 8, 7, 5]
    packing, ids = Packing([4]), torch.tensor([one, other])
    for readout, blind in (("last_step", True), ("final_state", False)):
        model = model_of(10, readout=readout, **fields)
        read = [model.read(model.rnn(model.embedding(row))[0], packing)[0, 10:] for row in ids]
        assert torch.equal(*read) == blind


def test_dropout_acts_only_in_training():
    model = model_of(10, dropout_rate=0.5)
    assert torch.equal(logits_of(model, ROWS), logits_of(model, ROWS))
    model.train()
    assert not torch.equal(logits_of(model, ROWS), logits_of(model, ROWS))
    assert model.rnn.dropout == 0
    assert model_of(10, dropout_rate=0.5, n_layers=2).rnn.dropout == 0.5
    never = model_of(10, dropout_rate=0.0).train()
    assert torch.equal(logits_of(never, ROWS), logits_of(model.eval(), ROWS))


def test_the_sparse_embedding_has_the_same_gradient():
    found, expected = (
        gradients(m, logits_of(m, ROWS)) for m in (model_of(10, sparse=s) for s in (True, False))
    )
    assert found.keys() == expected.keys()
    assert_equal_but_for_rounding(
        found.values(), expected.values(), longest_sum(model_of(10).rnn, map(len, ROWS)), size=0
    )


# ------------------------------------------------------------------------------------------- size


def test_parameter_counts_match_the_published_ones():
    assert len(published()) == 79
    for row in published().itertuples():
        config = TrialConfig(lr=row.lr, **{name: getattr(row, name) for name in MODEL})
        assert count_parameters(config, VOCABULARY_SIZE) == row.num_params, config
        with torch.device("meta"):
            model = Classifier(config, VOCABULARY_SIZE)
        assert sum(p.numel() for p in model.parameters()) == row.num_params, config


# ----------------------------------------------------------------------------------- initialisation


def assert_orthogonal(matrix):
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.t()
    # The QR factorisation is float32; LAPACK's bound grows with the size of the matrix.
    assert_equal_but_for_rounding([tall.t() @ tall], [torch.eye(tall.shape[1])], tall.numel())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("recurrent_init", ["stacked", "per_gate"])
def test_initialisation_matches_the_published_one(cell, recurrent_init):
    config = TrialConfig(cell=cell, recurrent_init=recurrent_init, embedding_dim=50, hidden_dim=40)
    model = Classifier(config.replace(n_layers=2, bidirectional=True), 2000)
    for name, weight in model.rnn.named_parameters():
        if "bias" in name:
            assert (weight == 0).all()
        elif recurrent_init == "stacked":
            assert_orthogonal(weight)
        else:
            for gate in weight.chunk(4 if cell == "lstm" else 3):
                assert_orthogonal(gate)
    assert (model.output.bias == 0).all()
    assert (model.embedding.weight[0] == 0).all()
    xavier = (2 / (2000 + 50)) ** 0.5
    assert model.embedding.weight[1:].std().item() == pytest.approx(xavier, rel=0.03)
    assert model.output.weight.std().item() == pytest.approx((2 / (80 + 2)) ** 0.5, rel=0.25)


def test_forget_bias_is_set_only_for_the_forget_gate():
    rnn = Classifier(TrialConfig(hidden_dim=10, n_layers=2, forget_bias=1.5), 5).rnn
    for name, bias in rnn.named_parameters():
        if "bias_ih" in name:
            assert (bias[10:20] == 1.5).all()
            assert bias.sum() == 15
        elif "bias_hh" in name:
            assert (bias == 0).all()


def test_checkpoints_load_into_nn_lstm():
    model = model_of(10, n_layers=2, bidirectional=True)
    nn.LSTM(1, 100, 2, bidirectional=True).load_state_dict(model.rnn.state_dict())


def test_devices():
    assert find_device("cpu") == CPU
    assert find_device().type in ("cpu", "cuda", "mps")
    for name in ("tpu", "cuda:99", "cpu:x", "CPU"):
        with pytest.raises(LabError, match="not on this machine"):
            find_device(name)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_embedding_is_the_sum_of_word_and_ngram_vectors(cell):
    config = TrialConfig(cell=cell, hidden_dim=10, embedding_dim=4, n_layers=2)
    model, packing = Classifier(config, 20).eval(), Packing([4, 2])
    ids = torch.randint(1, 20, (6, 3))
    ids[0, 1] = 0
    weight = model.embedding.weight.detach().clone()
    assert (weight[0] == 0).all()
    sums = weight[ids[:, 0]] + weight[ids[:, 1]] + weight[ids[:, 2]]
    states = run_layers(model.rnn, sums, packing)
    expected = model.output(model.read(states, packing))
    assert_equal_but_for_rounding([model(ids, packing)], [expected], 4 * 10)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(config, 20)


def test_word_dropout_drops_whole_words_only_in_training():
    config = TrialConfig(hidden_dim=10, embedding_dim=4, word_dropout=0.5, embedding_dropout=0.25)
    model, packing = Classifier(config, 20), Packing([2000])
    seen = []
    model.rnn.register_forward_pre_hook(lambda rnn, inputs: seen.append(inputs[0].data))
    ids = torch.randint(2, 20, (2000,))
    torch.manual_seed(1)
    for mode in (True, False):
        model.train(mode)(ids, packing, "packed")
    dropped = (seen[0] == 0).all(1).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.05)
    inside = (seen[0] != 0).any(1)
    kept, whole = seen[0][inside], model.embedding(ids).detach()[inside]
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    expected = whole[kept != 0] / 0.5 / 0.75
    assert_equal_but_for_rounding([kept[kept != 0]], [expected], 2, size=0)
    assert torch.equal(seen[1], model.embedding(ids).detach())


def test_ensemble_is_the_mean_of_its_members():
    config = TrialConfig(hidden_dim=10, embedding_dim=4, members=3)
    model, packing, ids = build(config, 20).eval(), Packing([4, 2]), torch.randint(1, 20, (6,))
    each = torch.stack([member(ids, packing) for member in model.members])
    assert len(each) == 3
    assert (each[0] != each[1]).all()
    assert_equal_but_for_rounding([model(ids, packing)], [each.double().mean(0)], 3)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(config, 20)


@pytest.mark.parametrize("field", ["hidden_dim", "embedding_dim"])
def test_ensemble_enforces_the_lab_limits(field):
    with pytest.raises(LabError, match=f"members x {field} is above the lab's limit"):
        TrialConfig().replace(members=2, **{field: 200})
