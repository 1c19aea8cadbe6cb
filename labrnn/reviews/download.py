"""Download Stanford's archive of the 50,000 reviews and verify its checksum."""

import os
from pathlib import Path

from labrnn.errors import LabError

ARCHIVE = "aclImdb_v1.tar.gz"
URL = f"https://ai.stanford.edu/~amaas/data/sentiment/{ARCHIVE}"
SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"


def download(folder: str | os.PathLike | None = None) -> Path:
    """Download the archive unless it exists; a failed transfer is repeated once.

    Args:
        folder: folder for the archive; the user's cache if None. The environment variable
            LABRNN_DOWNLOAD_URL names a mirror.

    Returns:
        path of the archive; the file gets this name only after its checksum is verified.

    Raises:
        LabError: the network or the server fails, or the file has another checksum.
    """
    import pooch

    url = os.environ.get("LABRNN_DOWNLOAD_URL") or URL
    folder = Path(folder or pooch.os_cache("labrnn")).expanduser().absolute()
    fetcher = pooch.create(
        folder,
        base_url="",
        registry={ARCHIVE: f"sha256:{SHA256}"},
        urls={ARCHIVE: url},
        retry_if_failed=1,
    )
    # Without transfer compression, which could also unpack the archive itself.
    by_http = pooch.HTTPDownloader(
        progressbar=True, chunk_size=1 << 16, timeout=30, headers={"Accept-Encoding": "identity"}
    )
    try:
        return Path(fetcher.fetch(ARCHIVE, downloader=by_http))
    except (OSError, ValueError) as fault:  # requests' errors are OSErrors
        raise LabError(
            f"{folder / ARCHIVE}: not downloaded from {url} ({_reason(fault)}); run it"
            f" again with a network, or get {ARCHIVE} elsewhere and put it into {folder}"
        ) from fault


def _reason(fault: Exception) -> str:
    if not isinstance(fault, OSError):
        return "the download had another checksum and was deleted"
    if (response := getattr(fault, "response", None)) is not None:
        return f"the server answered {response.status_code}"
    return f"no connection: {type(fault).__name__}" if hasattr(fault, "request") else str(fault)
