"""Readers: real DICOM and NIfTI files as pydicom, nibabel and nilearn ship them, and the odd files of every format."""

import gzip
import io
import tarfile
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_windowing, pixel_array

from medmim.sources.readers import dicom, intensity, nifti, raster, tabular, tar_member

NILEARN = Path(nilearn.__file__).parent / "datasets/data"
NIBABEL = Path(nib.__file__).parent / "tests/data"
MNI = NILEARN / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def shipped(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert path, f"pydicom no longer ships {name}"
    return Path(path).read_bytes()


def changed(name: str, **values: object) -> bytes:
    """A shipped DICOM file with other header values; None deletes."""
    ds = dcmread(io.BytesIO(shipped(name)))
    for key, value in values.items():
        if value is None:
            del ds[key]
        else:
            setattr(ds, key, value)
    out = io.BytesIO()
    ds.save_as(out)
    return out.getvalue()


# DICOM


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm", "image_dfl.dcm", "examples_overlay.dcm"])
def test_dicom_grey_spans_its_window(name: str) -> None:
    shown = dicom.read_pixels(shipped(name))
    ds = dcmread(io.BytesIO(shipped(name)))
    assert shown.dtype == np.uint8
    assert shown.shape == (ds.Rows, ds.Columns)
    assert shown.max() == 255
    assert shown.std() > 20


@pytest.mark.parametrize("name", ["MR_small.dcm", "examples_overlay.dcm"])
def test_dicom_window_agrees_with_pydicoms(name: str) -> None:
    ds = dcmread(io.BytesIO(shipped(name)))
    values = apply_windowing(apply_modality_lut(pixel_array(ds), ds), ds)
    ends = apply_windowing(np.array([-1e9, 1e9]), ds)
    expected = np.rint((values - ends[0]) * 255 / (ends[1] - ends[0]))
    assert np.abs(dicom.read_pixels(shipped(name)).astype(int) - expected).max() <= 1


def test_dicom_monochrome1_is_the_inverse_of_monochrome2() -> None:
    # a real computed radiograph, as its detector stored it, and the same values read the other way
    name = "dicomdirtests/77654033/CR1/6154"
    both = {p: dicom.read_pixels(changed(name, PhotometricInterpretation=p)) for p in ("MONOCHROME1", "MONOCHROME2")}
    np.testing.assert_array_equal(both["MONOCHROME1"], 255 - both["MONOCHROME2"])
    assert dcmread(io.BytesIO(shipped(name))).PhotometricInterpretation == "MONOCHROME1"
    np.testing.assert_array_equal(dicom.read_pixels(shipped(name)), both["MONOCHROME1"])


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_dicom_transfer_syntax_changes_nothing(name: str) -> None:
    np.testing.assert_array_equal(dicom.read_pixels(shipped(name)), dicom.read_pixels(shipped("MR_small.dcm")))


def test_dicom_rescale_comes_before_the_window() -> None:
    plain = dicom.read_pixels(changed("CT_small.dcm", RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400))
    other = dicom.read_pixels(changed("CT_small.dcm", RescaleSlope=2, RescaleIntercept=100, WindowCenter=2228, WindowWidth=800))
    assert np.abs(plain.astype(int) - other).max() <= 1
    shifted = dicom.read_pixels(changed("CT_small.dcm", RescaleSlope=1, RescaleIntercept=0, WindowCenter=40, WindowWidth=400))
    assert np.abs(plain.astype(int) - shifted).mean() > 20


def test_dicom_takes_the_first_of_several_windows() -> None:
    one = dicom.read_pixels(changed("CT_small.dcm", WindowCenter=40, WindowWidth=400))
    np.testing.assert_array_equal(dicom.read_pixels(changed("CT_small.dcm", WindowCenter=[40, 900], WindowWidth=[400, 90])), one)


def test_dicom_window_functions() -> None:
    values = np.array([0.0, 40.0, 240.0, 1000.0])
    assert dicom._apply_window(values, 40, 10, "LINEAR").tolist() == [0, 142, 255, 255]  # (40 - 39.5) / 9 + 0.5
    assert dicom._apply_window(values, 40, 10, "LINEAR_EXACT").tolist() == [0, 128, 255, 255]  # 0.5
    assert dicom._apply_window(values, 40, 400, "SIGMOID").tolist() == [102, 128, 225, 255]  # 1 / (1 + exp(-4 (x - 40) / 400))
    with pytest.raises(ValueError, match="WILD"):
        dicom._apply_window(values, 40, 400, "WILD")
    with pytest.raises(ValueError, match="window"):
        dicom._apply_window(values, 40, 1, "LINEAR")


def test_dicom_without_a_window_uses_percentiles_of_what_is_no_padding() -> None:
    ds = dcmread(io.BytesIO(shipped("CT_small.dcm")))
    raw = ds.pixel_array.copy()
    low, high = np.percentile(raw.astype(float), [0.5, 99.5])
    raw[:20] = -2000  # the file's own PixelPaddingValue
    shown = dicom.read_pixels(changed("CT_small.dcm", PixelData=raw.tobytes()))
    assert (shown[:20] == 0).all()
    low, high = np.percentile(raw[20:].astype(float), [0.5, 99.5])
    np.testing.assert_array_equal(shown[20:], intensity.stretch_to_uint8(raw[20:], low, high))
    inverted = dicom.read_pixels(changed("CT_small.dcm", PixelData=raw.tobytes(), PhotometricInterpretation="MONOCHROME1"))
    assert (inverted[:20] == 0).all()
    np.testing.assert_array_equal(inverted[20:], 255 - shown[20:])


@pytest.mark.parametrize(("bits", "vr"), [(8, "OW"), (12, "US"), (16, "US")])
def test_dicom_voi_lut(bits: int, vr: str) -> None:
    # 8 bits in a table of more than 256 entries is where pydicom's own function wraps around
    top = (1 << bits) - 1
    table = np.rint(np.sqrt(np.arange(4096) / 4095) * top).astype(np.uint16)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [4096, -500, bits])
    item.add_new("LUTData", vr, table.astype(np.uint8 if bits == 8 else np.uint16).tobytes() if vr == "OW" else table.tolist())
    ds = dcmread(io.BytesIO(shipped("CT_small.dcm")))
    values = apply_modality_lut(ds.pixel_array, ds)
    shown = dicom.read_pixels(changed("CT_small.dcm", VOILUTSequence=[item], WindowCenter=1, WindowWidth=3))
    expected = 255 * np.sqrt(np.clip(values + 500, 0, 4095) / 4095)
    visible = ds.pixel_array != ds.PixelPaddingValue
    assert np.abs(shown - expected)[visible].max() <= (1.5 if bits > 8 else 2)
    assert len(np.unique(shown)) > 50


