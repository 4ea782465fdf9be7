"""SimCLR as MMEngine calls it, and against mmpretrain's model of the same config."""

import mmpretrain
import pytest
import torch
import torch.distributed as dist
from helpers.models import THIN, build, freeze_norms, pixels
from helpers.processes import run_ranks
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import nn

from simclr_mm.errors import UserError
from simclr_mm.models import pooled
from simclr_mm.registry import MODELS

pytestmark = pytest.mark.portable

VIT = dict(type='VisionTransformer', arch='deit-tiny', img_size=32, patch_size=8)


def randomize_statistics(model):
    """BN statistics and scales that make every channel count."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.running_mean, module.bias.data):
                values.normal_(0, 0.3, generator=generator)


def normal(n):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, 3, 16, 16, generator=generator, dtype=torch.float64)


def test_interchange_with_mmpretrain():
    """Strict loading both ways, equal features and projections, equal size."""
    theirs = mmpretrain.get_model('simclr_resnet50_16xb256-coslr-200e_in1k')
    ours = build(dict(type='ResNet', depth=50, zero_init_residual=True))
    assert sum(p.numel() for p in ours.parameters()) == 27_968_832
    randomize_statistics(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.eval()
    theirs.eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        maps = theirs.extract_feat(images)
        features = ours.extract_feat(images)
        expected = maps[0].mean((2, 3))
        assert (features - expected).norm() <= 1e-5 * expected.norm()
        expected = theirs.neck(maps)[0]
        assert (ours.neck(features) - expected).norm() <= 1e-5 * expected.norm()
    randomize_statistics(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize(
    'backbone, side, width',
    [
        (dict(type='ResNet', depth=18), 32, 512),
        (dict(type='ResNet', depth=50, out_indices=(1, 3)), 32, 2048),
        (THIN, 32, 64),
        (dict(type='ConvNeXt', arch='atto'), 32, 320),
        (dict(type='ConvNeXt', arch='atto', gap_before_final_norm=False), 32, 320),
        (VIT, 32, 192),
        (dict(VIT, out_type='raw'), 32, 192),
        (dict(VIT, out_type='featmap'), 32, 192),
        (dict(type='SwinTransformer', arch='tiny', img_size=224), 224, 768),
        (dict(type='SwinTransformer', arch='tiny', img_size=64, pad_small_map=True), 64, 768),
        (dict(type='LeViT', arch='128s'), 224, 384),
        (dict(type='MlpMixer', arch='b', img_size=32, patch_size=16), 32, 768),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else '',
)
def test_any_backbone(backbone, side, width):
    model = build(backbone)
    assert model.neck.fc0.in_features == width
    model.eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, side, side)).shape == (2, width)


def test_tokens_are_averaged():
    model = build(dict(VIT, out_type='raw'))
    model.eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = model.backbone(images)[-1]  # (2, 1 + 16, 192)
    torch.testing.assert_close(model.extract_feat(images), tokens.sum(1) / 17)


def test_building_leaves_no_trace():
    """The dry forward pass draws nothing and changes no statistic and no mode."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(type='simclr_mm.SimCLR', backbone=THIN, neck=dict(type='simclr_mm.ProjectionNeck'))
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    told = MODELS.build(
        dict(
            type='simclr_mm.SimCLR',
            backbone=THIN,
            neck=dict(type='simclr_mm.ProjectionNeck', in_channels=64),
        )
    )
    assert state.equal(torch.get_rng_state())
    for ours, theirs in zip(model.state_dict().values(), told.state_dict().values()):
        assert ours.equal(theirs)
    assert all(module.training for module in model.modules())


def test_one_mean_for_every_shape():
    """What extract_feat and the API share; MlpMixer's tokens come channels first."""
    maps = torch.arange(16.0).view(1, 2, 2, 4)  # (n, C, H, W)
    tokens = maps.flatten(2).mT  # (n, L, C)
    mixer = nn.Module()
    mixer.backbone = nn.Module()
    mixer.backbone.embed_dims = 2
    assert pooled((torch.zeros(1), maps)).tolist() == [[3.5, 11.5]]
    assert pooled(tokens).tolist() == pooled(tokens, mixer).tolist() == [[3.5, 11.5]]
    assert pooled(tokens.mT, mixer).tolist() == [[3.5, 11.5]]
    assert pooled([maps[:, :, 0, 0]]).tolist() == [[0.0, 8.0]]


@pytest.mark.parametrize('channels, narrow', [(8, True), (16, False)])
def test_narrow_convolutions_get_contiguous_images(channels, narrow):
    """oneDNN crashes on them with channels-last images, where a CPU has AVX512."""
    model = build(dict(type='ResNet', depth=18, base_channels=channels, stem_channels=channels))
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(torch.randn(2, 2, 3, 224, 224), mode='loss')['loss'].backward()
    order = torch.contiguous_format if narrow else torch.channels_last
    assert all(images.is_contiguous(memory_format=order) for images in seen)


