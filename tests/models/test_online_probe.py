"""The online probe beside an encoder that must not notice it."""

import math

import pytest
import torch
import torch.distributed as dist
from helpers.models import build, pixels
from helpers.processes import run_ranks
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.structures import DataSample

from simclr_mm.checkpoints import load_state
from simclr_mm.errors import CheckpointError
from simclr_mm.evaluation import LabelFreeMetrics, ProbeAccuracy

PROBE = dict(online_probe=dict(num_classes=3))
KEYS = ['probe.fc.weight', 'probe.fc.bias']
LABELS = [2, 0, 1, 1, 0]
UNADAPTED = dict(custom_keys={'probe.': dict(trust_denominator=None)})


def samples(labels=LABELS):
    return [DataSample().set_gt_label(label) for label in labels]


def lars(model, **kwargs):
    return build_optim_wrapper(
        model, dict(optimizer=dict(type='simclr_mm.LARS', lr=0.5, weight_decay=1e-4), **kwargs)
    )


def encoder(model):
    return {key: value for key, value in model.state_dict().items() if not key.startswith('probe.')}


@pytest.mark.parametrize(
    'kwargs, amp',
    [
        ({}, {}),
        (dict(micro_batch_size=2), {}),
        (dict(micro_batch_size=2), dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0)),
    ],
)
def test_the_encoder_is_bit_identical(monkeypatch, kwargs, amp):
    """Same random state after building, same weights and statistics after 3 steps."""
    monkeypatch.setattr('mmengine.optim.AmpOptimWrapper.__init__', _cpu_amp)
    models = [build(**kwargs), build(**kwargs, **PROBE)]
    random = torch.random.get_rng_state()
    build(**kwargs)
    assert random.equal(torch.random.get_rng_state())
    logged, dtypes = [], set()
    for model in models:
        model.neck.register_forward_hook(lambda *args: dtypes.add(args[-1].dtype))
        if model.probe is None:
            wrapper = lars(model, **amp)
        else:
            wrapper = lars(model, paramwise_cfg=UNADAPTED, **amp)
        for step in range(3):
            batch = dict(inputs=pixels(5, 2, 3, 16, 16) // (step + 1))
            batch['data_samples'] = samples()
            logged.append(model.train_step(batch, wrapper))
    alone, probed = map(encoder, models)
    assert list(alone) == list(probed)
    for key in alone:
        assert alone[key].equal(probed[key]), key
    for without, beside in zip(logged[:3], logged[3:]):
        assert without['loss'].equal(beside['loss'])  # of the views alone
        assert set(beside) - set(without) == {'probe_loss', 'probe_top1'}
    assert models[1].probe.fc.weight.any()
    assert dtypes == {torch.bfloat16 if amp else torch.float32}


def _cpu_amp(self, loss_scale, dtype, **kwargs):
    """AmpOptimWrapper, which refuses to start without a GPU, with autocast on a CPU."""
    OptimWrapper.__init__(self, **kwargs)
    self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
    self.cast_dtype = getattr(torch, dtype)
    self._scale_update_param = None
    self.use_fsdp = False


def test_no_gradient_reaches_the_encoder_and_the_probe_has_its_own():
    """Against logistic regression written out; labels are those of both views."""
    model = build(**PROBE)
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    model.probe.fc.weight.data = weight
    inputs = model.data_preprocessor(dict(inputs=pixels(5, 2, 3, 16, 16)))['inputs']
    losses = model(inputs, samples(), mode='loss')
    losses['probe_loss'].backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None] == KEYS

    features = model.extract_feat(inputs.flatten(0, 1)).tolist()
    total, hits, gradient = 0.0, 0, torch.zeros(3, 64)
    for i, label in enumerate(LABELS):
        for x in features[2 * i : 2 * i + 2]:
            scores = [sum(a * b for a, b in zip(row, x)) for row in weight.tolist()]
            normaliser = sum(map(math.exp, scores))
            total -= math.log(math.exp(scores[label]) / normaliser) / 10
            hits += scores.index(max(scores)) == label
            for k, score in enumerate(scores):
                error = math.exp(score) / normaliser - (k == label)
                gradient[k] += error * torch.tensor(x) / 10
    assert losses['probe_loss'].item() == pytest.approx(total, rel=1e-5)
    assert losses['probe_top1'].item() == pytest.approx(hits / 10)
    assert not losses['probe_top1'].requires_grad
    with torch.autocast('cpu', torch.bfloat16):  # never in the encoder's precision
        assert model.probe(torch.ones(2, 64)).dtype == torch.float32
    torch.testing.assert_close(model.probe.fc.weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_lars_with_the_recipes_settings_is_momentum_sgd_on_the_probe():
    model = build(**PROBE)
    settings = dict(custom_keys={'probe.': dict(trust_denominator=None, lr_mult=0.1)})
    wrapper = lars(model, paramwise_cfg=settings)
    batch = dict(inputs=pixels(5, 2, 3, 16, 16), data_samples=samples())
    weight, velocity = torch.zeros(3, 64), torch.zeros(3, 64)
    for _ in range(2):
        wrapper.zero_grad()
        model(**model.data_preprocessor(batch), mode='loss')['probe_loss'].backward()
        velocity = 0.9 * velocity + 0.05 * model.probe.fc.weight.grad
        weight = weight - velocity
        wrapper.step()
        torch.testing.assert_close(model.probe.fc.weight.data, weight)
    assert weight.any()


@pytest.mark.parametrize(
    'data_samples, message',
    [
        (None, 'with_label=True'),
        (samples(LABELS[:4]) + [DataSample()], 'with_label=True'),
        (samples([0, 1, 2, 3, 0]), 'num_classes is 3.* from 0 to 3'),
        (samples([0, 1, -1, 1, 0]), 'num_classes is 3.* from -1 to 1'),
        (samples([0, 1, [1, 2], 1, 0]), 'one label .* of 5 has 6'),
    ],
)
def test_labels_that_do_not_do(data_samples, message):
    with pytest.raises(ValueError, match=message):
        build(**PROBE)(torch.zeros(5, 2, 3, 16, 16), data_samples, mode='loss')


@pytest.mark.parametrize('num_classes', [1, 2.5, '10'])
def test_bad_number_of_classes(num_classes):
    with pytest.raises(ValueError, match='online_probe.num_classes'):
        build(online_probe=dict(num_classes=num_classes))


@pytest.mark.portable
def test_predictions():
    model = build(**PROBE).eval()
    model.probe.fc.weight.data = torch.randn(3, 64)
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        results = model(images, mode='predict')
        logits = model.extract_feat(images) @ model.probe.fc.weight.T
        views = model(images.view(2, 2, 3, 16, 16), mode='predict')
    for result, scores in zip(results, logits.softmax(1)):
        torch.testing.assert_close(result.pred_score, scores)
        assert result.pred_label.item() == scores.argmax().item()
    assert len(views) == 2 and 'pred_score' not in views[0]
    for i, sample in enumerate(views):
        for v in range(2):
            torch.testing.assert_close(sample.feature[v], results[2 * i + v].feature)


def torch_way(model, state):
    model.load_state_dict(state)


def mmengine_way(model, state):
    load_state_dict(model, state, strict=True)


def our_way(model, state):
    load_state(model, state, 'file.pth')


def wrapped_way(model, state):
    wrapper = torch.nn.Sequential(model)
    wrapper.load_state_dict({f'0.{key}': value for key, value in state.items()})


@pytest.mark.portable
@pytest.mark.parametrize('load', [torch_way, mmengine_way, our_way, wrapped_way])
def test_a_checkpoint_may_have_or_lack_the_probe(monkeypatch, load):
    said = []
    monkeypatch.setattr(
        'simclr_mm.checkpoints.state_dict.print_log', lambda text, **_: said.append(text)
    )
    bare, probed = build(), build(**PROBE)
    for model in (bare, probed):
        for p in model.parameters():
            p.data.normal_()
    target = build()
    load(target, probed.state_dict())
    assert all(v.equal(probed.state_dict()[k]) for k, v in target.state_dict().items())
    assert 'has no online probe: left out' in said[0] and KEYS[0] in said[0]
    target, before = build(**PROBE), probed.probe.fc.weight.clone()
    target.probe.load_state_dict(probed.probe.state_dict())
    load(target, bare.state_dict())
    assert all(v.equal(encoder(target)[k]) for k, v in bare.state_dict().items())
    assert target.probe.fc.weight.equal(before)
    assert 'checkpoint has no online probe' in said[1] and KEYS[1] in said[1]
    load(build(**PROBE), probed.state_dict())
    assert len(said) == 2  # nothing to say where it fits
    for wrong in (
        dict(probed.state_dict(), other=torch.zeros(1)),
        dict(list(probed.state_dict().items())[:-1]),
        build(online_probe=dict(num_classes=4)).state_dict(),
    ):
        with pytest.raises((CheckpointError, RuntimeError)):
            load(build(**PROBE), wrong)


FEATURES = torch.randn(7, 2, 6, generator=torch.Generator().manual_seed(5))


def evaluate(metric, rows):
    """Of rows of seven images, the first two of which are a gallery."""
    metric.process(
        {},
        [
            dict(
                feature=FEATURES[row],
                pred_score=FEATURES[row, 0],
                gt_label=torch.tensor([row % 3]),
                sample_idx=row,
                gallery=row < 2,
            )
            for row in rows
        ],
    )
    return metric.evaluate(7)


def metrics():
    return [LabelFreeMetrics(), LabelFreeMetrics(max_samples=3), ProbeAccuracy((1, 2))]


def _on_a_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=2)
    model = MMDistributedDataParallel(build(micro_batch_size=2, **PROBE))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    batch = dict(
        inputs=pixels(6, 2, 3, 16, 16).chunk(2)[rank],
        data_samples=samples([0, 1, 2, 0, 2, 2])[3 * rank : 3 * rank + 3],
    )
    for _ in range(2):  # DDP refuses the second step if the first left one unused
        model.train_step(batch, wrapper)
    rows = [0, 2, 4, 6] if rank == 0 else [1, 3, 5, 0]  # padded as mmengine does
    found = [evaluate(metric, rows) for metric in metrics()]
    torch.save((model.module.probe.state_dict(), found), folder / f'rank{rank}.pth')
    dist.destroy_process_group()


def test_two_ranks(tmp_path, monkeypatch):
    """One probe on both, and the numbers of one process."""
    monkeypatch.chdir(tmp_path)  # mmengine gathers through the working directory
    run_ranks(_on_a_rank, 2, tmp_path)
    (state, found), (other, again) = (torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2))
    assert state['fc.weight'].equal(other['fc.weight']) and state['fc.weight'].any()
    expected = [evaluate(metric, range(7)) for metric in metrics()]
    assert found == again == expected
    assert expected[0] != expected[1]