def test_dicom_colour() -> None:
    rgb = dicom.read_pixels(shipped("SC_rgb_rle.dcm"))
    assert rgb.shape == (100, 100, 3)
    np.testing.assert_array_equal(rgb[5, 50], [255, 0, 0])
    np.testing.assert_array_equal(dicom.read_pixels(shipped("SC_rgb_rle_16bit.dcm")), rgb)
    for ybr in ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm", "SC_ybr_full_422_uncompressed.dcm"):
        assert np.abs(dicom.read_pixels(shipped(ybr)).astype(int) - rgb).mean() < 8, ybr
    palette = dicom.read_pixels(shipped("examples_palette.dcm"))
    assert palette.shape == (350, 800, 3)
    assert palette.max() == 255
    assert (palette[..., 0] != palette[..., 1]).any()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: shipped("MR_truncated.dcm"), "less than expected"),
        (lambda: shipped("SC_rgb_rle_2frame.dcm"), "2 frames"),
        (lambda: shipped("rtplan.dcm"), "no pixel data"),
        (lambda: b"not a DICOM file at all", "no DICOM file"),
        (lambda: b"", "no DICOM file"),
        (lambda: shipped("CT_small.dcm")[:-9000], "less than expected"),
        (lambda: changed("CT_small.dcm", WindowCenter=40, WindowWidth=0), "window"),
    ],
)
def test_dicom_broken_files_say_why(data, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Exception, match=reason):
        dicom.read_pixels(data())


# NIfTI


def saved(
    values: np.ndarray, affine: np.ndarray, *, codes: tuple[int, int] = (1, 1), slope: float = 1, inter: float = 0
) -> bytes:
    image = nib.Nifti1Image(values, affine)
    image.header.set_slope_inter(slope, inter)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    return gzip.compress(image.to_bytes())


def marked() -> tuple[np.ndarray, np.ndarray]:
    """RAS volume: bright patch at the patient's right and front, height 0 mm."""
    values = np.full((20, 30, 10), 50, np.int16)
    values[::7, ::7] = 60
    values[14:18, 24:29, 4:7] = 1000
    values[0, 0] = 0
    affine = np.diag([2.0, 2, 4, 1])
    affine[:3, 3] = -20, -30, -20
    return values, affine


def read_coronal_slice(data: bytes, index: int) -> np.ndarray:
    return nifti.cut_coronal_slice(nifti.read_windowed_volume(data), index)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "RPI", "SRA", "PIR"])
