"""What lists and tables say of images: classes, groups, splits, and positives from a group."""

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from PIL import Image

from simclr_mm.datasets import ImageList, ReplaceUnreadable, SampleIndex, label_subset
from simclr_mm.datasets.groups import group_number
from simclr_mm.datasets.image_table import column_of
from simclr_mm.errors import UserError

PIPELINE = [
    dict(type='simclr_mm.LoadImageFromFile'),
    dict(type='simclr_mm.TwoViews', size=4, scale=(1, 1), ratio=(1, 1), num_views=3),
    dict(type='PackInputs'),
]


@pytest.fixture
def lines(monkeypatch):
    found = []
    for module in ('image_list', 'groups'):
        monkeypatch.setattr(
            f'simclr_mm.datasets.{module}.print_log', lambda line, **kwargs: found.append(line)
        )
    return found


@pytest.fixture
def pictures(tmp_path):
    """Twelve images, each of one grey value."""
    for value in range(12):
        Image.new('RGB', (8, 8), (20 * value,) * 3).save(tmp_path / f'{value}.png')
    return tmp_path


def table(folder, name, *rows):
    (folder / name).write_text('\n'.join(rows) + '\n')
    return str(folder / name)


def names(dataset):
    infos = (dataset.get_data_info(row) for row in range(len(dataset)))
    return [info['img_path'].rpartition('/')[2].removesuffix('.png') for info in infos]


def test_spaces_after_the_commas_of_a_header(pictures, lines):
    rows = 'path, split, label', '0.png, train, dog', '1.png, test, cat', '2.png, train, cat'
    file = table(pictures, 'table.csv', *rows)
    data = ImageList([file], with_label=True, split='train')
    assert names(data) == ['0', '2'] and data.metainfo['classes'] == ('cat', 'dog')
    assert column_of(file, 'label') == ['dog', 'cat', 'cat']


def test_a_table_says_class_group_and_split(pictures, lines):
    file = table(
        pictures,
        'table.csv',
        'note,split,path,group,label',
        'x,train,0.png,anna,10',
        'x,train,1.png,anna,9',
        'x,val,2.png,ben,9',
        'x,,3.png,,',
    )
    data = ImageList([file], with_label=True)
    assert names(data) == ['0', '1', '2']
    assert data.metainfo['classes'] == ('9', '10')
    assert data.get_gt_labels().tolist() == [1, 0, 0]
    numbers = [group_number(name) for name in ('anna', 'anna', 'ben')]
    assert data.groups_of_images().tolist() == numbers
    assert any('images of all splits are used (1 none, 2 train, 1 val)' in line for line in lines)
    assert any('left out 1 images without a class' in line for line in lines)
    val = ImageList([file], with_label=True, split='val')
    assert names(val) == ['2'] and val.metainfo['classes'] == ('9', '10')
    assert '1 of 4 images are of the split val' in lines[-1]
    with pytest.raises(UserError, match=r"no image is of the split 'test' \(1 none, 2 train"):
        ImageList([file], split='test')
    unlabelled = ImageList([file])
    assert names(unlabelled) == ['0', '1', '2', '3']
    assert unlabelled.groups_of_images()[3] == -1
    with pytest.raises(UserError, match='metainfo.classes of the dataset lacks 10'):
        ImageList([file], with_label=True, metainfo=dict(classes=('9', '8')))


def test_a_parquet_table_is_a_csv_table(pictures):
    arrow = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    columns = dict(path=['0.png', '1.png', '2.png'], label=[3, None, 4], group=[7.0, None, 8.5])
    parquet.write_table(arrow.table(columns), pictures / 'table.parquet')
    text = table(pictures, 'table.csv', 'path,label,group', '0.png,3,7', '1.png,,', '2.png,4,8.5')
    ours, right = (
        ImageList([place], with_label=True) for place in (str(pictures / 'table.parquet'), text)
    )
    assert names(ours) == names(right) == ['0', '2']
    assert ours.get_gt_labels().tolist() == right.get_gt_labels().tolist() == [0, 1]
    assert ours.groups_of_images().tolist() == right.groups_of_images().tolist()
    parquet.write_table(arrow.table(dict(image=[1])), pictures / 'other.parquet')
    with pytest.raises(UserError, match='has no column path, only image'):
        ImageList([str(pictures / 'other.parquet')])
    (pictures / 'no.parquet').write_text('no table')
    with pytest.raises(UserError, match='no.parquet is no Parquet table'):
        ImageList([str(pictures / 'no.parquet')])


