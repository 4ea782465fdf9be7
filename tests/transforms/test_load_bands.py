"""Values of files arrive as they were written, whatever the format, depth and number of bands."""

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from simclr_mm.datasets import ImageFolder, ImageList
from simclr_mm.errors import MissingPackageError, UserError
from simclr_mm.transforms import LoadBands, UnreadableImage

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 2**16, (7, 9, 5)).astype(np.uint16)  # (H, W, C)


def load(path, **kwargs):
    return LoadBands(**kwargs)(dict(img_path=str(path)))['img']


def equal(img, values, dtype):
    assert img.dtype == dtype and img.flags.c_contiguous and img.shape == values.shape
    assert (img == values).all()


@pytest.mark.parametrize(
    'written', ['contig', 'separate', 'pages', 'one by one', 'big-endian', 'deflate']
)
def test_tiff_of_many_bands_has_the_written_values(tmp_path, written):
    tifffile = pytest.importorskip('tifffile')
    options = dict(photometric='minisblack')
    values = DEEP.transpose(2, 0, 1)
    if written == 'contig':
        values, options['planarconfig'] = DEEP, 'contig'
    elif written == 'separate':
        options['planarconfig'] = 'separate'
    elif written == 'big-endian':
        options['byteorder'] = '>'
    elif written == 'deflate':
        options['compression'] = 'zlib'
    if written == 'one by one':  # tifffile notes the shape of each
        with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
            for page in values:
                file.write(page, **options)
    elif written == 'pages':  # as other programs write them, without a note of the shape
        with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
            for page in values:
                file.write(page, metadata=None, contiguous=False, **options)
    else:
        tifffile.imwrite(tmp_path / 'a.tif', values, **options)
    equal(load(tmp_path / 'a.tif'), DEEP, np.float32)
    equal(load(tmp_path / 'a.tif', bands=[4, 0, 4]), DEEP[..., [4, 0, 4]], np.float32)


@pytest.mark.parametrize('dtype', ['uint8', 'int8', '>i2', 'uint32', 'float16', 'float64', 'bool'])
def test_numpy_arrays_keep_their_numbers(tmp_path, dtype):
    values = RNG.integers(0, 100, (4, 6, 3)).astype(dtype)
    np.save(tmp_path / 'a.npy', values)
    expected = np.uint8 if dtype in ('uint8', 'bool') else np.float32
    equal(load(tmp_path / 'a.npy'), values.astype(float), expected)
    np.savez_compressed(tmp_path / 'a.npz', values)
    equal(load(tmp_path / 'a.npz'), values.astype(float), expected)
    np.save(tmp_path / 'plane.npy', values[..., 0])
    equal(load(tmp_path / 'plane.npy'), values[..., :1].astype(float), expected)


def test_the_shorter_end_of_an_array_has_the_bands(tmp_path):
    np.save(tmp_path / 'a.npy', DEEP.transpose(2, 0, 1))
    equal(load(tmp_path / 'a.npy'), DEEP, np.float32)
    equal(load(tmp_path / 'a.npy', layout='HWC'), DEEP.transpose(2, 0, 1), np.float32)
    np.save(tmp_path / 'a.npy', DEEP[:5])  # 5 x 9 x 5
    with pytest.raises(UserError, match=r"a.npy: its shape is \(5, 9, 5\).*write layout='CHW'"):
        load(tmp_path / 'a.npy')
    equal(load(tmp_path / 'a.npy', layout='CHW'), DEEP[:5].transpose(1, 2, 0), np.float32)


@pytest.mark.parametrize('bands', [1, 3, 4])
def test_png_of_16_bits_keeps_them_and_the_order_of_colours(tmp_path, bands):
    values = DEEP[..., :bands]
    bgr = values if bands == 1 else values[..., [2, 1, 0, 3][:bands]]
    cv2.imwrite(str(tmp_path / 'a.png'), bgr)
    equal(load(tmp_path / 'a.png'), values, np.float32)