def test_nifti_orientation_is_radiological_however_stored(axes: str) -> None:
    image = nib.Nifti1Image(*marked())
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    turned = image.as_reoriented(turn)
    data = saved(np.asarray(turned.dataobj), turned.affine)
    shown = read_coronal_slice(data, 26)
    assert shown.shape == (20, 20)
    assert (shown[7:11, 2:6] > 200).all(), "the top is up, the patient's right on the left"
    assert max(shown[:4].max(), shown[14:].max(), shown[:, 7:].max()) < 100
    assert read_coronal_slice(data, 23).max() < 255, "slices are counted from the back of the head"
    shape, affine = nifti.read_grid(data[:4096])
    values, wanted = nifti.read_volume(data)
    assert shape == values.shape
    np.testing.assert_allclose(affine, wanted)


def test_nifti_real_brain() -> None:
    data = MNI.read_bytes()
    values, _ = nifti.read_volume(data)
    middle = values.shape[1] // 2
    shown = read_coronal_slice(data, middle)
    assert shown.dtype == np.uint8
    assert shown.max() > 200
    assert 20 < shown.std() < 100
    sideways, upside_down = (np.abs(shown.astype(float) - turned).mean() for turned in (shown[:, ::-1], shown[::-1]))
    assert sideways < 5, "left and right of this template are alike"
    assert upside_down > 20
    # the same volume stored from left to right and back to front gives the same picture
    stored = nib.load(MNI)
    flipped = nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine).as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt("LPI"))
    )
    np.testing.assert_array_equal(read_coronal_slice(flipped.to_bytes(), middle), shown)


@pytest.mark.parametrize("name", ["anatomical.nii", "reoriented_anat_moved.nii", "example4d.nii.gz", "example_nifti2.nii.gz"])
def test_nifti_shipped_files(name: str) -> None:
    data = (NIBABEL / name).read_bytes()
    if len(nib.load(NIBABEL / name).shape) > 3:
        with pytest.raises(ValueError, match="one volume"):
            nifti.read_volume(data)
        return
    values, affine = nifti.read_volume(data)
    assert "".join(nib.aff2axcodes(affine)) == "RAS"
    assert read_coronal_slice(data, values.shape[1] // 2).max() > 200


def test_nifti_slope_and_intercept() -> None:
    values, affine = marked()
    scaled, _ = nifti.read_volume(saved(values, affine, slope=0.5, inter=-3))
    np.testing.assert_allclose(scaled, values * 0.5 - 3)


def test_nifti_pixels_are_square() -> None:
    values, affine = marked()
    affine[0, 0] = 6
    assert read_coronal_slice(saved(values, affine), 3).shape == (10, 30)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: b"nothing of the kind", "no readable NIfTI"),
        (lambda: MNI.read_bytes()[:20000], "no readable NIfTI"),
        (lambda: saved(marked()[0], marked()[1], codes=(0, 0)), "orientation"),
        (lambda: saved(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), "64 values are not finite"),
        (lambda: saved(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), "one volume"),
        (lambda: saved(np.zeros((4, 4), np.int16), np.eye(4)), "three dimensions"),
        (lambda: saved(np.zeros((4, 4, 4), np.int16), np.eye(4)), "blank"),
        (lambda: saved(marked()[0][:, :5], marked()[1]), "has 5 coronal slices, none of index 5"),
    ],
)
def test_nifti_broken_files_say_why(data, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=reason):
        read_coronal_slice(data(), 5 if "index 5" in reason else 0)


# Raster images


