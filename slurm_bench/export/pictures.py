"""The pictures of a sample as a layout wants them, each checked against its record."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from slurm_bench.data.formats.kinds import sniff_extension
from slurm_bench.errors import SampleError
from slurm_bench.export.layout import File
from slurm_bench.run.images import read_recorded
from slurm_bench.run.layout import RunDir
from slurm_bench.run.plan import Sample
from slurm_bench.run.records import Record
from slurm_bench.run.turns import sources_of

JPEG_QUALITY = 95  # without chroma subsampling (4:4:4)


def picture(run: RunDir, sample: Sample, record: Record, file: File) -> bytes:
    """What the layout has in `file`: the run's own bytes where they are encoded so already. Raises SampleError where
    they aren't what was recorded."""
    data = _source(run, sample, record) if file.picture == "source" else _edited(run, record)
    extension = Path(file.path).suffix[1:]
    return data if sniff_extension(data) == extension else _encoded(data, extension)


def _edited(run: RunDir, record: Record) -> bytes:
    data, problem = read_recorded(run, record)
    if problem:
        raise SampleError(f"lost: {problem}")
    return data


def _source(run: RunDir, sample: Sample, record: Record) -> bytes:
    """The first source image, if it is the one that was edited."""
    from slurm_bench.data.images import file_bytes

    source = sources_of(run, sample, str(record.get("by", "")))[0]
    data = file_bytes(run.root / source)
    recorded = record.get("source_sha256")
    first = recorded[0] if isinstance(recorded, list) else recorded
    if first is not None and hashlib.sha256(data).hexdigest() != first:
        raise SampleError(f"{source} isn't the source that was edited (another sha256)")
    return data


def _encoded(data: bytes, extension: str) -> bytes:
    """Upright by its EXIF; transparency is put on white for JPEG, which has none."""
    from PIL import Image

    from slurm_bench.data.images import open_image

    image, file = open_image(data), io.BytesIO()
    if extension == "png":
        image.save(file, "PNG")
        return file.getvalue()
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()
