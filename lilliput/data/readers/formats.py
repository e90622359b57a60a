"""Tells from a file's name what it holds: rows, plain text, or something that no text can be read from."""

from pathlib import Path

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of the compressions that are undone while reading; in any case, as all suffixes."""
JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")
JSON = ".json"
"""One array of objects, or JSON Lines under that name."""
PARQUET = ".parquet"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
ROWS = (*JSON_LINES, JSON, PARQUET, *SEPARATORS)
"""Suffixes of files of rows."""

_OTHERS = {
    "unpack it": "zip tar tgz tbz tbz2 txz 7z rar jar whl iso dmg deb rpm",
    "undo its compression": "z lz4 lzma lzo br sz snappy",
    "write its text to a .txt file": "pdf ps djvu doc docx odt rtf epub mobi azw3 ppt pptx odp pages chm",
    "save its sheet as .csv": "xls xlsx xlsm xlsb ods numbers",
    'write it as Parquet: python -c "import datasets, sys; datasets.Dataset.from_file(sys.argv[1]).to_parquet('
    'sys.argv[2])" FILE.arrow FILE.parquet': "arrow",
    "write its rows to a .jsonl, .csv or .parquet file": "feather avro orc sqlite sqlite3 db duckdb mdb h5 hdf5 mat "
    "npy npz pkl pickle joblib msgpack rds rdata tfrecord lance",
    "take it out": "png jpg jpeg gif webp bmp tif tiff ico heic avif psd mp3 wav flac ogg opus m4a aac mp4 mkv avi mov "
    "webm bin dat safetensors gguf ggml pt pth ckpt onnx pb tflite exe dll so o a dylib class pyc pyd wasm woff woff2 "
    "ttf otf eot swf",
}
_WHAT_TO_DO = {f".{name}": todo for todo, names in _OTHERS.items() for name in names.split()}

_ABOUT_NAMES = ("readme", "license", "licence")
_ABOUT_SUFFIXES = ("", ".md", ".txt", ".rst")
_ABOUT_JSON = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files that the library `datasets` writes beside rows."""


def suffix_of(path: Path) -> str:
    """The suffix of a file in small letters, without that of its compression."""
    return (path.with_suffix("") if compression_of(path) else path).suffix.lower()


def compression_of(path: Path) -> str:
    """The suffix of the compression in small letters; "" if none."""
    return path.suffix.lower() if path.suffix.lower() in COMPRESSED else ""


def holds_rows(path: Path) -> bool:
    """Return whether a file is one of rows."""
    return suffix_of(path) in ROWS


def tells_of_rows(path: Path) -> bool:
    """Return whether a file of that name, where it lies beside rows, tells of them: their README, license or
    description.
    """
    name = path.name.lower()
    stem, suffix = (name, "") if "." not in name else (path.stem.lower(), path.suffix.lower())
    return name in _ABOUT_JSON or (stem in _ABOUT_NAMES and suffix in _ABOUT_SUFFIXES)


def conversion(path: Path) -> str | None:
    """Return how to get at the text of a file whose format is not read; None where it is."""
    if suffix_of(path) == PARQUET and compression_of(path):
        return "undo its compression: Parquet has one inside"
    return _WHAT_TO_DO.get(suffix_of(path))