@pytest.mark.parametrize(
    'backbone',
    [
        THIN,
        dict(type='ResNet', depth=18),
        dict(type='simclr_mm.GoogleResNet', depth=18, width=0.125, small_images=True),
        VIT,
    ],
)
def test_channels_are_as_many_as_means(backbone):
    backbone = dict(backbone, in_channels=4)
    with pytest.raises(ValueError, match='in_channels = 4, but data_preprocessor.mean has 3 num'):
        build(backbone)
    model = build(backbone, data_preprocessor=dict(mean=[1] * 4, std=[2] * 4, to_rgb=False))
    images = pixels(2, 2, 4, 32, 32).float()
    inputs = model.data_preprocessor(dict(inputs=images))['inputs']
    assert torch.isfinite(model.loss(inputs)['loss'])


@pytest.mark.parametrize(
    'key, part, instead',
    [
        (
            'neck',
            dict(type='NonLinearNeck', in_channels=64, hid_channels=64, out_channels=8),
            'simclr_mm.ProjectionNeck',
        ),
        (
            'head',
            dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1),
            'simclr_mm.NTXentHead',
        ),
    ],
)
def test_parts_of_the_other_simclr_are_named(key, part, instead):
    """As strings and, in new-style configs, as types."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for kind in (part['type'], MMPRETRAIN_MODELS.get(part['type'])):
            with pytest.raises(ValueError, match=f'model.{key}.type {part["type"]}.*{instead}'):
                build(**{key: dict(part, type=kind)})


def _rates(model, wrapper):
    rates = {p: group['lr'] for group in wrapper.param_groups for p in group['params']}
    return {name: rates[p] for name, p in model.named_parameters() if p in rates}


def test_layer_wise_decay():
    """Rates as mmpretrain's own classifier gets them, of the backbone."""
    settings = dict(
        optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(layer_decay_rate=0.5),
        constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    )
    classifier = dict(
        type='mmpretrain.ImageClassifier',
        backbone=VIT,
        head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=192),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        ours, theirs = (
            _rates(model, build_optim_wrapper(model, dict(settings)))
            for model in (build(VIT), MMPRETRAIN_MODELS.build(classifier))
        )
    names = [name for name in theirs if name.startswith('backbone.')]
    assert len({theirs[name] for name in names}) > 10
    assert [ours[name] for name in names] == [theirs[name] for name in names]
    for backbone in (THIN, dict(type='MobileNetV2')):
        with pytest.raises(ValueError, match=f'this {backbone["type"]} does not know the depth'):
            build(backbone).get_layer_depth('backbone.conv1.weight')


def test_width_that_cannot_be_inferred():
    with pytest.raises(ValueError, match='model.neck.in_channels'):
        build(dict(type='SwinTransformer', arch='tiny', img_size=32))


@pytest.mark.parametrize('scope', ['mmengine', 'simclr_mm', 'mmpretrain'])
def test_any_default_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert build().neck.fc0.in_features == 64


@pytest.mark.parametrize('num_views', [2, 3])
def test_loss_embeds_all_views_in_one_pass(num_views):
    model = build().double()
    inputs = torch.randn(4, num_views, 3, 32, 32, dtype=torch.float64)
    calls = []
    model.backbone.register_forward_hook(lambda *args: calls.append(args))
    losses = model(inputs, mode='loss')
    assert len(calls) == 1
    assert set(losses) == {'loss', 'top1', 'pos_sim', 'neg_sim', 'chance'}
    rows = torch.stack([inputs[i, v] for i in range(4) for v in range(num_views)])
    z = model.neck(model.backbone(rows)[-1].mean((2, 3)))
    z = torch.stack([z[i * num_views : (i + 1) * num_views] for i in range(4)])
    torch.testing.assert_close(losses['loss'], model.head.loss(z)['loss'])


def test_errors_name_the_fix():
    model = build()
    with pytest.raises(ValueError, match='simclr_mm.TwoViews'):
        model(torch.zeros(4, 3, 32, 32), mode='loss')
    with pytest.raises(ValueError, match="'predict', got 'features'"):
        model(torch.zeros(4, 3, 32, 32), mode='features')


def test_train_step():
    """One SGD step of size lr along the gradient of the loss, all parameters moved."""
    model, twin = build(), build()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    views = pixels(4, 2, 3, 32, 32)
    logged = model.train_step(dict(inputs=views), wrapper)
    batch = twin.data_preprocessor(dict(inputs=views))
    loss = twin(**batch, mode='loss')['loss']
    loss.backward()
    torch.testing.assert_close(logged['loss'], loss)
    assert logged['chance'].item() == pytest.approx(1.9459101)  # ln(2 * 4 - 1)
    for after, before in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(after, before - 0.1 * before.grad)
        assert before.grad.any()