def test_exif_turns_16_bits_as_it_turns_8(tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        for bits, kind in ((8, np.uint8), (16, np.uint16)):
            image = Image.fromarray(np.arange(12, dtype=kind).reshape(3, 4))
            image.save(tmp_path / f'{bits}.png', exif=exif)
        upright = load(tmp_path / '8.png').astype(np.float32)
        equal(load(tmp_path / '16.png'), upright, np.float32)


@pytest.mark.parametrize('window, ends', [((350, 100), (255, 255)), ((-100, 50), (0, 0))])
def test_bytes_beyond_a_window_do_not_wrap_around(tmp_path, window, ends):
    np.save(tmp_path / 'a.npy', np.arange(256, dtype=np.uint8).reshape(16, 16))
    img = load(tmp_path / 'a.npy', window=window)
    assert img.dtype == np.uint8 and (img.min(), img.max()) == ends


@pytest.mark.parametrize(
    'setting', [dict(bands=1), dict(window=5), dict(window=(1, float('nan'))), dict(nan='x')]
)
def test_wrong_settings_are_named(setting):
    with pytest.raises(UserError, match=f'LoadBands.{list(setting)[0]} is'):
        LoadBands(**setting)


def test_pgm_of_12_bits_is_not_scaled(tmp_path):
    values = (DEEP[..., 0] >> 4).astype('>u2')
    (tmp_path / 'a.pgm').write_bytes(b'P5 9 7 4095\n' + values.tobytes())
    equal(load(tmp_path / 'a.pgm'), values[..., None], np.float32)


@pytest.mark.parametrize('mode, bands', [('L', 1), ('LA', 2), ('RGB', 3), ('RGBA', 4), ('P', 3)])
def test_pictures_of_8_bits_stay_uint8_in_the_order_of_the_file(tmp_path, mode, bands):
    image = Image.fromarray((DEEP[..., :3] >> 8).astype(np.uint8)).convert(mode)
    image.save(tmp_path / 'a.png')
    shown = image.convert('RGB') if mode == 'P' else image
    equal(load(tmp_path / 'a.png'), np.asarray(shown).reshape(7, 9, bands), np.uint8)


def dicom(path, values, **tags):
    pydicom = pytest.importorskip('pydicom')
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, '1.2.3'
    data.Rows, data.Columns = values.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, 'MONOCHROME2'
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(values.dtype.kind == 'i')
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def test_dicom_is_in_the_units_of_its_modality(tmp_path):
    values = RNG.integers(0, 4096, (6, 8)).astype(np.uint16)
    dicom(tmp_path / 'a.dcm', values, RescaleSlope=2, RescaleIntercept=-1024)
    units = 2.0 * values - 1024
    equal(load(tmp_path / 'a.dcm'), units[..., None], np.float32)
    # PS3.3, C.11.2.1.2.1: from 40 - 0.5 - 399 / 2 to 40 - 0.5 + 399 / 2.
    cut = np.minimum(np.maximum(units, -160), 239)
    equal(load(tmp_path / 'a.dcm', window=(40, 400)), cut[..., None], np.float32)
    frames = RNG.integers(-900, 900, (3, 6, 8)).astype(np.int16)
    dicom(tmp_path / 'b.dcm', frames, NumberOfFrames=3)
    equal(load(tmp_path / 'b.dcm'), frames.transpose(1, 2, 0), np.float32)


def test_dicom_of_many_frames_and_of_a_palette(tmp_path):
    pydicom = pytest.importorskip('pydicom')

    def group(slope, intercept):
        step, group = pydicom.Dataset(), pydicom.Dataset()
        step.RescaleSlope, step.RescaleIntercept, step.RescaleType = slope, intercept, 'HU'
        group.PixelValueTransformationSequence = pydicom.Sequence([step])
        return group

    frames = RNG.integers(0, 4096, (3, 6, 8)).astype(np.uint16)
    shared = pydicom.Sequence([group(2, -1024)])
    dicom(tmp_path / 'a.dcm', frames, NumberOfFrames=3, SharedFunctionalGroupsSequence=shared)
    units = 2.0 * frames - 1024
    equal(load(tmp_path / 'a.dcm'), units.transpose(1, 2, 0), np.float32)
    same = pydicom.Sequence([group(1, 0)])
    frame = dict(BitsAllocated=8, BitsStored=8, HighBit=7, SharedFunctionalGroupsSequence=same)
    dicom(tmp_path / 'same.dcm', frames[0].astype(np.uint8), **frame)
    assert load(tmp_path / 'same.dcm').dtype == np.uint8
    each = pydicom.Sequence([group(k + 1, -k) for k in range(3)])
    dicom(tmp_path / 'b.dcm', frames, NumberOfFrames=3, PerFrameFunctionalGroupsSequence=each)
    units = np.stack([(k + 1.0) * frames[k] - k for k in range(3)], axis=-1)
    equal(load(tmp_path / 'b.dcm'), units, np.float32)

    table = RNG.integers(0, 256, (256, 3)).astype(np.uint16)
    colours = zip(('Red', 'Green', 'Blue'), table.T)
    tags = {f'{name}PaletteColorLookupTableData': each.tobytes() for name, each in colours}
    for name in ('Red', 'Green', 'Blue'):
        tags[f'{name}PaletteColorLookupTableDescriptor'] = [256, 0, 16]
    indices = RNG.integers(0, 256, (6, 8)).astype(np.uint16)
    dicom(tmp_path / 'c.dcm', indices, PhotometricInterpretation='PALETTE COLOR', **tags)
    equal(load(tmp_path / 'c.dcm'), table[indices].astype(float), np.float32)


def test_planes_in_other_files_are_no_zeros(tmp_path):
    """An OME-TIFF of five channels, each in a file of its own."""
    tifffile = pytest.importorskip('tifffile')
    values = DEEP.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / 'a.ome.tif', values, photometric='minisblack')
    text = tifffile.TiffFile(tmp_path / 'a.ome.tif').ome_metadata
    planes = ''.join(
        f'<TiffData IFD="0" FirstC="{k}" PlaneCount="1">'
        f'<UUID FileName="{k}.ome.tif">urn:uuid:{k}</UUID></TiffData>'
        for k in range(5)
    )
    start, _, rest = text.partition('<TiffData')
    start = re.sub('UUID="[^"]*"', 'UUID="urn:uuid:0"', start, count=1)
    text = start + planes + rest[rest.index('/>') + 2 :]
    with tifffile.TiffWriter(tmp_path / '0.ome.tif', ome=False) as file:
        file.write(values[0], description=text, metadata=None, photometric='minisblack')
    equal(load(tmp_path / '0.ome.tif'), DEEP[..., :1], np.float32)  # what this file has


