"""Any file and any PIL image become the same 8-bit colours, or are refused with the reason.

The table of docs/your_own_images.md, row by row.
"""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from simclr_mm.apis.inference import read_picture
from simclr_mm.errors import UnreadableImage
from simclr_mm.transforms import LoadImageFromFile, to_rgb
from simclr_mm.transforms.loading import read_header

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def load(path, **kwargs):
    """The file as RGB, by path and, the same, as the PIL image that it is."""
    rgb = LoadImageFromFile(**kwargs)(dict(img_path=str(path)))['img'][..., ::-1]
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_picture(image)['img'][..., ::-1], rgb)
    return rgb


@pytest.fixture
def lines(monkeypatch):
    """What is logged."""
    lines = []
    monkeypatch.setattr(to_rgb, 'print_log', lambda line, **kwargs: lines.append(line))
    to_rgb._noticed.clear()
    return lines


def tiff(values: np.ndarray, order: str = '<', photometric=None, extra=(), kind=None) -> bytes:
    """An uncompressed TIFF of one strip, (H, W, bands), by the specification (TIFF 6.0)."""
    height, width, bands = values.shape
    bits = values.dtype.itemsize * 8
    kind = kind or {'u': 1, 'i': 2, 'f': 3, 'c': 6}[values.dtype.kind]
    photometric = photometric if photometric is not None else (2 if bands >= 3 else 1)
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {
        256: [width],
        257: [height],
        258: [bits] * bands,
        259: [1],
        262: [photometric],
        273: [8],
        277: [bands],
        278: [height],
        279: [len(pixels)],
        338: list(extra),
        339: [kind] * bands,
    }
    tags = {tag: numbers for tag, numbers in tags.items() if numbers}
    body, entries = pixels, []
    for tag, numbers in tags.items():
        if tag in (273, 279):
            entries.append(struct.pack(order + 'HHII', tag, 4, 1, numbers[0]))
            continue
        packed = struct.pack(f'{order}{len(numbers)}H', *numbers)
        if len(packed) > 4:
            packed, body = struct.pack(order + 'I', 8 + len(body)), body + packed
        entries.append(struct.pack(order + 'HHI', tag, 3, len(numbers)) + packed.ljust(4, b'\0'))
    head = (b'II' if order == '<' else b'MM') + struct.pack(order + 'HI', 42, 8 + len(body))
    directory = struct.pack(order + 'H', len(entries)) + b''.join(entries) + bytes(4)
    return head + body + directory


# Depth