@pytest.mark.parametrize('step', ['val_step', 'test_step'])
def test_predictions_carry_features(step):
    model = build()
    model.eval()
    images = pixels(3, 3, 32, 32)
    samples = [DataSample().set_gt_label(label) for label in range(3)]
    with torch.no_grad():
        results = getattr(model, step)(dict(inputs=images, data_samples=samples))
        bare = getattr(model, step)(dict(inputs=images))
        expected = model(**model.data_preprocessor(dict(inputs=images)))
    assert [result.gt_label.item() for result in results] == [0, 1, 2]
    for result, alone, feature in zip(results, bare, expected):
        assert result.feature.equal(feature)
        assert alone.feature.equal(feature)
        assert result.to_dict()['feature'].shape == (64,)


def test_preprocessor_defaults_and_changes():
    """ImageNet statistics in RGB; inputs are BGR unless the config says otherwise."""
    blue = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    blue[:, 0] = 255
    normalised = build().data_preprocessor(dict(inputs=blue))['inputs']
    expected = [-123.675 / 58.395, -116.28 / 57.12, (255 - 103.53) / 57.375]
    assert normalised[0, :, 0, 0].tolist() == pytest.approx(expected)
    model = build(data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255]))
    normalised = model.data_preprocessor(dict(inputs=blue))['inputs']
    assert normalised[0, :, 0, 0].tolist() == [0, 0, 1]


def test_init_weights_reaches_backbone_and_neck():
    model = build(dict(THIN, init_cfg=[dict(type='Constant', layer='Conv2d', val=3.0)]))
    nn.init.zeros_(model.neck.fc0.weight)
    model.init_weights()
    assert (model.backbone.conv1.weight == 3).all()
    assert model.neck.fc0.weight.std() > 0.01


def _train_two_steps(rank, world_size, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=world_size)
    model = MMDistributedDataParallel(build())
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    views = pixels(8, 2, 3, 32, 32).chunk(world_size)[rank]
    for _ in range(2):  # DDP refuses the second step if the first left one unused
        logged = model.train_step(dict(inputs=views), wrapper)
    micro = MMDistributedDataParallel(freeze_norms(build(micro_batch_size=3).double()))
    micro(normal(8).chunk(world_size)[rank], mode='loss')['loss'].backward()
    results = (logged, list(model.module.parameters()), [p.grad for p in micro.parameters()])
    torch.save(results, folder / f'rank{rank}.pth')
    dist.destroy_process_group()


def test_distributed_training_uses_all_parameters(tmp_path):
    run_ranks(_train_two_steps, 2, 2, tmp_path)
    (logged, params, grads), (_, others, _) = (
        torch.load(tmp_path / f'rank{rank}.pth', weights_only=False) for rank in range(2)
    )
    assert logged['chance'].item() == pytest.approx(2.7080502)  # ln(2 * 8 - 1)
    for p, other, before in zip(params, others, build().parameters()):
        assert p.equal(other)
        assert not p.equal(before)
    # In micro-batches of 3 and 1 on each rank, against one pass of one process.
    whole = freeze_norms(build().double())
    whole(normal(8), mode='loss')['loss'].backward()
    for grad, p in zip(grads, whole.parameters()):
        assert (grad - p.grad).norm() <= 1e-12 * p.grad.norm()


def test_maps_of_timm_whose_channels_are_last():
    """timm's Swin gives (n, H, W, C), and says so."""
    features = torch.rand(2, 7, 7, 768)
    backbone = nn.Module()
    backbone.timm_model = nn.Module()
    backbone.timm_model.output_fmt = 'NHWC'
    torch.testing.assert_close(pooled(features, backbone), features.mean((1, 2)))
    model = nn.Module()
    model.backbone = backbone
    assert pooled(features, model).shape == (2, 768)
    assert pooled(features).shape == (2, 7)


@pytest.mark.parametrize('kind', ['SelfSupDataPreprocessor', 'ClsDataPreprocessor'])
def test_other_preprocessors_take_no_axis_of_views(kind):
    settings = dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build(data_preprocessor=dict(type=kind, **settings))
    with pytest.raises(UserError, match=f'type = {kind} does not take the views'):
        model.data_preprocessor(dict(inputs=pixels(4, 2, 3, 8, 8)), True)
    if kind == 'SelfSupDataPreprocessor':  # whose own views are a list
        views = list(pixels(2, 4, 3, 8, 8))
        made = model.data_preprocessor(dict(inputs=views, data_samples=None), True)
        assert torch.isfinite(model(made['inputs'], mode='loss')['loss'])
