"""Whole images come through; anything else names the file and what is wrong."""

import pickle

import cv2
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from simclr_mm.transforms import LoadImageFromFile, UnreadableImage


def load(path, **kwargs):
    return LoadImageFromFile(**kwargs)(dict(img_path=str(path)))


@pytest.fixture(scope='module')
def jpeg(imagenet_sample) -> bytes:
    return sorted(imagenet_sample.glob('train/*/*.JPEG'))[0].read_bytes()


@pytest.mark.portable
def test_every_photo_of_the_sample_loads(imagenet_sample):
    for path in sorted(imagenet_sample.glob('train/*/*.JPEG'))[:60]:
        results = load(path)
        img = results['img']
        assert img.dtype == np.uint8 and img.shape[2] == 3
        assert results['img_shape'] == results['ori_shape'] == img.shape[:2]


@pytest.mark.parametrize('marked', [True, False])
def test_cmyk_is_what_pil_makes_of_it(tmp_path, jpeg, marked):
    (tmp_path / 'plain.jpg').write_bytes(jpeg)
    inks = np.array(Image.open(tmp_path / 'plain.jpg').convert('CMYK'))
    inks[..., 3] = inks[..., :3].min(-1) // 2  # some black
    Image.fromarray(inks, 'CMYK').save(tmp_path / 'cmyk.jpg', quality=95)
    content = (tmp_path / 'cmyk.jpg').read_bytes()
    if not marked:  # without Adobe's segment
        start = content.index(b'\xff\xee')
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4], 'big')
        content = content[:start] + content[end:]
        (tmp_path / 'cmyk.jpg').write_bytes(content)
    expected = np.asarray(Image.open(tmp_path / 'cmyk.jpg').convert('RGB'))
    assert (load(tmp_path / 'cmyk.jpg')['img'][..., ::-1] == expected).all()
    (tmp_path / 'cut.jpg').write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImage, match='cut.jpg: a damaged image'):
        load(tmp_path / 'cut.jpg')


def test_bytes_that_a_dataset_has_read(tmp_path, jpeg):
    (tmp_path / 'plain.jpg').write_bytes(jpeg)
    sample = dict(img_path='shard.tar/key.jpg', img_bytes=jpeg)
    results = LoadImageFromFile()(sample)
    assert (results['img'] == load(tmp_path / 'plain.jpg')['img']).all()
    assert 'img_bytes' not in results  # the pipe to the trainer need not carry them
    for content, message in ((jpeg[:999], 'a damaged'), (b'', 'the file is empty')):
        with pytest.raises(UnreadableImage, match='shard.tar/key.jpg: ' + message) as e:
            LoadImageFromFile()(dict(img_path='shard.tar/key.jpg', img_bytes=content))
        assert e.value.path == 'shard.tar/key.jpg'


@pytest.mark.portable
@pytest.mark.parametrize('share', [0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_truncated_files(tmp_path, jpeg, suffix, share):
    img = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    content = cv2.imencode(suffix, img)[1].tobytes()
    path = tmp_path / f'cut{suffix}'
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableImage, match=f'cut{suffix}: ') as caught:
        load(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize('appended', [b'\0\0\0', b'trailing bytes of a camera'])
def test_something_after_the_image_does_no_harm(tmp_path, jpeg, appended):
    (tmp_path / 'plain.jpg').write_bytes(jpeg)
    (tmp_path / 'longer.jpg').write_bytes(jpeg + appended)
    plain, longer = load(tmp_path / 'plain.jpg'), load(tmp_path / 'longer.jpg')
    assert np.array_equal(plain['img'], longer['img'])


@pytest.mark.parametrize(
    'content,message',
    [
        (b'', 'the file is empty'),
        (b'<html>not found</html>', r'not an image.*\(22 bytes\)'),
        (b'\xff\xd8 a JPEG?', 'a damaged image'),
        (b'\xff\xd8\xff\xd9', 'image'),
    ],
)
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_no_image_at_all(tmp_path, content, message, backend):
    path = tmp_path / 'bad.jpg'
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=f'bad.jpg: .*{message}') as caught:
        load(path, imdecode_backend=backend)
    assert caught.value.path == str(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UnreadableImage, match='none.jpg: no such file. Check data_root'):
        load(tmp_path / 'none.jpg')
    with pytest.raises(UnreadableImage, match='cannot be read: embedded null byte'):
        load('a\0b.jpg')
    (tmp_path / 'link.jpg').symlink_to('gone.jpg')
    with pytest.raises(UnreadableImage, match='link.jpg: a broken link: there is no gone.jpg'):
        load(tmp_path / 'link.jpg')
    with pytest.raises(UnreadableImage, match='cannot be read: .*directory'):
        load(tmp_path)


def test_options_of_mmcv_still_hold(tmp_path, jpeg):
    (tmp_path / 'plain.jpg').write_bytes(jpeg)
    assert load(tmp_path / 'plain.jpg', to_float32=True)['img'].dtype == np.float32
    assert load(tmp_path / 'plain.jpg', color_type='grayscale')['img'].ndim == 2
    local = dict(backend='local')
    assert load(tmp_path / 'plain.jpg', backend_args=local)['img'].ndim == 3
    with pytest.warns(DeprecationWarning):
        results = load(tmp_path / 'plain.jpg', file_client_args=dict(backend='disk'))
    assert results['img'].ndim == 3
    assert load(tmp_path / 'none.jpg', ignore_empty=True) is None


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UnreadableImage('a.jpg: empty', 'a.jpg')))
    assert isinstance(error, UnreadableImage)
    assert (str(error), error.path) == ('a.jpg: empty', 'a.jpg')


class _Files:
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return load(self.path)


def test_error_keeps_its_type_out_of_a_worker(tmp_path):
    with pytest.raises(UnreadableImage, match='^/.*none.jpg: no such file.*dataset.$'):
        list(DataLoader(_Files(tmp_path / 'none.jpg'), num_workers=1))