def test_a_16_bit_png_that_is_cut_short(tmp_path, monkeypatch):
    """OpenCV before 5.0 gives half an image."""
    content = cv2.imencode('.png', DEEP[..., 0])[1].tobytes()
    (tmp_path / 'a.png').write_bytes(content[:-20])
    (tmp_path / 'more.png').write_bytes(content + b'of another program')
    equal(load(tmp_path / 'more.png'), DEEP[..., :1], np.float32)
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: np.zeros((7, 9), np.uint16))
    with pytest.raises(UnreadableImage, match='a.png: a damaged image'):
        load(tmp_path / 'a.png')


def test_files_of_two_depths_are_named(tmp_path):
    np.save(tmp_path / 'a.npy', DEEP)
    np.save(tmp_path / 'b.npy', (DEEP >> 8).astype(np.uint8))
    loading = LoadBands()
    loading(dict(img_path=str(tmp_path / 'a.npy')))
    with pytest.raises(UserError, match='b.npy has values of 8 bits, and .*a.npy of more: give'):
        loading(dict(img_path=str(tmp_path / 'b.npy')))


def test_what_float32_cannot_hold_names_the_file(tmp_path):
    np.save(tmp_path / 'large.npy', np.array([[2**24 + 1, 0]]))
    np.save(tmp_path / 'nan.npy', np.array([[[0.5, np.nan]] * 3] * 3))
    np.save(tmp_path / 'complex.npy', np.ones((4, 4), complex))
    np.save(tmp_path / 'objects.npy', np.array([[None]]), allow_pickle=True)
    np.save(tmp_path / 'inf.npy', np.array([[np.inf, 1]]))
    np.savez(tmp_path / 'two.npz', a=np.ones((2, 2)), b=np.ones((2, 2)))
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'nan.npy').read_bytes()[:-9])
    for name in 'large.npy nan.npy complex.npy objects.npy inf.npy two.npz cut.npy'.split():
        with pytest.raises(UnreadableImage, match=name) as caught:
            load(tmp_path / name)
        assert caught.value.path == str(tmp_path / name) and '\n' not in str(caught.value)
    filled = load(tmp_path / 'nan.npy', nan=-1)
    equal(filled, np.array([[[0.5, -1]] * 3] * 3), np.float32)
    with pytest.raises(UnreadableImage, match='inf.npy'):
        load(tmp_path / 'inf.npy', nan=0)


def test_files_with_other_bands_are_named(tmp_path):
    np.save(tmp_path / 'a.npy', DEEP)
    np.save(tmp_path / 'b.npy', DEEP[..., :4])
    loading = LoadBands(bands=[0, 1])
    loading(dict(img_path=str(tmp_path / 'a.npy')))
    with pytest.raises(UserError, match=r'b.npy has 4 band\(s\), but .*a.npy has 5') as caught:
        loading(dict(img_path=str(tmp_path / 'b.npy')))
    assert not isinstance(caught.value, UnreadableImage)
    with pytest.raises(UserError, match=r'a.npy has 5 band\(s\), 0 to 4: .*asks for 5'):
        load(tmp_path / 'a.npy', bands=[5])


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'tifffile', None)
    (tmp_path / 'a.tif').write_bytes(b'II*\0' + bytes(60))
    with pytest.raises(MissingPackageError, match=r"needs tifffile: pip install 'simclr_mm\["):
        load(tmp_path / 'a.tif')


def test_only_folders_of_bands_list_arrays(tmp_path):
    for name in ('x/a.npy', 'x/b.dcm', 'y/c.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for count, loader in ((1, 'LoadImageFromFile'), (3, 'LoadBands')):
        pipeline = [dict(type=f'simclr_mm.{loader}')]
        folder, places = str(tmp_path), [str(tmp_path)]
        assert len(ImageFolder(folder, pipeline)) == len(ImageList(places, pipeline)) == count
        assert len(ImageFolder(folder, pipeline, with_label=True)) == count
