"""Files in one blob whose bytes depend on nothing but the files: what is hashed can be made again."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Put files into a zip archive, in the order of their names and without times."""
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), files[name], zipfile.ZIP_DEFLATED)
    return blob.getvalue()


def unpack(blob: bytes) -> dict[str, bytes]:
    """Files of an archive that `pack` made."""
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def unpack_into(blob: bytes, folder: Path) -> None:
    """Write the files of an archive that `pack` made into a new `folder`."""
    folder.mkdir(parents=True)
    for name, content in unpack(blob).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def content_sha256(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the names and contents of files, whatever packs them."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\n{len(files[name])}\n".encode())
        digest.update(files[name])
    return digest.hexdigest()