def test_several_roots_have_one_list_of_classes(tmp_path):
    for name in ('a/cat/1.png', 'a/dog/2.png', 'b/dog/3.png', 'b/emu/deep/4.png', 'b/5.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data = ImageList([str(tmp_path / 'a'), str(tmp_path / 'b')], with_label=True)
    assert data.metainfo['classes'] == ('cat', 'dog', 'emu')
    assert names(data) == ['1', '2', '3', '4']
    assert data.get_gt_labels().tolist() == [0, 1, 1, 2]


def test_an_image_that_is_named_twice(pictures):
    file = table(pictures, 'a.csv', 'path,label,group', '0.png,cat,', '1.png,dog,', '0.png,,anna')
    data = ImageList([file], with_label=True)
    assert names(data) == ['0', '1'] and data.groups_of_images()[0] == group_number('anna')
    other = table(pictures, 'b.csv', 'path,label', '0.png,dog')
    with pytest.raises(UserError, match="0.png is named twice, with the label 'cat' and 'dog'"):
        ImageList([file, other], with_label=True)
    assert len(ImageList([file, other])) == 2


@pytest.mark.parametrize('share', [0.1, 0.25, 0.5])
def test_an_own_split_keeps_groups_whole(pictures, lines, share):
    patients = ['a'] * 4 + ['b', 'c'] * 2 + ['d', 'e', '', '']
    rows = [f'{value}.png,{name}' for value, name in enumerate(patients)]
    file = table(pictures, 'table.csv', 'path,group', *rows)
    for seed in range(5):
        parts = [
            names(ImageList([file], split=split, val_share=share, seed=seed))
            for split in ('train', 'val')
        ]
        assert sorted(map(int, sum(parts, []))) == list(range(12))
        train, val = ({patients[int(name)] for name in part} - {''} for part in parts)
        assert not train & val
        assert abs(len(parts[1]) - share * 12) <= 2  # half of the largest group
        assert f'{len(parts[1])} of 12 images ({len(parts[1]) / 12:.1%}) are val' in lines[-1]
        assert f'{len(val)} whole groups' in lines[-1]


def test_an_own_split_without_groups_takes_the_share_of_each_class(tmp_path, lines):
    for i in range(30):
        path = tmp_path / ('cat' if i < 20 else 'dog') / f'{i}.png'
        path.parent.mkdir(exist_ok=True)
        path.touch()
    args = dict(places=[str(tmp_path)], val_share=0.2)
    val = ImageList(split='val', with_label=True, **args)
    assert np.bincount(val.get_gt_labels()).tolist() == [4, 2]
    train = ImageList(split='train', **args)  # without labels it is the same split
    assert sorted(names(train) + names(val), key=int) == [str(i) for i in range(30)]
    assert names(ImageList(split='val', seed=1, **args)) != names(val)
    with pytest.raises(UserError, match='leaves one part empty'):
        ImageList([str(tmp_path)], split='val', val_share=0.01)
    for wrong in (dict(split='val', val_share=1.0), dict(val_share=0.5)):
        with pytest.raises(UserError, match='ImageList.val_share = .* give a number'):
            ImageList([str(tmp_path)], **wrong)


def grouped(pictures, **kwargs):
    """0 to 3 of a, 4 and 5 of b, 6 alone, 7 to 11 without a group."""
    patients = ['a'] * 4 + ['b'] * 2 + ['c'] + [''] * 5
    rows = [f'{value}.png,{name}' for value, name in enumerate(patients)]
    file = table(pictures, 'table.csv', 'path,group', *rows)
    return ImageList([file], PIPELINE, positives='group', **kwargs)


def shown(sample):
    """The images that the views show."""
    grey = sample['inputs'].float().mean((1, 2, 3))
    return [round(value / 20) for value in grey.tolist()]


def test_the_views_after_the_first_show_images_of_the_group(pictures, lines):
    data = ReplaceUnreadable(grouped(pictures))
    assert '6 of 12 images have no other one as positive' in lines[-1]
    found = {row: set() for row in range(12)}
    for epoch in range(20):
        for row in range(12):
            sample = data[SampleIndex(row, 3, epoch)]
            first, *others = shown(sample)
            assert first == row
            found[row] |= set(others)
            assert sample['data_samples'].group == group_number(('a' * 4 + 'bbc')[row : row + 1])
    expected = [{0, 1, 2, 3} - {row} for row in range(4)] + [{5}, {4}]
    assert list(found.values()) == expected + [{row} for row in range(6, 12)]


def test_positives_are_a_function_of_the_address(pictures):
    indices = [SampleIndex(row, 3, epoch) for epoch in range(3) for row in range(6)]
    ours = [shown(grouped(pictures)[index]) for index in indices]
    data = grouped(pictures)
    assert ours == [shown(data[index]) for index in reversed(indices)][::-1]
    assert len(set(map(tuple, ours))) > 10
    # In a dataset of datasets the address is the place among all images.
    both = ConcatDataset([data, data])
    again = [shown(both[SampleIndex(12, 3, epoch)]) for epoch in range(9)]
    assert again == [shown(data[SampleIndex(0, 3, epoch, place=12)]) for epoch in range(9)]
    assert again != [shown(data[SampleIndex(0, 3, epoch)]) for epoch in range(9)]


def test_crops_before_the_views_are_a_function_of_the_address_too(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f'{k}.png')
    file = table(tmp_path, 'table.csv', 'path,group', *(f'{k}.png,a' for k in range(4)))
    crop = dict(type='simclr_mm.RandomCropAndFlip', size=8, scale=(0.1, 0.5))
    data = ImageList([file], [PIPELINE[0], crop, *PIPELINE[1:]], positives='group')
    for row in range(4):
        one, other = (data[SampleIndex(row, 3, 1)]['inputs'] for _ in range(2))
        assert one.equal(other)
    assert not one.equal(data[SampleIndex(row, 3, 2)]['inputs'])


@pytest.mark.parametrize('augment', ['worker', 'device'])
def test_the_first_view_stays_what_it_is(pictures, augment):
    data = grouped(pictures)
    pipeline = [PIPELINE[0], dict(PIPELINE[1], scale=(0.1, 1), augment=augment), PIPELINE[2]]
    plain = ImageList(data.places, pipeline)
    ours = ImageList(data.places, pipeline, positives='group')
    both = [each[SampleIndex(0, 3, 1)]['inputs'] for each in (ours, plain)]
    both = [each[0] if augment == 'device' else each for each in both]
    assert both[0][0].equal(both[1][0]) and not both[0].equal(both[1])


@pytest.mark.parametrize(
    'header, times, window, mates',
    [
        ('path,group', [0] * 4, 1, [{1}, {0, 2}, {1, 3}, {2}]),
        ('path,group', [0] * 4, 2, [{1, 2}, {0, 2, 3}, {0, 1, 3}, {1, 2}]),
        ('path,group,time', [0, 180, 1.5, 181], 1.5, [{2}, {3}, {0}, {1}]),
        ('path,group,time', [0, 180, 100, 181], 100, [{2}, {2, 3}, {0, 1, 3}, {1, 2}]),
    ],
)
def test_a_window_of_time(pictures, header, times, window, mates):
    rows = [f'{value}.png,a,{time}' for value, time in enumerate(times)]
    file = table(pictures, 'table.csv', header, *rows)
    data = ImageList([file], PIPELINE, positives='group', window=window)
    found = [set() for _ in mates]
    for row in range(4):
        for epoch in range(20):
            found[row] |= set(shown(data[SampleIndex(row, 0, epoch)])[1:])
    assert found == mates


def test_mates_are_those_of_a_subset(pictures):
    data = grouped(pictures, indices=[0, 2, 4])
    assert {tuple(shown(data[SampleIndex(0, 1, epoch)])) for epoch in range(9)} == {(0, 2, 2)}
    assert {tuple(shown(data[SampleIndex(2, 1, epoch)])) for epoch in range(9)} == {(4, 4, 4)}
    assert shown(data.get_subset([1, 2])[SampleIndex(0, 1, 0)]) == [2, 2, 2]
    data.get_subset_([1, 2])
    assert shown(data[SampleIndex(0, 1, 0)]) == [2, 2, 2]


@pytest.mark.parametrize(
    'kwargs, match',
    [
        (dict(positives='patient'), "write 'image' or 'group'"),
        (dict(window=3), "window = 3: give a number above 0, with positives='group'"),
        (dict(positives='group', window=0), 'window = 0: give a number above 0'),
        (dict(positives='group', window='3'), "window = '3': give a number above 0"),
        (dict(positives='group'), 'but no image has a group'),
    ],
)
def test_positives_that_cannot_be(pictures, kwargs, match):
    with pytest.raises(UserError, match=match):
        ImageList([str(pictures)], PIPELINE, **kwargs)


def test_positives_need_views_and_times_numbers(pictures):
    for time in ('late', 'nan'):
        file = table(pictures, 'table.csv', 'path,group,time', '0.png,a,1', f'1.png,a,{time}')
        with pytest.raises(UserError, match=f"1.png: its time is '{time}'"):
            ImageList([file], PIPELINE, positives='group')
    data = ImageList(grouped(pictures).places, PIPELINE[:1], positives='group')
    with pytest.raises(UserError, match="'group' needs simclr_mm.TwoViews"):
        data[0]


def test_a_subset_of_labels_keeps_the_groups(pictures):
    rows = [f'{value}.png,{value % 2},g{value // 2}' for value in range(12)]
    file = table(pictures, 'table.csv', 'path,label,group', *rows)
    config = dict(type='simclr_mm.ImageList', places=[file], with_label=True, pipeline=PIPELINE)
    data = label_subset(config, per_class=1)
    kept = [group_number(f'g{int(name) // 2}') for name in names(data)]
    assert data.groups_of_images().tolist() == kept
    assert [data[row]['data_samples'].group for row in range(2)] == kept


@pytest.mark.parametrize('grouped', [False, True])
def test_an_own_split_does_not_depend_on_the_order_of_the_rows(pictures, lines, grouped):
    rows = [f'{value}.png,{value // 3 if grouped and value < 9 else ""}' for value in range(12)]
    kept = []
    for shuffled in (rows, rows[::-1]):
        file = table(pictures, f'{len(kept)}.csv', 'path,group', *shuffled)
        data = ImageList([file], split='val', val_share=0.4)
        kept.append(names(data))
    assert sorted(kept[0]) == sorted(kept[1])
    assert kept[0] == sorted(kept[0], key=int)  # each keeps the order of its table


def test_what_an_own_split_leaves_out_is_said(pictures, lines):
    rows = [f'{value}.png,{value % 2},a,train' for value in range(6)]
    file = table(pictures, 'a.csv', 'path,label,group,split', *rows, '6.png,rare,b,test')
    ImageList([file], with_label=True, split='val', val_share=0.1)
    said = ' '.join(lines)
    assert 'the column split is ignored; to use it, name one of its splits' in said
    # Of two groups one is held out, here the one with six images.
    assert 'no val image of the classes rare; no other image of the classes 0, 1' in said


def test_whole_numbers_with_gaps_are_names(pictures, lines):
    """As pandas writes a column of numbers in which one is missing."""
    first = table(pictures, 'a.csv', 'path,group', '0.png,7.0', '1.png,', '2.png,8.0')
    other = table(pictures, 'b.csv', 'path,group', '3.png,7')
    groups = ImageList([first, other]).groups_of_images()
    assert groups[0] == groups[3] == group_number('7') and groups[1] == -1
    assert column_of(first, 'group') == ['7', '', '8']
    named = table(pictures, 'c.csv', 'path,label', '0.png,1.0', '1.png,1.5')
    assert ImageList([named], with_label=True).metainfo['classes'] == ('1.0', '1.5')


def test_a_window_of_one_frame_with_times_that_are_no_binary_fractions(pictures):
    rows = [f'{value}.png,a,{time}' for value, time in enumerate((0.2, 0.4, 0.6, 0.8))]
    file = table(pictures, 'table.csv', 'path,group,time', *rows)
    data = ImageList([file], PIPELINE, positives='group', window=0.2)
    assert data._mates.alone() == 0
    mates = [{data.mate(SampleIndex(row, 0, epoch), 1) for epoch in range(40)} for row in range(4)]
    assert mates == [{1}, {0, 2}, {1, 3}, {2}]
