"""Write the fixtures of this folder with TensorFlow, which the tests do not need.

Needs tensorflow and tf-keras: TF_USE_LEGACY_KERAS=1 python make_fixtures.py

The networks are built here anew from what google-research/simclr says of them, with
TensorFlow's own layers, which give the variables their names. They are thin, 1 to 8
channels, and only names, shapes and results are kept: values come from the names.

With --full PREFIX a ResNet-50 of full size is written as a checkpoint, and its features
beside it, to be compared by hand.
"""

import argparse
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
from variables import images, value

v1 = tf.compat.v1
HERE = Path(__file__).parent
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def pad(x, kernel):
    before = (kernel - 1) // 2
    after = kernel - 1 - before
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])


def conv(x, filters, kernel, stride):
    if stride > 1:
        x = pad(x, kernel)
    return v1.layers.conv2d(
        x, filters, kernel, stride, 'same' if stride == 1 else 'valid', use_bias=False
    )


def norm(x, relu=True, center=True):
    x = v1.layers.batch_normalization(x, epsilon=1e-5, center=center)
    return tf.nn.relu(x) if relu else x


def selective(x, filters, stride):
    x = norm(conv(x, 2 * filters, 3, stride))
    streams = tf.stack(tf.split(x, 2, axis=3))
    mean = tf.reduce_mean(tf.reduce_sum(streams, 0), [1, 2], keepdims=True)
    middle = norm(conv(mean, max(filters // 16, 32), 1, 1))
    mix = tf.stack(tf.split(conv(middle, 2 * filters, 1, 1), 2, axis=3))
    return tf.reduce_sum(streams * tf.nn.softmax(mix, axis=0), 0)


def block(x, filters, stride, first, sk, bottleneck):
    shortcut, out = x, filters * (4 if bottleneck else 1)
    if first and sk:
        if stride > 1:
            shortcut = pad(shortcut, 2)
        padding = 'same' if stride == 1 else 'valid'
        shortcut = v1.layers.average_pooling2d(shortcut, 2, stride, padding)
        shortcut = norm(conv(shortcut, out, 1, 1), relu=False)
    elif first:
        shortcut = norm(conv(x, out, 1, stride), relu=False)
    if bottleneck:
        x = norm(conv(x, filters, 1, 1))
        x = selective(x, filters, stride) if sk else norm(conv(x, filters, 3, stride))
        x = norm(conv(x, out, 1, 1), relu=False)
    else:
        x = norm(conv(x, filters, 3, stride))
        x = norm(conv(x, filters, 3, 1), relu=False)
    return tf.nn.relu(x + shortcut)


def resnet(x, depth, channels, sk, small):
    if small:
        x = norm(conv(x, channels, 3, 1))
    else:
        if sk:
            x = norm(conv(x, channels // 2, 3, 2))
            x = norm(conv(x, channels // 2, 3, 1))
            x = conv(x, channels, 3, 1)
        else:
            x = conv(x, channels, 7, 2)
        x = v1.layers.max_pooling2d(norm(x), 3, 2, 'same')
    for stage, blocks in enumerate(BLOCKS[depth]):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            x = block(x, channels * 2**stage, stride, not number, sk, depth >= 50)
    return tf.reduce_mean(x, [1, 2])


def head(h, layers, out):
    for layer in range(layers):
        last = layer == layers - 1
        with v1.variable_scope(f'nl_{layer}'):
            h = v1.layers.dense(h, out if last else h.shape[-1], use_bias=False)
            h = norm(h, relu=not last, center=not last)
    return h


def run(depth, channels, sk, small, layers, sizes, save=None):
    """Names, shapes, and features and projections for each size."""
    results = {}
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None, None, 3])
        with v1.variable_scope('base_model'):
            h = resnet(x, depth, channels, sk, small)
        with v1.variable_scope('head_contrastive'):
            z = head(h, layers, 5)
        with v1.variable_scope('head_supervised/linear_layer'):
            v1.layers.dense(h, 3)
        variables = v1.global_variables()
        for variable in variables:
            name = variable.op.name
            variable.load(value(name, tuple(variable.shape)), session)
        if save:
            v1.train.Saver(variables).save(session, save, write_meta_graph=False)
        for side in sizes:
            features, projections = session.run([h, z], {x: images(*side)})
            key = 'x'.join(map(str, side))
            results[f'features/{key}'] = features
            results[f'projections/{key}'] = projections
    names = {v.op.name: tuple(v.shape) for v in variables}
    results['names'] = np.array(list(names))
    results['shapes'] = np.array([','.join(map(str, s)) for s in names.values()])
    return results


class Attributes(tf.Module):
    """An object with attributes, as Google's Keras layers are for a checkpoint."""


def objects(names):
    """The tree of TensorFlow 2's checkpoint for the variables of TensorFlow 1."""
    count = dict(conv2d=iter(range(999)), batch_normalization=iter(range(999)))

    def variable_of(layer, *kinds):
        number = next(count[layer])
        scope = f'base_model/{layer}' + (f'_{number}' if number else '')
        found = Attributes()
        for kind in kinds:
            name = f'{scope}/{kind}'
            setattr(found, kind, tf.Variable(value(name, names[name])))
        return found

    def convolution():
        found = Attributes()
        found.conv2d = variable_of('conv2d', 'kernel')
        return found

    def normalisation():
        found = Attributes()
        found.bn = variable_of(
            'batch_normalization', 'gamma', 'beta', 'moving_mean', 'moving_variance'
        )
        return found

    def kernel():
        found = Attributes()
        found.conv2d_fixed_padding = convolution()
        found.batch_norm_relu = normalisation()
        found.conv2d_0 = variable_of('conv2d', 'kernel')
        found.batch_norm_relu_1 = normalisation()
        found.conv2d_1 = variable_of('conv2d', 'kernel')
        return found

    net = Attributes()
    net.initial_conv_relu_max_pool = [
        convolution(),
        normalisation(),
        convolution(),
        normalisation(),
        convolution(),
        Attributes(),
        normalisation(),
        Attributes(),
        Attributes(),
    ]
    net.block_groups = []
    for blocks in BLOCKS[50]:
        group = Attributes()
        group.layers = []
        for number in range(blocks):
            layer = Attributes()
            layer.projection_layers = []
            if number == 0:
                layer.projection_layers = [
                    Attributes(),
                    Attributes(),
                    convolution(),
                    normalisation(),
                ]
            layer.conv_relu_dropblock_layers = [
                convolution(),
                normalisation(),
                Attributes(),
                kernel(),
                Attributes(),
                convolution(),
                normalisation(),
                Attributes(),
            ]
            group.layers.append(layer)
        net.block_groups.append(group)
    return net


def second_head(names):
    found = Attributes()
    found.linear_layers = []
    for layer in range(3):
        linear = Attributes()
        linear.dense, linear.bn_relu = Attributes(), Attributes()
        linear.bn_relu.bn = Attributes()
        scope = f'head_contrastive/nl_{layer}/'
        linear.dense.kernel = tf.Variable(
            value(f'{scope}dense/kernel', names[f'{scope}dense/kernel'])
        )
        for kind in ('gamma', 'beta', 'moving_mean', 'moving_variance'):
            name = f'{scope}batch_normalization/{kind}'
            if name in names:
                setattr(linear.bn_relu.bn, kind, tf.Variable(value(name, names[name])))
        found.linear_layers.append(linear)
    return found


def write_tensorflow_2(names):
    """A SavedModel's variables; its list of them is the shortest way to each."""
    root, model = Attributes(), Attributes()
    model.resnet_model, model._projection_head = objects(names), second_head(names)
    root.model = model
    root.trainable_variables_list = list(model.trainable_variables)
    root.global_step = tf.Variable(7, dtype=tf.int64)
    with tempfile.TemporaryDirectory() as folder:
        tf.train.Checkpoint(root=root).write(f'{folder}/variables')
        with tarfile.open(HERE / 'tensorflow2.tar.xz', 'w:xz') as archive:
            for file in sorted(Path(folder).iterdir()):
                archive.add(file, file.name)


def write_bundle():
    """Every type that is read, in two files of values."""
    values = dict(
        scalar=tf.constant(3, tf.int64),
        floats=value('floats', (7, 191)),
        double=tf.constant([1.5, -2.5], tf.float64),
        ints=tf.constant([[1], [-2]]),
        bools=tf.constant([True, False]),
        half=tf.constant([0.5, 3], tf.float16),
        brain=tf.constant([1.5, -0.25, 3e38], tf.bfloat16),
        empty=tf.zeros((0, 4)),
        text=tf.constant('hello'),
    )
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for keys in (list(values)[:4], list(values)[4:]):
            parts.append(f'{folder}/part{len(parts)}')
            tf.raw_ops.SaveV2(
                prefix=parts[-1],
                tensor_names=keys,
                shape_and_slices=[''] * len(keys),
                tensors=[values[key] for key in keys],
            )
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=parts, destination_prefix=str(HERE / 'types')
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--full', metavar='PREFIX')
    parser.add_argument('--sk', action='store_true')
    args = parser.parse_args()
    if args.full:
        results = run(50, 64, args.sk, False, 3, [(224, 224)], args.full)
        np.savez(f'{args.full}.npz', **results)
        return
    sizes = [(64, 64), (75, 90)]
    cases = dict(
        v1=run(50, 2, False, False, 2, sizes),
        v2_sk=run(50, 2, True, False, 3, sizes),
        small=run(18, 2, False, True, 3, [(32, 32), (17, 30)]),
    )
    np.savez_compressed(
        HERE / 'tensorflow1.npz',
        **{
            f'{case}/{key}': array
            for case, results in cases.items()
            for key, array in results.items()
        },
    )
    names = zip(cases['v2_sk']['names'], cases['v2_sk']['shapes'])
    write_tensorflow_2(
        {
            str(name): tuple(int(side) for side in str(shape).split(',') if side)
            for name, shape in names
        }
    )
    write_bundle()


if __name__ == '__main__':
    main()