@pytest.mark.parametrize('name', ['deep.png', 'deep.tif', 'deep.pgm'])
def test_the_high_byte_of_16_bits(tmp_path, name, lines):
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / name), values)
    np.testing.assert_array_equal(load(tmp_path / name)[..., 0], values // 256)
    assert not lines


@pytest.mark.parametrize('name', ['deep.png', 'deep.tif', 'deep.ppm'])
def test_the_high_byte_of_colours(tmp_path, name, lines):
    values = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / name), values[..., ::-1])
    # Pillow scales a PPM by its largest value, rounding: one level.
    np.testing.assert_allclose(load(tmp_path / name).astype(int), values // 256, atol=1)


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('photometric', [0, 1])
def test_tiff_of_16_bits_in_either_order(tmp_path, order, photometric):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    (tmp_path / 'a.tif').write_bytes(tiff(values, order, photometric))
    if (order, photometric) == ('>', 0):  # white is zero: Pillow has no such mode
        with pytest.raises(UnreadableImage, match='a TIFF that Pillow does not read: 1 band'):
            LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.tif')))
        return
    got = load(tmp_path / 'a.tif')[..., 0]
    np.testing.assert_array_equal(got, (values if photometric else 65535 - values)[..., 0] >> 8)


@pytest.mark.parametrize('largest', [255, 4095, 16383])
@pytest.mark.parametrize('name', ['deep.png', 'deep.tif'])
def test_lost_levels_are_told(tmp_path, largest, name, lines):
    """Case F: 12 bits in 16 leave 16 levels, 0..255 leave one."""
    values = np.linspace(0, largest, 64 * 64).reshape(64, 64).astype(np.uint16)
    for i in range(11):
        cv2.imwrite(str(tmp_path / f'{i}{name}'), values)
        rgb = LoadImageFromFile()(dict(img_path=str(tmp_path / f'{i}{name}')))['img']
    assert len(np.unique(rgb)) == (largest + 1) // 256
    assert len(lines) == 2
    assert f'0{name} has 16 bits' in lines[0] and '(such image 1 of' in lines[0]
    assert f'9{name} has 16 bits' in lines[1] and '(such image 10 of' in lines[1]


def test_a_pgm_says_its_largest_value(tmp_path, lines):
    values = np.linspace(0, 4095, 64).astype('>u2')
    (tmp_path / 'a.pgm').write_bytes(b'P5 8 8 4095\n' + values.tobytes())
    rgb = load(tmp_path / 'a.pgm')[..., 0].ravel()
    np.testing.assert_allclose(rgb.astype(float), values / 4095 * 255, atol=1)
    assert not lines


@pytest.mark.parametrize('dtype', [np.int8, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_what_has_no_range_is_refused(tmp_path, dtype):
    (tmp_path / 'a.tif').write_bytes(tiff(RAMP.astype(dtype)[..., None]))
    kind = {'i': 'signed', 'u': 'unsigned', 'f': 'floating-point'}[np.dtype(dtype).kind]
    message = f'a.tif: its values are {kind} numbers of {np.dtype(dtype).itemsize * 8} bits'
    with pytest.raises(UnreadableImage, match=message) as caught:
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.tif')))
    assert 'damaged' not in str(caught.value) and 'save it as' in str(caught.value)


def test_complex_and_twelve_packed_bits(tmp_path):
    (tmp_path / 'c.tif').write_bytes(tiff(RAMP.astype(np.complex64)[..., None]))
    with pytest.raises(UnreadableImage, match='its values are complex numbers of 64 bits'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'c.tif')))
    values = np.arange(0, 4096, 64)
    pairs = values.reshape(-1, 2)
    packed = [(a >> 4, (a & 15) << 4 | b >> 8, b & 255) for a, b in pairs.tolist()]
    as_bytes = np.array(packed, np.uint8).reshape(8, 12, 1)
    content = bytearray(tiff(as_bytes))
    for tag, value in ((256, 8), (258, 12)):  # 8 pixels a row, of 12 bits
        entry = content.index(struct.pack('<HHI', tag, 3, 1))
        content[entry + 8 : entry + 10] = struct.pack('<H', value)
    (tmp_path / 'a.tif').write_bytes(content)
    np.testing.assert_array_equal(load(tmp_path / 'a.tif')[..., 0].ravel(), values >> 4)


@pytest.mark.parametrize('mode', ['F', 'I'])
def test_pil_images_without_a_range(mode):
    with pytest.raises(UnreadableImage, match='the PIL image: its values are'):
        read_picture(Image.fromarray(RAMP).convert(mode))


# Bands


@pytest.mark.parametrize('bands', [2, 5, 6])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_bands_that_are_no_colours_are_refused(tmp_path, bands, dtype):
    values = np.zeros((6, 5, bands), dtype)
    extra = [0] * (bands - (3 if bands > 3 else 1))
    (tmp_path / 'a.tif').write_bytes(tiff(values, extra=extra))
    with pytest.raises(UnreadableImage, match=f'a.tif: it has {bands} bands, .* neither colour'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.tif')))
    (tmp_path / 'a.tif').write_bytes(tiff(np.zeros((6, 5, 3), dtype), photometric=1))
    with pytest.raises(UnreadableImage, match='a.tif: it has 3 bands'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.tif')))


def test_a_fourth_band_of_no_meaning_is_left_out_and_told(tmp_path, lines):
    values = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    (tmp_path / 'a.tif').write_bytes(tiff(values, extra=[0]))
    np.testing.assert_array_equal(load(tmp_path / 'a.tif'), values[..., :3])
    assert 'a.tif has a fourth band' in lines[0]


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'CMYK'])
@pytest.mark.parametrize('suffix', ['png', 'tif', 'bmp', 'webp', 'gif'])
def test_modes_without_transparency_are_what_pil_makes_of_them(tmp_path, mode, suffix):
    if (mode, suffix) in (('CMYK', 'png'), ('CMYK', 'bmp'), ('CMYK', 'gif')):
        pytest.skip('there is no such file')
    image = Image.fromarray(np.stack([RAMP, RAMP.T, 255 - RAMP], -1)).convert(mode)
    image.save(tmp_path / f'a.{suffix}', **(dict(lossless=True) if suffix == 'webp' else {}))
    with Image.open(tmp_path / f'a.{suffix}') as saved:
        expected = np.asarray(saved.convert('RGB'))
    np.testing.assert_array_equal(load(tmp_path / f'a.{suffix}'), expected)


# Transparency


def glyph(alpha):
    """Black everywhere, seen where alpha says; what is unseen is coloured."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 3] = alpha
    rgba[alpha == 0, :3] = 200, 10, 30
    return rgba


@pytest.mark.parametrize('suffix', ['png', 'webp', 'tif'])
def test_transparent_pixels_are_white(tmp_path, suffix):
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:5, 2:5], alpha[6] = 255, 128
    kwargs = dict(lossless=True, exact=True) if suffix == 'webp' else {}
    Image.fromarray(glyph(alpha)).save(tmp_path / f'a.{suffix}', **kwargs)
    rgb = load(tmp_path / f'a.{suffix}')
    np.testing.assert_allclose(rgb.astype(int), 255 - np.dstack([alpha.astype(int)] * 3), atol=1)


def test_transparency_of_grey_of_palettes_and_of_keys(tmp_path):
    alpha = np.where(np.arange(64).reshape(8, 8) % 3, 255, 0).astype(np.uint8)
    expected = np.where(alpha == 255, RAMP, 255)
    Image.merge('LA', [Image.fromarray(RAMP), Image.fromarray(alpha)]).save(tmp_path / 'la.png')
    np.testing.assert_array_equal(load(tmp_path / 'la.png')[..., 0], expected)
    palette = Image.fromarray(RAMP).convert('P')
    for suffix in ('png', 'gif'):
        palette.save(tmp_path / f'p.{suffix}', transparency=palette.getpixel((3, 2)))
        rgb = load(tmp_path / f'p.{suffix}')
        assert (rgb[2, 3] == 255).all() and (rgb[0, 0] == 0).all()
    Image.fromarray(RAMP).save(tmp_path / 'l.png', transparency=int(RAMP[2, 3]))
    np.testing.assert_array_equal(load(tmp_path / 'l.png')[..., 0] == 255, RAMP == RAMP[2, 3])
    rgb = np.stack([RAMP] * 3, -1)
    Image.fromarray(rgb).save(tmp_path / 'rgb.png', transparency=tuple(rgb[2, 3].tolist()))
    np.testing.assert_array_equal(load(tmp_path / 'rgb.png')[..., 0] == 255, RAMP == RAMP[2, 3])


def test_a_transparent_grey_of_16_bits(tmp_path):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    try:
        deep.save(tmp_path / 'deep.png', transparency=0)
    except OSError:
        pytest.skip('this Pillow does not write such files')
    deep.save(tmp_path / 'deep.png', transparency=int(RAMP[2, 3]) * 257)
    np.testing.assert_array_equal(load(tmp_path / 'deep.png')[..., 0] == 255, RAMP == RAMP[2, 3])


def test_associated_alpha_of_a_tiff(tmp_path):
    alpha = np.full((8, 8), 128, np.uint8)
    rgba = np.dstack([np.full((8, 8, 3), 64, np.uint8), alpha])  # multiplied: 64 of 128
    (tmp_path / 'a.tif').write_bytes(tiff(rgba, extra=[1]))
    np.testing.assert_allclose(load(tmp_path / 'a.tif').astype(int), 64 + 127, atol=1)
    (tmp_path / 'b.tif').write_bytes(tiff(rgba, extra=[2]))  # not multiplied: 64
    np.testing.assert_allclose(load(tmp_path / 'b.tif').astype(int), 32 + 127, atol=1)


# Orientation


@pytest.mark.parametrize('suffix', ['png', 'webp', 'tif', 'jpg'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(tmp_path, suffix, orientation):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    image = image.resize((96, 48))
    exif = image.getexif()
    exif[0x0112] = orientation
    kwargs = dict(lossless=True) if suffix == 'webp' else {}
    image.save(tmp_path / f'a.{suffix}', exif=exif, **kwargs)
    rgb = np.asarray(image)
    turned = {  # EXIF 2.3, tag 274: where row 0 and column 0 lie
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb),
    }[orientation]
    got = load(tmp_path / f'a.{suffix}')
    assert got.shape == turned.shape
    assert np.abs(got.astype(int) - turned).mean() < (12 if suffix == 'jpg' else 1e-9)


@pytest.mark.parametrize(
    'text', ['<tiff:Orientation>{}</tiff:Orientation>', 'tiff:Orientation="{}"']
)
def test_orientation_of_a_jpeg_in_xmp(tmp_path, text):
    Image.fromarray(np.dstack([RAMP, RAMP.T, RAMP])).resize((64, 48)).save(
        tmp_path / 'a.jpg', quality=95
    )
    plain = (tmp_path / 'a.jpg').read_bytes()
    images = {}
    for orientation in (1, 6):
        body = b'http://ns.adobe.com/xap/1.0/\x00' + text.format(orientation).encode()
        segment = b'\xff\xe1' + (len(body) + 2).to_bytes(2, 'big') + body
        content = plain[:2] + segment + plain[2:]
        assert read_header(content).plain == (orientation == 1)  # OpenCV reads EXIF alone
        (tmp_path / 'a.jpg').write_bytes(content)
        images[orientation] = load(tmp_path / 'a.jpg').astype(int)
    assert np.abs(images[6] - np.rot90(images[1], -1)).max() <= 2  # two decoders


def test_exif_of_webp_with_the_prefix_of_jpeg(tmp_path):
    image = Image.fromarray(np.dstack([RAMP, RAMP.T, RAMP]))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.webp', lossless=True, exif=exif)  # RIFF, its size, chunks
    content = (tmp_path / 'a.webp').read_bytes()
    start = content.index(b'EXIF')  # the last chunk: name, size, body
    body = b'Exif\0\0' + content[start + 8 :]
    content = content[8:start] + b'EXIF' + struct.pack('<I', len(body)) + body
    (tmp_path / 'a.webp').write_bytes(b'RIFF' + struct.pack('<I', len(content)) + content)
    np.testing.assert_array_equal(load(tmp_path / 'a.webp'), np.rot90(np.asarray(image), -1))


def test_damaged_exif_says_nothing(tmp_path):
    image = Image.fromarray(RAMP)
    image.save(tmp_path / 'a.webp', lossless=True, exif=b'Exif\0\0 nonsense')
    np.testing.assert_array_equal(load(tmp_path / 'a.webp')[..., 0], RAMP)


# Pages, size, formats


@pytest.mark.parametrize('suffix', ['tif', 'gif', 'webp', 'png'])
def test_the_first_page_is_read_and_the_others_are_told(tmp_path, suffix, lines):
    pages = [Image.fromarray(np.full((8, 8), 40 * k, np.uint8)) for k in (1, 2, 3)]
    pages[0].save(tmp_path / f'a.{suffix}', save_all=True, append_images=pages[1:])
    rgb = LoadImageFromFile()(dict(img_path=str(tmp_path / f'a.{suffix}')))['img']
    np.testing.assert_allclose(rgb.astype(int), 40, atol=2)
    assert len(lines) == 1 and f'a.{suffix} has several pages' in lines[0]


def png_that_claims(width, height):
    def chunk(name, body):
        check = struct.pack('>I', zlib.crc32(name + body))
        return struct.pack('>I', len(body)) + name + body + check

    head = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    signature = b'\x89PNG\r\n\x1a\n'
    return signature + chunk(b'IHDR', head) + chunk(b'IDAT', body) + chunk(b'IEND', b'')


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(png_that_claims(32767, 32767))
    monkeypatch.setattr('mmcv.imfrombytes', lambda *args, **kwargs: 1 / 0)
    message = r'a.png: 32767 x 32767 pixels, more than max_pixels = 178956970 of .*LoadImage'
    with pytest.raises(UnreadableImage, match=message):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.png')))
    with pytest.raises(UnreadableImage, match=message):
        LoadImageFromFile(color_type='grayscale')(dict(img_path=str(tmp_path / 'a.png')))


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp', 'tif', 'bmp', 'ppm', 'gif'])
def test_the_limit_is_a_setting(tmp_path, suffix):
    Image.fromarray(RAMP).convert('RGB').save(tmp_path / f'a.{suffix}')
    assert load(tmp_path / f'a.{suffix}', max_pixels=64).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match='8 x 8 pixels, more than max_pixels = 63'):
        LoadImageFromFile(max_pixels=63)(dict(img_path=str(tmp_path / f'a.{suffix}')))


def test_a_12_bit_jpeg_and_a_foreign_format_say_what_they_are(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, 'JPEG')
    content = bytearray(buffer.getvalue())
    content[content.index(b'\xff\xc0') + 4] = 12
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(UnreadableImage, match='a.jpg: a JPEG of 12 bits'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.jpg')))
    Image.fromarray(RAMP).convert('RGB').save(tmp_path / 'b.tga')
    with pytest.raises(UnreadableImage, match='b.tga: .*a format that is not read.*JPEG, MPO, PNG'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'b.tga')))


def test_ordinary_files_take_opencvs_way(tmp_path, monkeypatch):
    monkeypatch.setattr('simclr_mm.transforms.loading.decode', lambda *args: 1 / 0)
    for mode in ('1', 'L', 'P', 'RGB'):
        Image.fromarray(RAMP).convert(mode).save(tmp_path / 'a.png')
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.png')))
        if mode != 'P':
            Image.fromarray(RAMP).convert(mode).save(tmp_path / 'a.jpg')
            LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.jpg')))