def drawn(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(mode: str = "L") -> Image.Image:
    return Image.fromarray(np.add.outer(np.arange(20) * 8, np.arange(10) * 9).astype(np.uint8)).convert(mode)


def test_raster_is_turned_upright_by_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise
    shown = raster.read_pixels(drawn(gradient(), exif=exif.tobytes()))
    np.testing.assert_array_equal(shown, np.rot90(np.asarray(gradient()), -1))


def test_raster_of_16_bits_uses_the_bits_there_are() -> None:
    values = np.linspace(0, 4095, 20 * 10).astype(np.uint16).reshape(20, 10)  # 12 bits in 16
    shown = raster.read_pixels(drawn(Image.fromarray(values)))
    assert shown.dtype == np.uint8
    assert np.abs(shown - values * (255 / 4095)).max() < 3


def test_raster_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    shown = raster.read_pixels(drawn(image))
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[1, 1].tolist() == [200, 0, 0]
    palette = image.convert("RGB").quantize(4)
    paletted = raster.read_pixels(drawn(palette, transparency=palette.getpixel((1, 1))))
    assert paletted[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF"), ("1", "PNG"), ("YCbCr", "JPEG")])
def test_raster_modes(mode: str, kind: str) -> None:
    shown = raster.read_pixels(drawn(gradient(mode), kind))
    shown = shown if shown.ndim == 2 else shown[..., 0]
    expected = np.asarray(gradient("1" if mode == "1" else "L").convert("L"), int)
    assert np.abs(shown.astype(int) - expected).mean() < 12


def frames() -> bytes:
    return drawn(gradient(), "GIF", save_all=True, append_images=[gradient().rotate(90)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: drawn(gradient().resize((300, 300)), "JPEG")[:-900], "truncated"),
        (lambda: drawn(gradient().resize((300, 300)))[:-90], "can't be decoded.*truncated"),
        (lambda: b"GIF? no", "can't be decoded: no image format"),
        (lambda: b"", "can't be decoded"),
        (frames, "2 frames"),
    ],
)
def test_raster_broken_files_say_why(data, reason: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=reason):
        raster.read_pixels(data())


# Archives


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "tars/paper.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as out:
        for name in ("./PMC1/a.jpg", "PMC1/b.jpg", "../../outside.jpg", "/absolute.jpg"):
            entry = tarfile.TarInfo(name)
            entry.size = 5000
            out.addfile(entry, io.BytesIO(np.random.default_rng(len(name)).bytes(5000)))
        for name, kind in (("PMC1/soft.jpg", tarfile.SYMTYPE), ("PMC1/hard.jpg", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "PMC1/b.jpg"
            out.addfile(entry)
    return path


def test_member_is_read_without_unpacking(tar: Path) -> None:
    assert len(tar_member.read_source_bytes(tar.parents[1], "tars/paper.tar.gz!PMC1/a.jpg")) == 5000
    assert tar_member.read_tar_member(tar, "PMC1/a.jpg") != tar_member.read_tar_member(tar, "PMC1/b.jpg")
    assert [p.name for p in tar.parent.iterdir()] == ["paper.tar.gz"]
    assert not (tar.parents[2] / "outside.jpg").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tars/paper.tar.gz!../../outside.jpg", "not a path below"),
        ("tars/paper.tar.gz!/absolute.jpg", "not a path below"),
        ("tars/paper.tar.gz!", "not a path below"),
        ("../x.jpg", "not a path below"),
        ("/etc/hostname", "not a path below"),
        ("tars/paper.tar.gz!PMC1/soft.jpg", "refused"),
        ("tars/paper.tar.gz!PMC1/hard.jpg", "refused"),
        ("tars/paper.tar.gz!PMC1/none.jpg", r"no member PMC1/none\.jpg in paper\.tar\.gz"),
        ("tars/none.tar.gz!PMC1/a.jpg", r"no file none\.tar\.gz"),
        ("tars/none.jpg", "no such file"),
        ("tars", "is a folder, expected a file"),
    ],
)
def test_unsafe_and_absent_members_are_refused(tar: Path, name: str, reason: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        tar_member.read_source_bytes(tar.parents[1], name)


@pytest.mark.parametrize("keep", [200, 6000])
def test_tar_cut_off(tar: Path, keep: int) -> None:
    tar.write_bytes(tar.read_bytes()[:keep])
    with pytest.raises(ValueError, match="tar"):
        tar_member.read_tar_member(tar, "PMC1/b.jpg")


# Cells


@pytest.mark.parametrize("text", ["2015-01-31", "2015-01-31 00:00:00", "2015-01-31T08:30:00.5", "2212-02-28"])
def test_days_are_read(text: str) -> None:
    assert tabular.parse_day(text).isoformat() == text[:10]


@pytest.mark.parametrize(
    "text", ["2015-02-30", "2015-13-01", "31.1.2015", "20150131", "2015-W05-6", "1900-01-01", "9999-12-31", "2015-01-31x", ""]
)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no date from 1901 to 2300"):
        tabular.parse_day(text)


@pytest.mark.parametrize(("text", "age"), [("57", "57"), ("57.0", "57"), ("0", "0"), ("0.5", "0.5"), ("120", "120")])
def test_ages_are_read(text: str, age: str) -> None:
    assert tabular.parse_age(text) == age


@pytest.mark.parametrize(
    "text", ["", "-999", "-9.0", "-1", "999", "9999", "999.0", "89+", ">89", ">= 90", "NaN", "Unknown", "n/a"]
)
def test_a_code_of_a_missing_or_withheld_age_is_no_age(text: str) -> None:
    assert tabular.parse_age(text) == ""


@pytest.mark.parametrize("text", ["250", "121", "-5", "fifty", "1e2", "5 7"])
def test_an_absurd_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no age from 0 to 120 years"):
        tabular.parse_age(text)
